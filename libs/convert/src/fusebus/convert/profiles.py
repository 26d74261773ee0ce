"""ICC profiles: found in each container format, bounded, and kept only where they still describe the pixels."""

from __future__ import annotations

import zlib

from fusebus.vision.errors import Damaged
from fusebus.vision.formats import png_chunks, webp_chunks

MOST_PROFILE_BYTES = 4 << 20
"""More is dropped: the largest printing profiles have 3 MB."""
_JPEG_PROFILE = b"ICC_PROFILE\x00"


def of_jpeg(data: bytes) -> bytes | None:
    """The profile from APP2 segments, joined in the order they state; None where there is none.

    Raises Damaged where a part is missing: without its profile a picture's colours are others.
    """
    found: dict[int, bytes] = {}
    total, position = 0, 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        kind = data[position + 1]
        if kind in (0xDA, 0xD9):  # the picture itself
            break
        if kind == 0xFF or kind == 0x01 or 0xD0 <= kind <= 0xD7:
            position += 1 if kind == 0xFF else 2
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        content = data[position + 4 : position + 2 + length]
        if kind == 0xE2 and content.startswith(_JPEG_PROFILE) and len(content) > 14:
            found.setdefault(content[12], content[14:])
            total = content[13]
        position += 2 + length
    if not found:
        return None
    if sorted(found) != list(range(1, total + 1)):
        raise Damaged("jpeg: a part of its ICC profile is missing, or its parts are numbered wrong")
    return b"".join(found[number] for number in sorted(found))


def of_png(data: bytes) -> bytes | None:
    """The profile from iCCP, inflated within bounds."""
    for chunk in png_chunks(data):
        if chunk.kind == b"iCCP":
            content = data[chunk.start : chunk.start + chunk.length]
            _, found, packed = content.partition(b"\x00")
            if not found or packed[:1] != b"\x00":
                return None
            inflater = zlib.decompressobj()
            try:
                profile = inflater.decompress(packed[1:], MOST_PROFILE_BYTES + 1)
            except zlib.error:
                return None
            return profile if inflater.eof else None
        if chunk.kind == b"IDAT":
            return None
    return None


def of_webp(data: bytes) -> bytes | None:
    """The profile from ICCP."""
    for chunk in webp_chunks(data):
        if chunk.kind == b"ICCP":
            return data[chunk.start : chunk.start + chunk.length]
    return None


def space(profile: bytes | None) -> str:
    """The profile's colour space as it says (`RGB`, `GRAY`, `CMYK` …); empty for what is no sound profile."""
    if profile is None or not 132 <= len(profile) <= MOST_PROFILE_BYTES or profile[36:40] != b"acsp":
        return ""
    if int.from_bytes(profile[:4], "big") != len(profile):
        return ""
    return profile[16:20].decode("latin-1").strip()
