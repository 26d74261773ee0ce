"""Turns what the model says into detections: thresholds, non-maximum suppression, masks and outlines."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from fusebus.vision.masks import Box, Polygon, enlarge, outlines, region_of
from fusebus.vision.rle import RunLengths, encode_part

LABELS = ("fuse neutral",)
THRESHOLDS = (0.3,)
"""Least scores; the native SAM 3 takes 0.5 and misses faint ones."""
NMS_IOU = 0.6
"""Two boxes of a class that overlap more (intersection over union) are the same thing."""


class Detection(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One thing that was found in a picture."""

    label: str
    score: float
    """0 to 1."""
    box: Box
    """Pixels of the upright picture."""
    mask: RunLengths
    """At the size asked for, covering the whole picture (squashed, as the model saw it)."""
    polygons: tuple[Polygon, ...]
    """Outlines of the mask's parts in pixels of the upright picture, the largest first."""


def scaled(found: Detection, across: float, down: float) -> Detection:
    """The same thing in a picture whose width and height are so many times larger: for drawing on a reduced one."""
    factors = np.array([across, down])
    x0, y0, x1, y1 = found.box
    return msgspec.structs.replace(
        found,
        box=(x0 * across, y0 * down, x1 * across, y1 * down),
        polygons=tuple(np.round((polygon + 0.5) * factors - 0.5).astype(np.int32) for polygon in found.polygons),
    )


def postprocess(
    scores: NDArray[np.float32],
    boxes: NDArray[np.float32],
    masks: NDArray[np.uint8],
    width: int,
    height: int,
    *,
    classes: NDArray[np.int64] | None = None,
    labels: Sequence[str] = LABELS,
    thresholds: Sequence[float] = THRESHOLDS,
    nms_iou: float = NMS_IOU,
    mask_size: int | None = None,
) -> list[Detection]:
    """The detections in one picture of `width` × `height` pixels, best first.

    scores (K,); boxes (K, 4), x0 y0 x1 y1 as shares of the picture; masks (K, rows, columns), probability × 255;
    classes (K,), indices of `labels` and of `thresholds`, above which a score must be (None: all are of class 0).
    A better box suppresses those of its own class only. `mask_size` is the edge of the resulting masks (None: the rows
    and columns they have). What is not finite or of no known class is dropped. Raises ValueError where there are not
    as many thresholds as labels.
    """
    if len(labels) != len(thresholds):
        raise ValueError(f"{len(thresholds)} thresholds for {len(labels)} labels")
    kinds = np.zeros(len(scores), np.int64) if classes is None else np.asarray(classes)
    shares, kept = _select(scores, boxes, kinds, np.asarray(thresholds, np.float32), nms_iou)
    return [
        Detection(
            label=labels[kinds[index]],
            score=float(scores[index]),
            box=_pixels(shares[index], width, height),
            mask=_run_lengths(masks[index], shares[index], mask_size),
            polygons=outlines(masks[index], _pixels(shares[index], width, height), width, height),
        )
        for index in kept
    ]


def _select(
    scores: NDArray[np.float32],
    boxes: NDArray[np.float32],
    classes: NDArray[np.int64],
    thresholds: NDArray[np.float32],
    nms_iou: float,
) -> tuple[NDArray[np.float64], list[int]]:
    """Boxes clipped to the picture, and the indices of those to keep, best first."""
    usable = np.isfinite(scores) & np.isfinite(boxes).all(axis=1) & (classes >= 0) & (classes < len(thresholds))
    shares = np.clip(np.where(usable[:, None], boxes, 0), 0, 1).astype(np.float64)
    usable &= (shares[:, 2] > shares[:, 0]) & (shares[:, 3] > shares[:, 1])
    usable &= scores > thresholds[np.where(usable, classes, 0)]
    candidates = np.flatnonzero(usable)
    candidates = candidates[np.argsort(-scores[candidates], kind="stable")]
    return shares, candidates[suppress(shares[candidates], classes[candidates], nms_iou)].tolist()


def suppress(boxes: NDArray[np.float64], classes: NDArray[np.int64], iou: float) -> list[int]:
    """Greedy non-maximum suppression: which of `boxes` (N, 4), best first, overlap no better one of their class."""
    corner = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    shared = np.clip(np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - corner, 0, None).prod(axis=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    same = (shared > iou * (area[:, None] + area - shared)) & (classes[:, None] == classes)
    free = np.ones(len(boxes), np.bool_)
    kept: list[int] = []
    for index in range(len(boxes)):
        if free[index]:
            kept.append(index)
            free &= ~same[index]
    return kept


def _pixels(share: NDArray[np.float64], width: int, height: int) -> Box:
    x0, y0, x1, y1 = share.tolist()
    return x0 * width, y0 * height, x1 * width, y1 * height


def _run_lengths(probability: NDArray[np.uint8], share: NDArray[np.float64], size: int | None) -> RunLengths:
    rows, columns = (size, size) if size else probability.shape
    region = region_of(_pixels(share, columns, rows), columns, rows)
    return encode_part(enlarge(probability, region, columns, rows), region[0], region[1], columns, rows)
