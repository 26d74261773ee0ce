"""Writes PNG: one filter for the whole picture, chosen on a sample of it, and the fastest deflate there is."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import deflate
import numpy as np
from isal import isal_zlib

from fusebus.convert.filters import Filter, Rows, strips
from fusebus.convert.picture import Picture
from fusebus.vision.formats import PNG_SIGNATURE

FAST_LEVEL = 2
"""Of isal's levels the one that is never far from the best on any picture."""
GRAIN_LEVEL, GRAIN_SHARE = 3, 0.4
"""Where so much of the bytes is left, grain and little else, this one takes a tenth less time and writes less; on
smoother pictures it is the other way round."""
SMALL_LEVEL = 5
"""libdeflate: below zlib's level 6 in bytes, at a fifth of its time; level 6 writes 0.5 % less in a quarter more."""
SAMPLE_BANDS, SAMPLE_SHARE = 2, 64
"""Filters are tried on so many bands of rows, together one in so many rows: a thirtieth of the whole time."""
SAMPLE_FROM_BYTES = 1 << 16
"""Below, the trial would cost more than it saves."""
AVERAGE_GAIN = 0.985
"""The average filter takes five passes where the upper one takes one: its bytes must be below this share of them."""

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels


def encode_png(picture: Picture, *, small: bool = False) -> bytes:
    """The picture as PNG, its numbers unchanged. `small`: fewer bytes than zlib's level 6, at a third of the speed."""
    samples = picture.samples
    height, width, channels = samples.shape
    wide = samples.astype(">u2") if samples.itemsize == 2 else samples
    rows: Rows = np.ascontiguousarray(wide).view(np.uint8).reshape(height, -1)
    pixel_bytes = channels * samples.itemsize
    kind, level = (Filter.NONE, FAST_LEVEL) if picture.palette is not None else best_way(rows, pixel_bytes)
    colour = 3 if picture.palette is not None else _COLOUR_TYPES[channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * samples.itemsize, colour, 0, 0, 0)
    parts = [PNG_SIGNATURE, *_chunk(b"IHDR", header)]
    for name, content in _before_data(picture):
        parts += _chunk(name, content)
    data = _small(rows, pixel_bytes, kind) if small else _fast(rows, pixel_bytes, kind, level)
    parts += _chunk(b"IDAT", *data)
    return b"".join([*parts, *_chunk(b"IEND")])


def best_way(rows: Rows, pixel_bytes: int) -> tuple[Filter, int]:
    """The filter that a sample of the rows deflates into fewer bytes with, and isal's level for what is left then."""
    if rows.size < SAMPLE_FROM_BYTES:
        return Filter.UP, FAST_LEVEL
    count = max(3, len(rows) // SAMPLE_SHARE // SAMPLE_BANDS)
    tops = [(2 * band + 1) * len(rows) // (2 * SAMPLE_BANDS) for band in range(SAMPLE_BANDS)]
    bands = [(top, min(top + count, len(rows))) for top in tops]
    average, up = (_share(rows, pixel_bytes, kind, bands) for kind in (Filter.AVERAGE, Filter.UP))
    level = GRAIN_LEVEL if min(average, up) > GRAIN_SHARE else FAST_LEVEL
    return (Filter.AVERAGE if average < AVERAGE_GAIN * up else Filter.UP), level


def _share(rows: Rows, pixel_bytes: int, kind: Filter, bands: list[tuple[int, int]]) -> float:
    """Of the bands' bytes, how much is left when they are deflated."""
    compressor = isal_zlib.compressobj(FAST_LEVEL)
    taken = left = 0
    for band in bands:
        for strip in strips(rows, pixel_bytes, kind, *band):
            taken += strip.size
            left += len(compressor.compress(strip))
    return (left + len(compressor.flush())) / taken


def _fast(rows: Rows, pixel_bytes: int, kind: Filter, level: int) -> Iterator[bytes]:
    compressor = isal_zlib.compressobj(level)
    for strip in strips(rows, pixel_bytes, kind):
        yield compressor.compress(strip)
    yield compressor.flush()


def _small(rows: Rows, pixel_bytes: int, kind: Filter) -> Iterator[bytes]:
    """libdeflate has no streams: the filtered picture is there as a whole."""
    filtered = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    top = 0
    for strip in strips(rows, pixel_bytes, kind):
        filtered[top : top + len(strip)] = strip
        top += len(strip)
    yield bytes(deflate.zlib_compress(filtered, SMALL_LEVEL))


def _before_data(picture: Picture) -> Iterator[tuple[bytes, bytes]]:
    """Colour description, palette and its transparency, in the order that the specification asks for."""
    if picture.icc is not None:
        yield b"iCCP", b"ICC profile\x00\x00" + isal_zlib.compress(picture.icc, FAST_LEVEL)
    yield from picture.colour_chunks
    if picture.palette is not None:
        yield b"PLTE", picture.palette.colours
        if picture.palette.alpha:
            yield b"tRNS", picture.palette.alpha


def _chunk(kind: bytes, *content: bytes) -> list[bytes]:
    """The chunk in parts, so that nothing is copied but once."""
    checksum = isal_zlib.crc32(kind)
    for part in content:
        checksum = isal_zlib.crc32(part, checksum)
    return [struct.pack(">I", sum(map(len, content))), kind, *content, struct.pack(">I", checksum)]
