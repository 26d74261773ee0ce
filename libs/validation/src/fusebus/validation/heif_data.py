"""Finds damage in HEIC data that its decoder forgives: units of a wrong length, bytes that no encoder writes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fusebus.vision import Damaged, TooComplex

MAX_BOXES = 20_000
"""Of one level, items and extents too: more is an attack on the parser."""
_FORBIDDEN = re.compile(rb"\x00\x00[\x00-\x02]")
"""Start codes and longer runs of zeros: inside of a unit HEVC writes a 3 between such bytes."""
_LENGTH_SIZE_AT = 21
"""Where a decoder's configuration says, in its last two bits, how long a unit's length is, less one."""


def verify_heif(data: bytes) -> None:
    """Raises Damaged where an HEVC picture's units don't fill its bytes or hold what no unit can; TooComplex.

    Random bytes stay unseen where they keep to that: HEVC has no checksum that must be there.
    """
    meta = next((data[start:end] for kind, start, end in _boxes(data, 0, len(data)) if kind == b"meta"), b"")
    found = {kind: meta[start:end] for kind, start, end in _boxes(meta, 4, len(meta))}
    pictures = set(_pictures(found.get(b"iinf", b"")))
    at = meta.find(b"hvcC") + 4
    size = (meta[at + _LENGTH_SIZE_AT] & 3) + 1 if 4 <= at < len(meta) - _LENGTH_SIZE_AT else 4
    for item, start, length in _extents(found.get(b"iloc", b"")):
        if item in pictures:
            _verify_units(data[start : start + length], size)


def _verify_units(picture: bytes, size: int) -> None:
    position = 0
    while position < len(picture):
        start = position + size
        position = start + int.from_bytes(picture[position:start], "big")
        if position > len(picture) or _FORBIDDEN.search(picture, start, position):
            raise Damaged("heif has picture data that no encoder writes")


def _boxes(data: bytes, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of each box."""
    for _ in range(MAX_BOXES):
        if position + 8 > end:
            return
        length, start = int.from_bytes(data[position : position + 4], "big"), position + 8
        if length == 1:
            length, start = int.from_bytes(data[start : start + 8], "big"), start + 8
        ends = min(position + length, end) if length else end
        yield data[position + 4 : position + 8], start, ends
        position = max(ends, start)
    raise TooComplex(f"heif has more than {MAX_BOXES} boxes")


def _pictures(iinf: bytes) -> Iterator[int]:
    """Numbers of the items that are HEVC pictures."""
    for kind, start, end in _boxes(iinf, 6 if iinf[:1] == b"\x00" else 8, len(iinf)):
        wide = iinf[start : start + 1] == b"\x03"
        after = start + (8 if wide else 6)
        if kind == b"infe" and iinf[start] >= 2 and iinf[after + 2 : min(after + 6, end)] == b"hvc1":
            yield int.from_bytes(iinf[start + 4 : after], "big")


def _extents(iloc: bytes) -> Iterator[tuple[int, int, int]]:
    """Item, start and length of each piece of an item that lies in the file itself."""
    read = _Reader(iloc, 4)
    version, sizes = iloc[0] if iloc else 0, read.number(2)
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    for _ in range(min(read.number(4 if version == 2 else 2), MAX_BOXES)):
        item = read.number(4 if version == 2 else 2)
        in_file = not (version and read.number(2) & 15)
        read.number(2)
        base = read.number(base_size)
        for _ in range(min(read.number(2), MAX_BOXES)):
            read.number(index_size)
            start, length = base + read.number(offset_size), read.number(length_size)
            if in_file:
                yield item, start, length
        if read.is_over:
            return


class _Reader:
    """Numbers one after the other; behind the end all are zero."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data, self._position = data, position

    @property
    def is_over(self) -> bool:
        return self._position > len(self._data)

    def number(self, length: int) -> int:
        self._position += length
        return int.from_bytes(self._data[self._position - length : self._position], "big")
