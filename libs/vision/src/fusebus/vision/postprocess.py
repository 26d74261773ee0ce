"""Turns what the model says into detections: threshold, non-maximum suppression, masks and outlines."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from fusebus.vision.masks import Box, Polygon, enlarge, outlines, region_of
from fusebus.vision.rle import RunLengths, encode

THRESHOLD = 0.3
"""Least score; the native SAM 3 takes 0.5 and misses faint ones."""
NMS_IOU = 0.6
"""Two boxes that overlap more (intersection over union) are the same thing."""


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


def postprocess(
    scores: NDArray[np.float32],
    boxes: NDArray[np.float32],
    masks: NDArray[np.uint8],
    width: int,
    height: int,
    threshold: float = THRESHOLD,
    nms_iou: float = NMS_IOU,
    *,
    label: str = "fuse neutral",
    mask_size: int | None = None,
) -> list[Detection]:
    """The detections in one picture of `width` × `height` pixels, best first.

    scores (K,); boxes (K, 4), x0 y0 x1 y1 as shares of the picture; masks (K, rows, columns), probability × 255.
    `mask_size` is the edge of the resulting masks (None: the rows and columns they have). Values that are not finite
    are dropped.
    """
    usable = np.isfinite(scores) & np.isfinite(boxes).all(axis=1)
    shares = np.clip(np.where(usable[:, None], boxes, 0), 0, 1).astype(np.float64)
    usable &= (shares[:, 2] > shares[:, 0]) & (shares[:, 3] > shares[:, 1])
    candidates = np.flatnonzero(usable & (scores > threshold))
    candidates = candidates[np.argsort(-scores[candidates], kind="stable")]
    return [
        Detection(
            label=label,
            score=float(scores[index]),
            box=_pixels(shares[index], width, height),
            mask=_run_lengths(masks[index], shares[index], mask_size),
            polygons=outlines(masks[index], _pixels(shares[index], width, height), width, height),
        )
        for index in suppress(candidates, shares, nms_iou)
    ]


def suppress(candidates: NDArray[np.int64], boxes: NDArray[np.float64], iou: float) -> list[int]:
    """Greedy non-maximum suppression: the `candidates` (indices into boxes, best first) that overlap no better one."""
    kept: list[int] = []
    for index in candidates.tolist():
        if all(_iou(boxes[index], boxes[better]) <= iou for better in kept):
            kept.append(index)
    return kept


def _iou(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    overlap = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    if (overlap <= 0).any():
        return 0.0
    shared = float(np.prod(overlap))
    return shared / (float(np.prod(first[2:] - first[:2])) + float(np.prod(second[2:] - second[:2])) - shared)


def _pixels(share: NDArray[np.float64], width: int, height: int) -> Box:
    x0, y0, x1, y1 = share.tolist()
    return x0 * width, y0 * height, x1 * width, y1 * height


def _run_lengths(probability: NDArray[np.uint8], share: NDArray[np.float64], size: int | None) -> RunLengths:
    rows, columns = (size, size) if size else probability.shape
    region = region_of(_pixels(share, columns, rows), columns, rows)
    mask = np.zeros((rows, columns), np.bool_)
    mask[region[1] : region[3], region[0] : region[2]] = enlarge(probability, region, columns, rows)
    return encode(mask, region)
