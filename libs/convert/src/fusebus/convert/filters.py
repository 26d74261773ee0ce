"""PNG's row filters in numpy, a few rows at a time so that they stay in the processor's cache."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.uint8]
"""Shape (height, bytes of a row)."""

STRIP_BYTES = 1 << 17
"""Filtered at a time: with the row above it fits the second-level cache of every processor of the last ten years."""


class Filter(IntEnum):
    """The filter types of the PNG specification that we write."""

    NONE = 0
    UP = 2
    AVERAGE = 3


def strips(rows: Rows, pixel_bytes: int, kind: Filter, first: int = 0, last: int | None = None) -> Iterator[Rows]:
    """Rows `first` to `last` with their filter byte in front; each strip is valid until the next one is asked for."""
    width, last = rows.shape[1], len(rows) if last is None else last
    count = max(1, STRIP_BYTES // (width + 1))
    out = np.empty((min(count, max(1, last - first)), width + 1), np.uint8)
    out[:, 0] = kind
    spare = np.empty((2, len(out), max(0, width - pixel_bytes)), np.uint8) if kind is Filter.AVERAGE else None
    if first == 0 and last > 0:
        yield _first(rows[0], out[:1], kind, pixel_bytes)
        first = 1
    for top in range(first, last, count):
        bottom = min(top + count, last)
        strip = out[: bottom - top]
        if kind is Filter.NONE:
            strip[:, 1:] = rows[top:bottom]
        elif kind is Filter.UP:
            np.subtract(rows[top:bottom], rows[top - 1 : bottom - 1], out=strip[:, 1:])
        else:
            assert spare is not None
            _average(rows[top:bottom], rows[top - 1 : bottom - 1], strip[:, 1:], pixel_bytes, spare)
        yield strip


def _first(row: Rows, out: Rows, kind: Filter, pixel_bytes: int) -> Rows:
    """Above the first row lie zeros."""
    out[0, 1:] = row
    if kind is Filter.AVERAGE:
        out[0, 1 + pixel_bytes :] -= row[:-pixel_bytes] >> 1
    return out


def _average(rows: Rows, above: Rows, out: Rows, pixel_bytes: int, spare: NDArray[Any]) -> None:
    """floor((left + above) / 2) without a ninth bit: (left & above) + ((left ^ above) >> 1)."""
    left, up = rows[:, :-pixel_bytes], above[:, pixel_bytes:]
    half, both = spare[0, : len(rows)], spare[1, : len(rows)]
    np.bitwise_xor(left, up, out=half)
    np.right_shift(half, 1, out=half)
    np.bitwise_and(left, up, out=both)
    np.add(half, both, out=half)
    np.subtract(rows[:, pixel_bytes:], half, out=out[:, pixel_bytes:])
    np.subtract(rows[:, :pixel_bytes], above[:, :pixel_bytes] >> 1, out=out[:, :pixel_bytes])
