"""Draws one photo twice, side by side: what each version found."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from fusebus.inferencer.comparison.run_lengths import decode as decode_mask
from fusebus.inferencer.result import ResultDetection
from fusebus.vision import Detection, Pixels, annotate, decode, encode_jpeg
from fusebus.vision.masks import outlines

EDGE = 1000  # pixels: the longer edge of each half
GAP = 12  # pixels between the halves
QUALITY = 85
_PAPER = 255


def side_by_side(data: bytes, first: Sequence[ResultDetection], second: Sequence[ResultDetection]) -> bytes:
    """JPEG of the photo under both versions. Raises ImageError."""
    pixels = decode(data)
    scale = min(1.0, EDGE / max(pixels.shape[:2]))
    halves = [_half(pixels, found, scale) for found in (first, second)]
    gap = np.full((halves[0].shape[0], GAP, 3), _PAPER, np.uint8)
    return encode_jpeg(np.ascontiguousarray(np.hstack([halves[0], gap, halves[1]])), QUALITY)


def _half(pixels: Pixels, found: Sequence[ResultDetection], scale: float) -> Pixels:
    height, width = (max(1, round(edge * scale)) for edge in pixels.shape[:2])
    small = np.ascontiguousarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    factors = width / pixels.shape[1], height / pixels.shape[0]
    return annotate(small, [_drawable(detection, factors, width, height) for detection in found])


def _drawable(found: ResultDetection, factors: tuple[float, float], width: int, height: int) -> Detection:
    x0, y0, x1, y1 = found.box
    box = (x0 * factors[0], y0 * factors[1], x1 * factors[0], y1 * factors[1])
    return Detection(
        label=found.label,
        score=found.score,
        box=box,
        mask=found.mask,
        polygons=outlines(decode_mask(found.mask) * np.uint8(255), box, width, height),
    )
