"""COCO's compressed run lengths in numpy, byte-identical to pycocotools (its maskApi.c: rleEncode, rleToString)."""

from __future__ import annotations

from functools import lru_cache
from typing import TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray

_SHORT = 1 << 9
"""Differences from -_SHORT to _SHORT - 1 take one or two characters and are looked up; nearly all are that small."""


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
    return encode_part(mask[y0:y1, x0:x1] != 0, x0, y0, width, height)


def encode_part(part: NDArray[np.bool_], left: int, top: int, width: int, height: int) -> RunLengths:
    """Run lengths of a mask of `width` × `height` in which only `part`, whose corner is (left, top), has any 1."""
    changes = _changes(part, left, top, height)
    total = height * width
    bounds = np.empty(len(changes) + 2, np.int64)
    bounds[0], bounds[1:-1], bounds[-1] = 0, changes, total
    if len(changes) and changes[-1] == total:  # the last run reaches the end: none of 0 follows it
        bounds = bounds[:-1]
    return {"size": [height, width], "counts": compress(bounds[1:] - bounds[:-1])}


def _changes(part: NDArray[np.bool_], left: int, top: int, height: int) -> NDArray[np.int64]:
    """Where, counting the mask's pixels column by column, a pixel differs from the one before it."""
    rows, across = part.shape
    if not part.size:
        return np.empty(0, np.int64)
    padded = rows + 1  # a 0 before each column
    columns = np.zeros(across * padded + 1, np.uint8)  # and one after the last
    cv2.transpose(part.view(np.uint8), columns[:-1].reshape(across, padded)[:, 1:])
    changes: NDArray[np.int64] = (columns[1:] != columns[:-1]).nonzero()[0]
    changes += changes // padded * (height - padded) + (left * height + top)
    if rows == height:  # a run that reaches the bottom goes on at the top of the next column: no change there
        joined = np.flatnonzero(changes[1:] == changes[:-1])
        changes = np.delete(changes, np.concatenate([joined, joined + 1]))
    return changes


def compress(counts: NDArray[np.int64]) -> str:
    """COCO's text for run lengths: differences to the run before the last, five bits a character, low bits first."""
    values = counts.copy()
    values[3:] -= counts[1:-2]
    index = values + _SHORT
    long = (index.view(np.uint64) >= 2 * _SHORT).nonzero()[0].tolist()
    table, pieces, start = _texts(), [], 0
    for at in long:  # few: the runs before and after all that is inside, mostly
        pieces += [table[index[start:at]].tobytes(), _text(int(values[at]))]
        start = at + 1
    pieces.append(table[index[start:]].tobytes())
    return b"".join(pieces).translate(None, b"\0").decode("ascii")


@lru_cache(maxsize=1)
def _texts() -> NDArray[np.uint16]:
    """The one or two characters of each short difference, from -_SHORT on, in one number; 0 for no second one."""
    texts = b"".join(_text(value).ljust(2, b"\0") for value in range(-_SHORT, _SHORT))
    return np.frombuffer(texts, np.uint16)


def _text(value: int) -> bytes:
    """Five bits a character, low ones first; the sixth says that more follow. The last one's fifth bit is the sign."""
    text = bytearray()
    while not -16 <= value < 16:
        text.append(48 + 32 + (value & 31))
        value >>= 5
    text.append(48 + (value & 31))
    return bytes(text)
