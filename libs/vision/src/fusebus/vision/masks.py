"""Enlarges a model's coarse mask inside its box only, and finds its outline."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1."""
Region = tuple[int, int, int, int]
"""x0, y0, x1, y1 in whole pixels; x1 and y1 exclusive."""
Polygon = NDArray[np.int32]
"""Outline in pixels of the picture, shape (points, 2), closed by its first point."""

_MARGIN = 0.04  # of the box's edge: masks may lean a little out of it
_HALF = 128  # probability 0.5 in a mask of 0 to 255
_MOST_PIXELS = 512  # of an enlarged mask's edge, when its outline is traced
_LEAST_PART = 0.05  # of the mask's area: smaller islands are noise


def region_of(box: Box, width: int, height: int) -> Region:
    """The whole pixels of a picture that may hold the mask: the box with a small margin, kept inside the picture."""
    x0, y0, x1, y1 = box
    across, down = _MARGIN * (x1 - x0), _MARGIN * (y1 - y0)
    left, top = max(0, math.floor(x0 - across)), max(0, math.floor(y0 - down))
    return left, top, max(left, min(width, math.ceil(x1 + across))), max(top, min(height, math.ceil(y1 + down)))


def enlarge(probability: NDArray[np.uint8], region: Region, width: int, height: int) -> NDArray[np.bool_]:
    """Where a mask (rows, columns; probability × 255, covering the whole picture) is inside, bilinearly.

    Only `region` of a picture of `width` × `height` is made: shape (y1 - y0, x1 - x0).
    """
    x0, y0, x1, y1 = region
    rows, columns = probability.shape
    if x1 <= x0 or y1 <= y0:
        return np.zeros((max(0, y1 - y0), max(0, x1 - x0)), np.bool_)
    x_step, y_step = columns / width, rows / height  # mask cells per pixel; centres lie at half
    to_mask = np.array([[x_step, 0, (x0 + 0.5) * x_step - 0.5], [0, y_step, (y0 + 0.5) * y_step - 0.5]])
    large = cv2.warpAffine(
        probability,
        to_mask,
        (x1 - x0, y1 - y0),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(large >= _HALF)


def outlines(probability: NDArray[np.uint8], box: Box, width: int, height: int) -> tuple[Polygon, ...]:
    """The outer outlines of a mask's parts in pixels of a picture of `width` × `height`, the largest first."""
    shrink = max(1.0, (box[2] - box[0]) / _MOST_PIXELS, (box[3] - box[1]) / _MOST_PIXELS)
    small_width, small_height = max(1, round(width / shrink)), max(1, round(height / shrink))
    scale = np.array([width / small_width, height / small_height])
    small_box = (box[0] / scale[0], box[1] / scale[1], box[2] / scale[0], box[3] / scale[1])
    region = region_of(small_box, small_width, small_height)
    inside = enlarge(probability, region, small_width, small_height)
    found, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    parts = sorted(((cv2.contourArea(contour), contour) for contour in found), key=lambda part: -part[0])
    least = _LEAST_PART * sum(area for area, _ in parts)
    tolerance = 0.0015 * (small_box[2] - small_box[0] + small_box[3] - small_box[1])
    polygons = (cv2.approxPolyDP(contour, tolerance, True).reshape(-1, 2) for area, contour in parts if area > least)
    return tuple(
        np.round((polygon + region[:2] + 0.5) * scale - 0.5).astype(np.int32)
        for polygon in polygons
        if len(polygon) > 2
    )
