"""What is said of a picture: accepted with its facts, or rejected with a code, a sentence and a detail for ops."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from fusebus.contracts.messages import RejectReason

EXPLANATIONS: dict[RejectReason, str] = {
    RejectReason.BLOB_VANISHED: "The file was gone before we could read it; please upload it again.",
    RejectReason.BLOB_CHANGED: "The file was replaced while we read it; only the latest version counts.",
    RejectReason.BLOB_TYPE: "The file was not uploaded as a block blob; please upload it as an ordinary file.",
    RejectReason.EMPTY: "The file is empty; please upload the photo again.",
    RejectReason.TOO_LARGE: "The file is larger than {megabytes} MB; please send the photo in a smaller size.",
    RejectReason.NOT_AN_IMAGE: "The file is not a photo we can read; please send JPEG, PNG or WebP.",
    RejectReason.UNSUPPORTED_FORMAT: "The photo is of a kind that we don't take; please send JPEG, PNG or WebP "
    "(on an iPhone: Settings, Camera, Formats, Most Compatible).",
    RejectReason.TOO_MANY_PIXELS: "The photo has more than {megapixels} million pixels; please send it smaller.",
    RejectReason.TOO_COMPLEX: "The photo is stored in a way that takes too long to read; "
    "please save it again as an ordinary JPEG and upload that.",
    RejectReason.DAMAGED: "The photo is damaged or incomplete; please upload it again from the original.",
}
"""One sentence for each reason: what is wrong and the way out."""


class QualityNote(StrEnum):
    """A warning that travels with an accepted picture; it is never a reason to refuse one."""

    BLURRED = "blurred"
    DARK = "dark"
    GLARE = "glare"
    TOO_SMALL = "too_small"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an accepted picture. Nothing else of its metadata is kept."""

    format: str
    """`jpeg`, `png`, `webp` or `heif`, from the first bytes."""
    width: int
    """Pixels, as stored (before EXIF orientation)."""
    height: int
    orientation: int = 1
    """EXIF, 1 to 8; the derivative is upright."""
    captured_at: str = ""
    """When the camera says it was taken: local time, ISO 8601, with an offset where the camera knows it."""
    camera: str = ""
    """Its model, at most kept.MAX_CAMERA printable characters."""
    quality: tuple[QualityNote, ...] = ()


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What the child took, as the kernel counted it."""

    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    peak_bytes: int = 0
    """Resident memory, the interpreter's own included."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Exactly one of `facts` (accepted) and `reason` (rejected) is set."""

    facts: Facts | None = None
    reason: RejectReason | None = None
    detail: str = ""
    """For ops: what exactly was found."""
    cost: Cost = Cost()
    derivative: bytes = b""
    """JPEG of the upright picture, rebuilt from pixels without metadata; only if asked for, and of HEIF always."""

    @property
    def accepted(self) -> bool:
        """Whether the picture may go on."""
        return self.facts is not None


def rejected(reason: RejectReason, detail: str) -> Verdict:
    """A refusal."""
    return Verdict(reason=reason, detail=detail[:MAX_DETAIL])


MAX_DETAIL = 500  # characters


def explanation(reason: RejectReason, *, max_bytes: int, max_pixels: int) -> str:
    """The sentence for the supplier; the limits are those in force."""
    return EXPLANATIONS[reason].format(megabytes=max_bytes // 1_000_000, megapixels=max_pixels // 1_000_000)
