"""Inflates PNG pixel data once: proves that it is exactly what the header says, and stores it so for the decoder."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator

from isal import igzip_lib, isal_zlib

from fusebus.validation.limits import MAX_FRAMES
from fusebus.vision import Damaged, TooComplex
from fusebus.vision.formats import PNG_SIGNATURE, png_chunks, verify_png_checksums

BLOCK_BYTES = 65_535
"""What a stored block of deflate holds at most."""
MOST_STORED_BITS = 32
"""A pixel: eight-bit RGB."""
DEFLATE_RATIO = 1_040
"""Deflate never makes more than 1,032 bytes of one."""

_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS"})
"""What a decoder needs beside the pixel data."""
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Adam7: first column and row, and the steps."""


def verified_png(data: bytes) -> bytes:
    """The same first picture with its pixel data stored uncompressed, so that it is not inflated twice; no EXIF.

    Of more than MOST_STORED_BITS a pixel the file itself: memory counts more there than time.
    Raises Damaged where a checksum is wrong or the data has not exactly the declared length, TooComplex.
    """
    verify_png_checksums(data, isal_zlib.crc32)
    chunks = list(png_chunks(data))
    if sum(chunk.kind == b"fcTL" for chunk in chunks) > MAX_FRAMES:
        raise TooComplex(f"more than {MAX_FRAMES} frames")
    if data[25] == 3 and not any(chunk.kind == b"PLTE" and chunk.length for chunk in chunks):
        raise Damaged("png has no palette")
    bits = _bits_per_pixel(data)
    expected = _declared_bytes(data, bits)
    if expected > DEFLATE_RATIO * len(data):
        raise Damaged(f"png says it has {expected} bytes of pixel data, {len(data)} can't hold so much")
    if bits > MOST_STORED_BITS:
        _prove(data, expected)
        return data
    kept = [data[one.start - 8 : one.start + one.length + 4] for one in chunks if one.kind in _KEPT]
    return _stored(data, expected, [PNG_SIGNATURE, *kept])


def _prove(data: bytes, expected: int, keep: Callable[[bytes], object] = lambda piece: None) -> None:
    """Inflate everything, handing each piece to `keep`. Raises Damaged where it is not of the expected length."""
    length = 0
    try:
        for piece in _inflated(data):
            keep(piece)
            length += len(piece)
            if length > expected:
                break
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub says it is an instance
        raise Damaged(f"png: {error}") from error
    if length != expected:
        raise Damaged(f"png has {length} bytes of pixel data (or more), its header says {expected}")


def _stored(data: bytes, expected: int, head: list[bytes]) -> bytes:
    """`head`, one IDAT chunk of stored blocks, and the end. Written piece by piece: no byte is there twice."""
    out = io.BytesIO()
    out.writelines(head)
    start = out.tell()
    out.write(_chunk_head(b"IDAT", 0))
    checksum, adler = isal_zlib.crc32(b"IDAT"), 1

    def write(part: bytes) -> None:
        nonlocal checksum
        checksum = isal_zlib.crc32(part, checksum)
        out.write(part)

    def keep(piece: bytes) -> None:
        nonlocal adler
        adler = isal_zlib.adler32(piece, adler)
        write(_block_head(len(piece), last=False))
        write(piece)

    write(b"\x78\x01")
    _prove(data, expected, keep)
    write(_block_head(0, last=True))
    write(struct.pack(">I", adler))
    length = out.tell() - start - 8
    out.write(struct.pack(">I", checksum) + _chunk_head(b"IEND", 0) + b"\xaeB`\x82")
    out.seek(start)
    out.write(_chunk_head(b"IDAT", length))
    return out.getvalue()


def _inflated(data: bytes) -> Iterator[bytes]:
    """The pixel data in pieces of a block at most. Raises Damaged where its end is missing, IsalError."""
    inflater = isal_zlib.decompressobj()
    for fed in _compressed(data):
        waiting: bytes | memoryview = fed
        more = True
        while more and not inflater.eof:
            piece = inflater.decompress(waiting, BLOCK_BYTES)
            waiting = inflater.unconsumed_tail
            more = bool(waiting) or len(piece) == BLOCK_BYTES
            if piece:
                yield piece
    if not inflater.eof:
        raise Damaged("png has pixel data without an end")


def _compressed(data: bytes) -> Iterator[memoryview]:
    """The content of the IDAT chunks, a little at a time: what is not consumed at once is copied with each piece."""
    view = memoryview(data)
    for chunk in png_chunks(data):
        if chunk.kind == b"IDAT":
            end = chunk.start + chunk.length
            for start in range(chunk.start, end, BLOCK_BYTES):
                yield view[start : min(start + BLOCK_BYTES, end)]


def _block_head(length: int, *, last: bool) -> bytes:
    return struct.pack("<BHH", last, length, length ^ 0xFFFF)


def _chunk_head(kind: bytes, length: int) -> bytes:
    return struct.pack(">I", length) + kind


def _bits_per_pixel(data: bytes) -> int:
    depth, colour, interlaced = data[24], data[25], data[28]
    if colour not in _CHANNELS or depth not in (1, 2, 4, 8, 16) or interlaced > 1:
        raise Damaged(f"png has colour type {colour}, depth {depth}, interlacing {interlaced}")
    return depth * _CHANNELS[colour]


def _declared_bytes(data: bytes, bits: int) -> int:
    """Length of the filtered rows that the header promises, all passes together."""
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if not data[28]:
        return height * (1 + (width * bits + 7) // 8)
    total = 0
    for left, top, across, down in _PASSES:
        columns, rows = -((left - width) // across), -((top - height) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total
