"""Owns the pictures of what a model got wrong: the truth in green, what it found in magenta, with scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from fusebus.vision.export.evaluate import Found, Judged, miscounted
from fusebus.vision.jpeg import encode_jpeg

_LONGEST = 1280  # pixels of a picture's longer edge
_TRUTH, _FOUND = (40, 220, 60), (240, 30, 220)


def badness(picture: Judged, thresholds: Sequence[float]) -> tuple[int, float]:
    """Orders pictures, the worst last: by how much they are miscounted, then by their worst outline or surest error."""
    sure = [one for one in picture.found if one.score > thresholds[one.kind]]
    unsure = [one.score for one in picture.found if one.iou == 0]
    overlap = [one.iou for one in sure]
    return miscounted(picture, thresholds), max([1 - share for share in overlap] + unsure, default=0.0)


def draw(picture: Judged, pixels: NDArray[np.uint8], thresholds: Sequence[float]) -> bytes:
    """A JPEG of the picture with both outlines; faint ones (below their threshold) are thin."""
    height, width = pixels.shape[:2]
    scale = min(1.0, _LONGEST / max(height, width))
    canvas = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    for one in picture.truth:
        _outline(canvas, one.mask, _TRUTH, 4)
    for found in picture.found:
        sure = found.score > thresholds[found.kind]
        if sure or found.score >= 0.1:
            _outline(canvas, found.mask, _FOUND, 2 if sure else 1)
            _label(canvas, found, scale)
    return encode_jpeg(np.asarray(canvas, np.uint8))


def write_worst(folder: Path, pictures: Sequence[tuple[Judged, bytes]]) -> None:
    """Write the drawn pictures as 01-<name>.jpg and on, the worst first."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (picture, jpeg) in enumerate(pictures, start=1):
        stem = Path(picture.sample.name).stem
        (folder / f"{number:02}-{stem}.jpg").write_bytes(jpeg)


def _outline(canvas: NDArray[Any], mask: dict[str, Any], colour: tuple[int, int, int], thickness: int) -> None:
    small = cv2.resize(coco_mask.decode(mask), canvas.shape[1::-1], interpolation=cv2.INTER_AREA)
    contours, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(canvas, contours, -1, colour, thickness, cv2.LINE_AA)


def _label(canvas: NDArray[Any], found: Found, scale: float) -> None:
    place = round(found.box[0] * scale), max(14, round(found.box[1] * scale) - 6)
    cv2.putText(canvas, f"{found.score:.2f}", place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(canvas, f"{found.score:.2f}", place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, _FOUND, 1, cv2.LINE_AA)
