"""Owns what is known of an image before it is decoded: format by magic bytes, size, orientation, and caps on all."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from fusebus.vision.errors import Damaged, NotAnImage, TooComplex, TooManyPixels

MAX_PIXELS = 100_000_000
"""Width × height; a decoded picture then needs at most 300 MB."""
MAX_PARTS = 20_000
"""JPEG segments, or PNG or WebP chunks: more is an attack on the parser."""
MAX_SCANS = 200
"""JPEG scans: each costs a pass over the whole picture, a camera writes at most a dozen."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EXIF_ORIENTATION = 0x0112
JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
"""A marker and its kind: not a stuffed byte, a fill byte or a restart."""
JPEG_SCAN, JPEG_END = 0xDA, 0xD9
_JPEG_ALONE = 0x01  # a marker without a length
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame, any process


class ImageHeader(msgspec.Struct, frozen=True):
    """What an image says about itself. Width and height are pixels as stored, before `orientation` is applied."""

    format: str
    """`jpeg`, `png` or `webp`."""
    width: int
    height: int
    orientation: int = 1
    """EXIF orientation 1 to 8; 1 where there is none or it cannot be read."""


class Segment(NamedTuple):
    """A JPEG marker, and where its content lies; after a scan's header its coded data follow, up to the next one."""

    kind: int
    """The marker's second byte."""
    at: int
    """Of the marker's first byte."""
    start: int
    """Behind the marker: of its length, where it has one."""
    end: int
    """Behind its content, by the length that it claims."""


class Chunk(msgspec.Struct, frozen=True):
    """A PNG or WebP chunk: its four-letter kind, where its content starts, and the length it claims, in bytes."""

    kind: bytes
    start: int
    length: int


