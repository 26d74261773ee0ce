"""Finds damage that decoders forgive: data of another length than declared, or read to another end than written."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import msgspec
import numpy as np
from isal import igzip_lib, isal_zlib

from fusebus.validation.limits import MAX_FRAMES
from fusebus.vision import Damaged, ImageHeader, TooComplex
from fusebus.vision.formats import JPEG_MARKER, png_chunks, webp_chunks
from fusebus.vision.stills import WebpStill, webp_still

INFLATE_BYTES = 1 << 20
"""PNG data is inflated so much at a time and thrown away."""
DEFLATE_RATIO = 1_040
"""Deflate never makes more than 1,032 bytes of one."""
SPARE_TAIL_BYTES = 4
"""A WebP encoder flushes at most so many bytes that its decoder can do without."""
BLANK_BYTES = 512
"""So many zeros in a row are no entropy-coded picture: encoders would have said it shorter."""

_BLOCKS_PER_BYTE = {"jpeg": 4, "progressive": 8}
"""Each block of 8 x 8 pixels takes at least two bits, or one in the first scan of a progressive file."""
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Adam7: first column and row, and the steps."""


def verify_png(data: bytes) -> None:
    """Raises Damaged where the pixel data has not exactly the length that the header says.

    Checksums of the chunks are the decoder's business (see vision.decode).
    """
    if sum(chunk.kind == b"fcTL" for chunk in png_chunks(data)) > MAX_FRAMES:
        raise TooComplex(f"more than {MAX_FRAMES} frames")
    if data[25] == 3 and not any(chunk.kind == b"PLTE" and chunk.length for chunk in png_chunks(data)):
        raise Damaged("png has no palette")
    expected = _png_bytes(data)
    if expected > DEFLATE_RATIO * len(data):
        raise Damaged(f"png says it has {expected} bytes of pixel data, {len(data)} can't hold so much")
    try:
        found, ended = _inflated(data, expected)
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub says it is an instance
        raise Damaged(f"png: {error}") from error
    if found != expected or not ended:
        raise Damaged(f"png has {found} bytes of pixel data (or more), its header says {expected}")


def _inflated(data: bytes, enough: int) -> tuple[int, bool]:
    """Length of the inflated pixel data, counted up to `enough` and a little; whether its end came, checksum right."""
    inflater, found = isal_zlib.decompressobj(), 0
    for chunk in png_chunks(data):
        waiting = data[chunk.start : chunk.start + chunk.length] if chunk.kind == b"IDAT" else b""
        more = bool(waiting)
        while more and found <= enough and not inflater.eof:
            length = len(inflater.decompress(waiting, INFLATE_BYTES))
            found, waiting = found + length, inflater.unconsumed_tail
            more = bool(waiting) or length == INFLATE_BYTES
    return found, inflater.eof


def verify_jpeg(data: bytes, header: ImageHeader, kind: str) -> None:
    """Raises Damaged where there are too few bytes for the declared size, or a scan holds zeros that nobody writes.

    What the decoder sees itself, it tells: see vision.decode.
    """
    blocks = -(-header.width // 8) * -(-header.height // 8)
    if kind in _BLOCKS_PER_BYTE and len(data) < blocks // _BLOCKS_PER_BYTE[kind]:
        raise Damaged(f"jpeg says {header.width} x {header.height} pixels, {len(data)} bytes can't hold so many")
    if kind != "progressive":
        return  # there flat areas may be zeros
    for start, end in _detail_scans(data):
        if data.find(bytes(BLANK_BYTES), start, end) >= 0:
            raise Damaged(f"jpeg has {BLANK_BYTES} zeros in a row in a scan of details")


def _detail_scans(data: bytes) -> Iterator[tuple[int, int]]:
    """Where the data of each scan but those of mean colours begins and ends; flat areas take next to nothing there."""
    position, scan = 2, 0
    while found := JPEG_MARKER.search(data, position):
        if scan:
            yield scan, found.start()
        marker, start = found[1][0], found.end()
        if marker == 0xD9:
            return
        position, scan = start + int.from_bytes(data[start : start + 2], "big"), 0
        if marker == 0xDA and data[position - 3 : position - 2] != b"\x00":
            scan = position


def verify_webp(data: bytes) -> None:
    """Raises Damaged where the first picture's bytes are not used up to the last.

    Neither of WebP's codings has a checksum, but after damage a decoder finds its end elsewhere: it wants more than
    there is, or it can do without the tail.
    """
    if sum(chunk.kind == b"ANMF" for chunk in webp_chunks(data)) > MAX_FRAMES:
        raise TooComplex(f"more than {MAX_FRAMES} frames")
    still = webp_still(data)
    for kind, content in still.chunks:
        if kind != b"ALPH" and bytes(BLANK_BYTES) in content:
            raise Damaged(f"webp has {BLANK_BYTES} zeros in a row in its picture")
    kind, content = still.chunks[-1]
    if len(content) > 16 * SPARE_TAIL_BYTES:
        shorter = (*still.chunks[:-1], (kind, content[:-SPARE_TAIL_BYTES]))
        if _decodes(msgspec.structs.replace(still, chunks=shorter)):
            raise Damaged("webp is decoded without its last bytes: some before them are not what was written")


def _decodes(still: WebpStill) -> bool:
    try:
        return cv2.imdecode(np.frombuffer(still.file(), np.uint8), cv2.IMREAD_UNCHANGED) is not None
    except cv2.error:
        return False


def _png_bytes(data: bytes) -> int:
    """Length of the filtered rows that the header promises, all passes together."""
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    depth, colour, interlaced = data[24], data[25], data[28]
    if colour not in _CHANNELS or depth not in (1, 2, 4, 8, 16) or interlaced > 1:
        raise Damaged(f"png has colour type {colour}, depth {depth}, interlacing {interlaced}")
    bits = depth * _CHANNELS[colour]
    if not interlaced:
        return height * (1 + (width * bits + 7) // 8)
    total = 0
    for left, top, across, down in _PASSES:
        columns, rows = -((left - width) // across), -((top - height) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total
