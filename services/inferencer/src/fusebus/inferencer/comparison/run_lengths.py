"""Reads COCO's compressed run lengths back into masks (pycocotools' maskApi.c: rleFrString, rleDecode)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fusebus.vision.rle import RunLengths

MAX_PIXELS = 10_000_000
"""Of one mask: a model's are up to 4096 × 4096 / 2; what claims more is no mask of ours."""


def decode(mask: RunLengths) -> NDArray[np.uint8]:
    """The mask, (height, width), 1 inside. Raises ValueError for what is no mask."""
    height, width = mask["size"]
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise ValueError(f"a mask of {height} × {width} pixels")
    runs = _runs(mask["counts"])
    if (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"runs that don't cover {height} × {width} pixels")
    values = (np.arange(len(runs)) % 2).astype(np.uint8)
    return np.repeat(values, runs).reshape(width, height).T.copy()


def _runs(text: str) -> NDArray[np.int64]:
    """Lengths of the runs of 0 and 1 in turn: five bits a character, low bits first, differences to the run before
    the last."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in text.encode("ascii"):
        bits = character - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    return np.array(runs, np.int64)
