"""Finds JPEG damage by mean colours that no picture has.

A block's mean is stored as the difference to the block before. Where a stretch was overwritten, a decoder soon falls
into step again, and may even end where it should, but all that follows is off by what was misread, mostly by more than
the way from black to white. A decoder hides that: it cuts to 0 and 255. So the means are decoded alone, at half their
size or less, where what is out of range shows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
import numpy as np
import simplejpeg

from fusebus.vision import Damaged
from fusebus.vision.formats import JPEG_MARKER, Segment
from fusebus.vision.stills import jpeg_still

MOST = 1.25
"""Of the range that a picture can have, from the middle: encoders round, and some sharpen a little beyond white."""
ROUNDING = 2  # levels of 256

_BLOCK = 8  # pixels: decoded so many times smaller, a pixel is the mean of a block
_NOMINAL = 128  # levels from the middle to black and white
_NO_CONVERSION = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
"""Adobe's segment that says: these are no brightness and colours, show them as they are."""
_COLOURS: dict[int, Literal["GRAY", "RGB", "CMYK"]] = {1: "GRAY", 3: "RGB", 4: "CMYK"}
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_TABLES, _SCAN, _APPLICATION = 0xDB, 0xDA, frozenset({0xE0, 0xEE})


class _Means(msgspec.Struct, frozen=True):
    """A JPEG of nothing but means."""

    data: bytes
    width: int
    height: int
    steps: tuple[int, ...]
    """Of each component, in the original: how far two neighbouring means lie apart."""


def verify_levels(data: bytes, segments: Sequence[Segment] | None = None) -> None:
    """Raises Damaged where a block's mean lies far outside of what can be shown. What can't be decoded passes here."""
    try:
        means = _means(jpeg_still(data, segments))
        out_of_range = means is not None and _is_out_of_range(means)
    except (ValueError, IndexError, KeyError, struct.error):
        return  # others find out, and say what is wrong
    if out_of_range:
        raise Damaged("jpeg has blocks beyond black or white: bytes before them were overwritten")


def _is_out_of_range(means: _Means) -> bool:
    height, width = (-(side // -_BLOCK) for side in (means.height, means.width))
    colours = _COLOURS[len(means.steps)]
    shown = simplejpeg.decode_jpeg(means.data, colours, min_height=height, min_width=width, min_factor=1, strict=False)
    for component, step in enumerate(means.steps):
        most = MOST * _NOMINAL * _smaller(step) / step + ROUNDING
        levels = np.asarray(shown)[:, :, component]
        if max(_NOMINAL - int(levels.min()), int(levels.max()) - _NOMINAL) > most:
            return True
    return False


def _means(still: bytes) -> _Means | None:
    """None where tables are defined anew between scans."""
    parts, steps, of, size, position = [b"\xff\xd8", _NO_CONVERSION], dict[int, int](), b"", (0, 0), 2
    for kind, start, end, data_end in _segments(still):
        content, position = still[start + 4 : end], data_end
        if kind == _TABLES:
            for number, step, table in _flat_tables(content):
                if number in steps:
                    return None
                steps[number] = step
                parts.append(b"\xff\xdb" + struct.pack(">H", len(table) + 2) + table)
            continue
        if kind in _FRAMES:
            size, of = struct.unpack_from(">HH", content, 1), content[8::3]
        if kind in _APPLICATION or (kind == _SCAN and content[-3]):  # a progressive scan of what is no mean
            continue
        parts.append(still[start:data_end])
    parts.append(still[position:])
    found = tuple(steps[number] for number in of)
    return _Means(b"".join(parts), size[1], size[0], found) if len(found) in _COLOURS else None


def _segments(still: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Kind, start, end, and the end of the data behind it, of each segment but the last."""
    found = JPEG_MARKER.search(still, 2)
    while found is not None and found[1][0] != 0xD9:
        end = found.end() + int.from_bytes(still[found.end() : found.end() + 2], "big")
        following = JPEG_MARKER.search(still, end)
        yield found[1][0], found.start(), end, following.start() if following else len(still)
        found = following


def _flat_tables(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Number and first step of each quantisation table, and one with a smaller first step and nothing else."""
    position = 0
    while position < len(content):
        wide = content[position] >> 4
        length = 64 * (1 + wide)
        step = int.from_bytes(content[position + 1 : position + 2 + wide], "big") or 1
        table = content[position : position + 1] + _smaller(step).to_bytes(1 + wide, "big") + bytes(length - 1 - wide)
        yield content[position] & 15, step, table
        position += 1 + length


def _smaller(step: int) -> int:
    return max(1, step // 2)
