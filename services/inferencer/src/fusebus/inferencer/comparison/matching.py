"""Pairs what two versions found in one photo, by the overlap of their masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from fusebus.inferencer.comparison.run_lengths import decode
from fusebus.inferencer.result import ResultDetection as Found

MATCH_IOU = 0.5
"""Two masks that overlap less (intersection over union) are not the same thing; COCO's first threshold."""


class Pair(NamedTuple):
    """The same thing, found by both."""

    first: int
    """Index into the first version's detections."""
    second: int
    iou: float


class Matched(msgspec.Struct, frozen=True, kw_only=True):
    """How two versions' detections in one photo belong together."""

    pairs: tuple[Pair, ...]
    only_first: tuple[int, ...]
    only_second: tuple[int, ...]


def match(first: Sequence[Found], second: Sequence[Found]) -> Matched:
    """Pairs of one label, the best overlap first, each detection once."""
    overlaps = mask_ious(first, second)
    for row, found in enumerate(first):
        for column, other in enumerate(second):
            if found.label != other.label:
                overlaps[row, column] = 0
    pairs: list[Pair] = []
    while overlaps.size and overlaps.max() >= MATCH_IOU:
        row, column = (int(index) for index in np.unravel_index(np.argmax(overlaps), overlaps.shape))
        pairs.append(Pair(row, column, float(overlaps[row, column])))
        overlaps[row, :] = overlaps[:, column] = 0
    return Matched(
        pairs=tuple(pairs),
        only_first=tuple(sorted(set(range(len(first))) - {pair.first for pair in pairs})),
        only_second=tuple(sorted(set(range(len(second))) - {pair.second for pair in pairs})),
    )


def disagreement(matched: Matched, first: Sequence[Found], second: Sequence[Found]) -> float:
    """How far two versions differ on one photo: the scores of what one alone found, and what pairs lack to overlap."""
    alone = [first[index].score for index in matched.only_first] + [
        second[index].score for index in matched.only_second
    ]
    return sum(alone) + sum(1 - pair.iou for pair in matched.pairs)


def mask_ious(first: Sequence[Found], second: Sequence[Found]) -> NDArray[np.float64]:
    """Intersection over union of each with each; masks of another size are brought to the first's."""
    if not first or not second:
        return np.zeros((len(first), len(second)))
    height, width = first[0].mask["size"]
    rows = np.stack([_cells(found, height, width) for found in first])
    columns = np.stack([_cells(found, height, width) for found in second])
    shared = rows @ columns.T
    union = rows.sum(axis=1)[:, None] + columns.sum(axis=1) - shared
    return np.asarray(np.where(union > 0, shared / np.maximum(union, 1), 0), dtype=np.float64)


def _cells(found: Found, height: int, width: int) -> NDArray[np.float32]:
    mask = decode(found.mask)
    if mask.shape != (height, width):
        mask = np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
    return mask.ravel().astype(np.float32)
