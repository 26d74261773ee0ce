"""Why a picture is not converted: a short code for programs and a sentence for people."""

from __future__ import annotations

from enum import StrEnum

from fusebus.vision.errors import ImageError


class Reason(StrEnum):
    """Short codes of failures; they stand in the record, in `--json` and in messages."""

    NOT_AN_IMAGE = "not_an_image"
    DAMAGED = "damaged"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_COMPLEX = "too_complex"
    TOO_LARGE = "too_large"
    """More bytes than are read of one file."""
    UNSUPPORTED_FORMAT = "unsupported_format"
    """A JPEG of a process, or a TIFF with samples, that nothing here reads."""
    UNSUPPORTED_DEPTH = "unsupported_depth"
    """The target can't hold the source's numbers without loss."""
    UNSUPPORTED_SIZE = "unsupported_size"
    """WebP ends at 16,383 pixels an edge."""
    MEMORY = "memory"
    UNREADABLE = "unreadable"
    UNWRITABLE = "unwritable"
    NAME = "name"
    """The name can't be one at the destination."""
    NAME_TAKEN = "name_taken"
    """Another source has the same name there."""
    EXISTS = "exists"
    """Something that is not ours is there already."""
    CHANGED = "changed"
    """The source was replaced while it was read."""
    UNAVAILABLE = "unavailable"
    """Storage did not answer."""
    INTERNAL = "internal"
    """A fault of our own; the log has it."""


class Unconvertible(Exception):
    """This picture can't be converted; the text says why."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def of_image_error(error: ImageError) -> Unconvertible:
    """The same in our words."""
    return Unconvertible(Reason(error.reason), str(error))
