"""PNG's row filters, a few rows at a time so that they stay in the processor's cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from fusebus.convert import native

Rows = NDArray[np.uint8]
"""Shape (height, bytes of a row)."""

STRIP_BYTES = 1 << 19
"""Filtered at a time, or about so many: they stay in the processor's cache until they are deflated. With half of it a
picture takes 2 % longer."""
LEAST_STRIPS, LEAST_STRIP_BYTES = 6, 1 << 16
"""So many strips, that there are some to choose from, unless they were smaller than that: each has codes of its own."""


class Filter(IntEnum):
    """The filter types of the PNG specification that we write."""

    NONE = 0
    UP = 2
    AVERAGE = 3


class Strips:
    """A picture's rows with their filter byte in front, strip by strip, in memory that is used again."""

    def __init__(self, rows: Rows, pixel_bytes: int) -> None:
        if not rows.flags.c_contiguous:
            raise ValueError("the rows of a picture must lie one behind the other")
        self.rows = rows
        self.pixel_bytes = pixel_bytes
        height, width = rows.shape
        size = height * (width + 1)
        strips = max(1, round(size / STRIP_BYTES), min(LEAST_STRIPS, size // LEAST_STRIP_BYTES))
        self._count = math.ceil(height / strips)
        self._out = np.empty((self._count, width + 1), np.uint8)

    @property
    def most_bytes(self) -> int:
        """Of one filtered strip."""
        return self._out.size

    def ranges(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, int]]:
        """First row and the one behind the last of each strip, together all rows or those of the given range."""
        last = len(self.rows) if last is None else last
        return ((top, min(top + self._count, last)) for top in range(first, last, self._count))

    def filtered(self, kind: Filter, top: int, bottom: int) -> Rows:
        """Rows `top` to `bottom`, of one strip, filtered; valid until the next call. Raises ValueError."""
        if not 0 <= top < bottom <= min(len(self.rows), top + self._count):
            raise ValueError(
                f"rows {top} to {bottom} are no strip: it has at most {self._count} of {len(self.rows)} rows"
            )
        strip, first = self._out[: bottom - top], max(top, 1)
        strip[:, 0] = kind
        if top == 0:
            self._first(strip[0, 1:], kind)
        rows, above, out = self.rows[first:bottom], self.rows[first - 1 : bottom - 1], strip[first - top :, 1:]
        if kind is Filter.NONE:
            out[:] = rows
        elif kind is Filter.UP:
            np.subtract(rows, above, out=out)
        elif len(rows):
            native.average(
                rows.ctypes.data, rows.shape[1], len(rows), self.pixel_bytes, strip[first - top :].ctypes.data
            )
        return strip

    def _first(self, out: Rows, kind: Filter) -> None:
        """Above the first row lie zeros."""
        out[:] = self.rows[0]
        if kind is Filter.AVERAGE:
            out[self.pixel_bytes :] -= self.rows[0, : -self.pixel_bytes] >> 1
