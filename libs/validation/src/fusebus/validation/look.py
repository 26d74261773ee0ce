"""Reads a picture's header and decides what reading the rest may cost; nothing is decoded here."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fusebus.contracts.messages import RejectReason
from fusebus.validation import limits
from fusebus.validation.heif import heif_size, is_heif
from fusebus.vision import ImageError, ImageHeader, NotAnImage, TooComplex, TooManyPixels, inspect
from fusebus.vision.formats import JPEG_SCAN, MAX_PIXELS, MAX_SCANS, Segment, is_jpeg, jpeg_segments

_OTHER_PICTURES = (
    (b"GIF8", 0, "GIF"),
    (b"II*\x00", 0, "TIFF or camera raw"),
    (b"MM\x00*", 0, "TIFF or camera raw"),
    (b"BM", 0, "BMP"),
    (b"ftypavi", 4, "AVIF"),
    (b"ftypcrx", 4, "camera raw"),
    (b"\xff\x0a", 0, "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", 0, "JPEG XL"),
    (b"\x00\x00\x00\x0cjP  ", 0, "JPEG 2000"),
    (b"8BPS", 0, "Photoshop"),
)
"""First bytes of pictures that people do send, where those bytes lie, and what they are called."""

_FRAMES = {0xC0: "jpeg", 0xC1: "jpeg", 0xC2: "progressive", 0xC9: "arithmetic", 0xCA: "arithmetic"}
"""JPEG processes that decoders know (baseline, extended, progressive; Huffman or arithmetic), by their marker."""
_SAMPLINGS = frozenset({(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4)})
"""How many times finer brightness may be stored than colours, across and down: what libjpeg-turbo decodes."""
_OTHER_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} - _FRAMES.keys()


class UnsupportedFormat(ImageError):
    """A picture, but of no kind that is accepted."""

    reason = RejectReason.UNSUPPORTED_FORMAT.value


class Look(msgspec.Struct, frozen=True):
    """What a header says, and the limits that follow from it."""

    header: ImageHeader
    kind: str
    """Its format; `progressive` for a progressive JPEG, `arithmetic` for one that is coded so."""
    tier: limits.Tier
    segments: Sequence[Segment] = ()
    """Of a JPEG."""


def look(data: bytes, *, heif: bool) -> Look:
    """Raises NotAnImage, UnsupportedFormat, TooManyPixels, TooComplex, Damaged."""
    segments: list[Segment] = []
    if is_heif(data):
        if not heif:
            raise UnsupportedFormat("HEIC or HEIF, which is switched off")
        header, kind = ImageHeader("heif", *heif_size(data)), "heif"
    else:
        if is_jpeg(data):
            segments = jpeg_segments(data)
        header = _inspected(data, segments)
        kind = _jpeg_kind(data, header, segments) if segments else header.format
    pixels = header.width * header.height
    if max(header.width, header.height) > limits.MAX_SIDE or pixels > MAX_PIXELS:
        raise TooManyPixels(f"{header.width} x {header.height} pixels, a side may have {limits.MAX_SIDE}")
    return Look(header, kind, limits.tier(kind, pixels, len(data)), segments)


def _inspected(data: bytes, segments: Sequence[Segment]) -> ImageHeader:
    try:
        return inspect(data, segments)
    except NotAnImage:
        for magic, position, name in _OTHER_PICTURES:
            if data[position : position + len(magic)] == magic:
                raise UnsupportedFormat(name) from None
        raise


def _jpeg_kind(data: bytes, header: ImageHeader, segments: Sequence[Segment]) -> str:
    """`jpeg`, `progressive` or `arithmetic`. Raises UnsupportedFormat, TooComplex."""
    kind, scans = "jpeg", 0
    for marker, _, start, end in segments:
        scans += marker == JPEG_SCAN
        if marker in _OTHER_FRAMES or (marker in _FRAMES and data[start + 2] != 8):
            raise UnsupportedFormat(f"JPEG of process {marker:#x}, {data[start + 2]} bits")
        if marker in _FRAMES and not _is_sampled_as_usual(data[start + 7 : end]):
            raise UnsupportedFormat("JPEG with colours of an unusual resolution")
        kind = _FRAMES.get(marker, kind)
    if scans * header.width * header.height > limits.MAX_SCAN_PIXELS:
        raise TooComplex(f"{scans} scans over {header.width} x {header.height} pixels; {MAX_SCANS} only over few")
    return kind


def _is_sampled_as_usual(components: bytes) -> bool:
    """`components`: their number, then number, sampling and table of each; only three of them are looked at."""
    if len(components) != 10 or components[0] != 3:
        return True
    (across, down), *colours = [(components[at] >> 4, components[at] & 15) for at in (2, 5, 8)]
    return len(set(colours)) == 1 and any(
        (across, down) == (times[0] * colours[0][0], times[1] * colours[0][1]) for times in _SAMPLINGS
    )