def inspect(data: bytes, segments: Sequence[Segment] | None = None) -> ImageHeader:
    """Read the header, decode nothing. `segments`: of a JPEG, where they are known already (`jpeg_segments`).

    Raises NotAnImage (no known magic bytes), TooManyPixels, TooComplex, Damaged (right magic bytes, unreadable
    structure).
    """
    if is_jpeg(data):
        header = _jpeg(data, jpeg_segments(data) if segments is None else segments)
    elif data[:8] == PNG_SIGNATURE:
        header = _png(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        header = _webp(data)
    else:
        raise NotAnImage("neither JPEG nor PNG nor WebP by its first bytes")
    if header.width < 1 or header.height < 1:
        raise Damaged(f"{header.format} header says {header.width} x {header.height} pixels")
    if header.width * header.height > MAX_PIXELS:
        raise TooManyPixels(
            f"{header.width} x {header.height} pixels are {header.width * header.height / 1e6:.0f} million, "
            f"allowed are {MAX_PIXELS / 1e6:.0f} million"
        )
    return header


def png_chunks(data: bytes) -> Iterator[Chunk]:
    """Chunks up to the end of the data or IEND; the last one may claim more bytes than there are."""
    return _chunks(data, start=8, big_endian=True, trailer=4)


def webp_chunks(data: bytes) -> Iterator[Chunk]:
    """Chunks up to the end of the data; the last one may claim more bytes than there are."""
    return _chunks(data, start=12, big_endian=False, trailer=0)


def verify_png_checksums(data: bytes, crc32: Callable[[memoryview], int] = zlib.crc32) -> None:
    """Raises Damaged where a chunk is cut short, its CRC is wrong, or IEND is missing.

    `crc32`: whoever has a faster one than zlib's.
    """
    for chunk in png_chunks(data):
        end = chunk.start + chunk.length
        if end + 4 > len(data):
            raise Damaged("png is cut short")
        if crc32(memoryview(data)[chunk.start - 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise Damaged(f"png chunk at byte {chunk.start - 8} has a wrong checksum")
        if chunk.kind == b"IEND":
            return
    raise Damaged("png is cut short: it has no end")


def is_jpeg(data: bytes) -> bool:
    """By its first bytes."""
    return data[:3] == b"\xff\xd8\xff"


def jpeg_segments(data: bytes) -> list[Segment]:
    """Up to the picture's end, which is the last of them where there is one. Raises TooComplex.

    Reads the whole file: of a large one a millisecond. Whoever asks more than one thing of a file keeps them.
    """
    found: list[Segment] = []
    scans, position = 0, 2
    while marker := JPEG_MARKER.search(data, position):
        kind, start = marker[1][0], marker.end()
        alone = kind in (_JPEG_ALONE, JPEG_END)
        position = start if alone else start + int.from_bytes(data[start : start + 2], "big")
        found.append(Segment(kind, start - 2, start, position))
        if kind == JPEG_END:
            break
        scans += kind == JPEG_SCAN
        if len(found) > MAX_PARTS or scans > MAX_SCANS:
            raise TooComplex(f"jpeg has more than {MAX_PARTS} segments or {MAX_SCANS} scans")
    return found


def _jpeg(data: bytes, segments: Sequence[Segment]) -> ImageHeader:
    size: tuple[int, int] | None = None
    orientation = 1
    for kind, _, start, end in segments:
        if kind in _JPEG_FRAMES and start + 7 <= len(data):
            if size is not None:  # which one would a decoder believe?
                raise Damaged("jpeg has two frame headers")
            height, width = struct.unpack_from(">HH", data, start + 3)
            size = width, height
        elif kind == 0xE1 and data[start + 2 : start + 8] == b"Exif\x00\x00":
            orientation = _orientation(data[start + 8 : end])
    if size is None:
        raise Damaged("jpeg has no frame header")
    return ImageHeader("jpeg", *size, orientation)


def jpeg_components(data: bytes, segments: Sequence[Segment]) -> int:
    """Of the frame header: 1 grey, 3 colours, 4 for print; 0 where there is none."""
    frames = (segment for segment in segments if segment.kind in _JPEG_FRAMES)
    return next((data[frame.start + 7] for frame in frames if frame.start + 7 < len(data)), 0)


def _png(data: bytes) -> ImageHeader:
    size, orientation = (0, 0), 1
    for index, chunk in enumerate(png_chunks(data)):
        if index == 0:
            if chunk.kind != b"IHDR" or len(data) < 24:
                raise Damaged("png does not start with its header")
            size = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
        elif chunk.kind == b"eXIf":
            orientation = _orientation(data[chunk.start : chunk.start + chunk.length])
    return ImageHeader("png", *size, orientation)


def _webp(data: bytes) -> ImageHeader:
    size: tuple[int, int] | None = None
    orientation = 1
    for chunk in webp_chunks(data):
        content = data[chunk.start : chunk.start + min(chunk.length, 65_536)]
        if size is None:
            size = webp_size(chunk.kind, content)
        elif chunk.kind == b"EXIF":
            orientation = _orientation(content.removeprefix(b"Exif\x00\x00"))
    if size is None:
        raise Damaged("webp has no image")
    return ImageHeader("webp", *size, orientation)


def webp_size(kind: bytes, content: bytes) -> tuple[int, int]:
    """Width and height that a chunk states: extended, lossy or lossless, as in the WebP container specification.

    Raises Damaged.
    """
    if kind == b"VP8X" and len(content) >= 10:
        return int.from_bytes(content[4:7], "little") + 1, int.from_bytes(content[7:10], "little") + 1
    if kind == b"VP8 " and content[3:6] == b"\x9d\x01\x2a" and len(content) >= 10:
        return int.from_bytes(content[6:8], "little") & 0x3FFF, int.from_bytes(content[8:10], "little") & 0x3FFF
    if kind == b"VP8L" and content[:1] == b"\x2f" and len(content) >= 5:
        bits = int.from_bytes(content[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise Damaged("webp has an unreadable header")


def _chunks(data: bytes, start: int, big_endian: bool, trailer: int) -> Iterator[Chunk]:
    position = start
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            return
        head = data[position : position + 8]
        if big_endian:
            kind, length = head[4:], int.from_bytes(head[:4], "big")
        else:
            kind, length = head[:4], int.from_bytes(head[4:], "little")
        yield Chunk(kind, position + 8, length)
        if kind == b"IEND":
            return
        position += 8 + length + trailer + (0 if big_endian else length & 1)  # WebP pads to even lengths
    raise TooComplex(f"more than {MAX_PARTS} chunks")


def _orientation(tiff: bytes) -> int:
    """The orientation in the first directory of an EXIF block; 1 for anything unreadable: it is no reason to refuse."""
    order = {b"II*\x00": "little", b"MM\x00*": "big"}.get(tiff[:4])
    if order is None:
        return 1
    little = order == "little"

    def number(position: int, length: int) -> int:
        return int.from_bytes(tiff[position : position + length], "little" if little else "big")

    directory = number(4, 4)
    for entry in range(directory + 2, directory + 2 + 12 * min(number(directory, 2), 1_000), 12):
        if number(entry, 2) == _EXIF_ORIENTATION:
            value = number(entry + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1
