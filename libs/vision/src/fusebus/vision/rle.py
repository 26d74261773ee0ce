"""COCO's compressed run lengths in numpy, byte-identical to pycocotools (its maskApi.c: rleEncode, rleToString)."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

_GROUPS = 7  # five-bit groups: enough for any run of a picture with 2^34 pixels


class RunLengths(TypedDict):
    """A binary mask as COCO writes it: `size` is [height, width], `counts` the compressed runs, column by column."""

    size: list[int]
    counts: str


def encode(mask: NDArray[np.uint8] | NDArray[np.bool_], box: tuple[int, int, int, int] | None = None) -> RunLengths:
    """Run lengths of `mask` (height, width), anything but 0 is inside.

    With `box` (x0, y0, x1, y1; x1 and y1 exclusive, within the mask) only what is in it is read: the rest must be 0.
    """
    height, width = mask.shape
    x0, y0, x1, y1 = box or (0, 0, width, height)
    columns = np.zeros((max(0, x1 - x0), max(0, y1 - y0) + 2), np.bool_)  # transposed, a 0 before and after each column
    columns[:, 1:-1] = mask[y0:y1, x0:x1].T
    edges = np.flatnonzero(columns[:, 1:] != columns[:, :-1])
    column, row = np.divmod(edges, columns.shape[1] - 1)
    positions = (column + x0) * height + row + y0
    if y1 - y0 == height:  # a run that reaches the bottom goes on at the top of the next column: no edge there
        kept = np.ones(len(positions), np.bool_)
        joined = np.flatnonzero(positions[1:] == positions[:-1])
        kept[joined] = kept[joined + 1] = False
        positions = positions[kept]
    positions = positions[positions < height * width]
    counts = np.diff(positions, prepend=0, append=height * width)
    return {"size": [height, width], "counts": compress(counts)}


def compress(counts: NDArray[np.int64]) -> str:
    """COCO's text for run lengths: differences to the run before the last, five bits a character, low bits first."""
    values = counts.astype(np.int64)
    values[3:] -= counts[1:-2]
    groups = values[:, None] >> (5 * np.arange(_GROUPS))
    # A group is the last one when what remains is only its own sign (bit 4).
    last = (groups >> 5) == -((groups >> 4) & 1)
    length = np.argmax(last, axis=1) + 1
    used = np.arange(_GROUPS) < length[:, None]
    more = np.arange(_GROUPS) < length[:, None] - 1
    characters: bytes = ((groups & 0x1F) + 48 + 32 * more)[used].astype(np.uint8).tobytes()
    return characters.decode("ascii")
