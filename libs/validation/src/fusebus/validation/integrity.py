"""Finds damage in JPEG and WebP that decoders forgive: too few bytes, blank ones, another end than was written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import cv2
import msgspec
import numpy as np

from fusebus.validation.limits import MAX_FRAMES
from fusebus.vision import Damaged, ImageHeader, TooComplex
from fusebus.vision.formats import JPEG_SCAN, Segment, webp_chunks
from fusebus.vision.stills import WebpStill, webp_still

SPARE_TAIL_BYTES = 4
"""A WebP encoder flushes at most so many bytes that its decoder can do without."""
BLANK_BYTES = 512
"""So many zeros in a row are no entropy-coded picture: encoders would have said it shorter."""
BLANK_CODES_BYTES = 64
"""So many are none where zeros are no code of a flat block: they would be several blocks of nothing but waves."""

_BLOCKS_PER_BYTE = {"jpeg": 4, "progressive": 8}
"""Each block of 8 x 8 pixels takes at least two bits, or one in the first scan of a progressive file."""
_HUFFMAN = 0xC4
_BLOCK_END = 0
"""The symbol that ends a block of waves; a block of one colour has no other."""


def verify_jpeg(data: bytes, header: ImageHeader, kind: str, segments: Sequence[Segment]) -> None:
    """Raises Damaged where there are too few bytes for the declared size, or a scan holds zeros that nobody writes.

    `header`, `kind` and `segments` are as `look` found them. What the decoder sees itself, it tells: see vision.decode.
    """
    blocks = -(-header.width // 8) * -(-header.height // 8)
    if kind in _BLOCKS_PER_BYTE and len(data) < blocks // _BLOCKS_PER_BYTE[kind]:
        raise Damaged(f"jpeg says {header.width} x {header.height} pixels, {len(data)} bytes can't hold so many")
    for start, end, blank in _scans(data, kind, segments):
        if data.find(bytes(blank), start, _trimmed(data, start, end)) >= 0:
            raise Damaged(f"jpeg has {blank} zeros in a row in a scan of details")


def _scans(data: bytes, kind: str, segments: Sequence[Segment]) -> Iterator[tuple[int, int, int]]:
    """Where each scan's data begins and ends, and how many zeros in a row it can't hold; those it can are left out."""
    zeros: dict[int, int] = {}
    for segment, following in pairwise(segments):
        content = data[segment.start + 2 : segment.end]
        if segment.kind == _HUFFMAN:
            zeros |= _zero_codes(content)
        elif segment.kind == JPEG_SCAN and (blank := _blank_in(content, zeros, kind)):
            yield segment.end, following.at, blank


def _blank_in(scan_header: bytes, zeros: dict[int, int], kind: str) -> int:
    """How many zeros in a row a scan can't hold; 0: any. Flat areas are zeros in scans of mean colours, for one."""
    if kind == "arithmetic":
        return 0
    if kind == "progressive":
        return BLANK_BYTES if scan_header[-3:-2] != b"\x00" else 0
    tables = scan_header[2 : 1 + 2 * scan_header[0] : 2] if scan_header else b""
    flat = all(zeros.get(table & 15, _BLOCK_END) == _BLOCK_END for table in tables)
    return 0 if flat else BLANK_CODES_BYTES


def _zero_codes(tables: bytes) -> dict[int, int]:
    """By number of a table for waves: the symbol whose code is nothing but zeros, always the first."""
    found, position = {}, 0
    while position + 17 < len(tables):
        kind, counts = tables[position], tables[position + 1 : position + 17]
        if kind >> 4:
            found[kind & 15] = tables[position + 17]
        position += 17 + sum(counts)
    return found


def _trimmed(data: bytes, start: int, end: int) -> int:
    """Where the padding of a scan begins; whether enough was written before it, the decoder tells."""
    return start + len(data[start:end].rstrip(b"\x00"))


def verify_webp(data: bytes) -> None:
    """Raises Damaged where the first picture's bytes are not used up to the last.

    Neither of WebP's codings has a checksum, but after damage a decoder finds its end elsewhere: it wants more than
    there is, or it can do without the tail.
    """
    if sum(chunk.kind == b"ANMF" for chunk in webp_chunks(data)) > MAX_FRAMES:
        raise TooComplex(f"more than {MAX_FRAMES} frames")
    still = webp_still(data)
    for kind, content in still.chunks:
        if kind == b"VP8L" and bytes(BLANK_BYTES) in content:  # VP8 may code a flat area so
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
