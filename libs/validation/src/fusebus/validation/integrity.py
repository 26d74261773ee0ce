"""Finds damage in JPEG and WebP that decoders forgive: too few bytes, blank ones, another end than was written."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import msgspec
import numpy as np

from fusebus.validation.limits import MAX_FRAMES
from fusebus.vision import Damaged, ImageHeader, TooComplex
from fusebus.vision.formats import JPEG_MARKER, webp_chunks
from fusebus.vision.stills import WebpStill, webp_still

SPARE_TAIL_BYTES = 4
"""A WebP encoder flushes at most so many bytes that its decoder can do without."""
BLANK_BYTES = 512
"""So many zeros in a row are no entropy-coded picture: encoders would have said it shorter."""

_BLOCKS_PER_BYTE = {"jpeg": 4, "progressive": 8}
"""Each block of 8 x 8 pixels takes at least two bits, or one in the first scan of a progressive file."""


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
