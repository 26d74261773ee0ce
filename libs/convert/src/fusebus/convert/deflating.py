"""How a picture's rows become deflate: as runs or searched for copies, under which filter; decided on a sample."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import deflate
import msgspec
import numpy as np
from isal import isal_zlib

from fusebus.convert.filters import Filter, Strips
from fusebus.convert.rle_deflate import RleDeflater

FAST_LEVEL = 2
"""Of isal's levels the one that is never far from the best on any picture."""
GRAIN_LEVEL, GRAIN_SHARE = 3, 0.4
"""Where so much of the bytes is left, grain and little else, this one takes a tenth less time and writes less; on
smoother pictures it is the other way round."""
SMALL_LEVEL = 5
"""libdeflate: below zlib's level 6 in bytes, at a fifth of its time; level 6 writes 0.5 % less in a quarter more."""
SAMPLE_BANDS, SAMPLE_SHARE, SAMPLE_BYTES = 2, 32, 1 << 16
"""Ways are tried on so many bands of rows, together one in so many rows and about so many bytes at most."""
SAMPLE_ROWS = 3
"""Of a band, at least, however many bytes they have."""
SAMPLE_FROM_BYTES = 1 << 16
"""Below, the trial would cost more than it saves."""
AVERAGE_RUNS, AVERAGE_SEARCHED = 0.985, 0.93
"""The average filter is taken where it leaves runs below this share of what the upper one leaves; where copies are
searched it must be better by more, since it hides some of them."""
WIDEST_ROW_BYTES = 1 << 20
"""Wider rows are searched: a strip of runs is at least one row, and takes seven times its memory to work in."""
SEARCH_SOME, SEARCH_ALL = 0.0, 0.11
"""Copies are searched where the sample says that this saves more than so much of the bytes: in SOME_STRIPS above the
first, in all above the second. No photograph that people took was above either."""
SOME_STRIPS = 0.35
"""Searching takes two and a half times as long as runs. With grain that the colours share only in part, a third of it
is what brings a picture below 1.105 times Pillow's bytes at 25 times its speed."""

_HEAD = b"\x78\x01"  # of a zlib stream (RFC 1950): window of 32 KB, fastest


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """How a picture is deflated."""

    search: float
    """Of its strips, in how many at most copies are searched: 0 to 1. The others are runs."""
    runs: Filter
    """The filter under runs."""
    searched: Filter
    """The filter where copies are searched."""
    level: int
    """isal's, for those."""


def searched_whole(kind: Filter) -> Way:
    """For small pictures, and for those with a palette, which repeat themselves."""
    return Way(search=1.0, runs=kind, searched=kind, level=FAST_LEVEL)


def best_way(strips: Strips) -> Way:
    """What a sample of the rows says; a small picture is searched, and one of very wide rows."""
    height, width = strips.rows.shape
    if strips.rows.size < SAMPLE_FROM_BYTES or width > WIDEST_ROW_BYTES:
        return searched_whole(Filter.UP)
    count = min(height // SAMPLE_SHARE, SAMPLE_BYTES // width) // SAMPLE_BANDS
    count = max(SAMPLE_ROWS, count)
    tops = [(2 * band + 1) * height // (2 * SAMPLE_BANDS) for band in range(SAMPLE_BANDS)]
    ranges = [part for top in tops for part in strips.ranges(top, min(top + count, height))]
    up, average = (sum(map(len, _runs(strips, kind, ranges))) for kind in (Filter.UP, Filter.AVERAGE))
    runs = Filter.AVERAGE if average < AVERAGE_RUNS * up else Filter.UP
    searched = Filter.AVERAGE if average < AVERAGE_SEARCHED * up else Filter.UP
    left = sum(map(len, _searched(strips, searched, FAST_LEVEL, ranges)))
    saving = 1 - left / min(up, average)
    taken = sum(bottom - top for top, bottom in ranges) * width
    return Way(
        search=1.0 if saving > SEARCH_ALL else SOME_STRIPS if saving > SEARCH_SOME else 0.0,
        runs=runs,
        searched=searched,
        level=GRAIN_LEVEL if left > GRAIN_SHARE * taken else FAST_LEVEL,
    )


def _runs(strips: Strips, kind: Filter, ranges: list[tuple[int, int]]) -> Iterator[bytes]:
    deflater = RleDeflater(strips.pixel_bytes, strips.most_bytes)
    return (deflater.block(strips.filtered(kind, top, bottom)) for top, bottom in ranges)


def _searched(strips: Strips, kind: Filter, level: int, ranges: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    """A zlib stream (RFC 1950), or what a sample of it takes."""
    compressor = isal_zlib.compressobj(level)
    for top, bottom in ranges:
        yield compressor.compress(strips.filtered(kind, top, bottom))
    yield compressor.flush()


def fast(strips: Strips, way: Way) -> Iterator[bytes]:
    """A zlib stream (RFC 1950) of all rows."""
    if way.search == 1:
        yield from _searched(strips, way.searched, way.level, strips.ranges())
        return
    runs = RleDeflater(strips.pixel_bytes, strips.most_bytes)
    search = isal_zlib.compressobj(way.level, isal_zlib.DEFLATED, -isal_zlib.MAX_WBITS)
    checksum = deflate.adler32(b"")  # isal's takes ten times as long; this one keeps Python's lock
    yield _HEAD
    for number, (top, bottom) in enumerate(strips.ranges()):
        searched = is_searched(number, way.search)
        strip = strips.filtered(way.searched if searched else way.runs, top, bottom)
        checksum = deflate.adler32(strip, checksum)
        if searched:
            # A full flush forgets what came before: for isal the strips between its own are not there.
            yield from (runs.align(), search.compress(strip), search.flush(isal_zlib.Z_FULL_FLUSH))
        else:
            yield runs.block(strip)
    yield runs.end() + checksum.to_bytes(4, "big")


def is_searched(number: int, share: float) -> bool:
    """Whether this strip, counted from 0, is one of the share: however many there are, it is not exceeded."""
    return math.floor((number + 1) * share) > math.floor(number * share)


def smallest(strips: Strips, way: Way) -> list[bytes]:
    """libdeflate's zlib stream, or runs where these are smaller: in some photographs no copy pays."""
    # libdeflate has no streams: the filtered picture is there as a whole.
    filtered = np.empty((len(strips.rows), strips.rows.shape[1] + 1), np.uint8)
    for top, bottom in strips.ranges():
        filtered[top:bottom] = strips.filtered(way.searched, top, bottom)
    made = bytes(deflate.zlib_compress(filtered, SMALL_LEVEL))
    if way.search == 1:  # isal's search beats runs already, and libdeflate's is better
        return [made]
    runs = list(fast(strips, way))
    return runs if sum(map(len, runs)) < len(made) else [made]
