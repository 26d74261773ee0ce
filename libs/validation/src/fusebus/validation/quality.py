"""Notes what may keep a picture from being judged well: warnings, each from a small grey copy."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fusebus.validation.verdicts import QualityNote

LOOK_SIDE = 1024  # pixels of the longer side of the copy: about what the model gets to see
SMALL_SIDE = 400  # pixels: a shorter side below it leaves a fuse too few
BLURRED_BELOW = 12.0
"""Variance of the Laplacian that nine in ten tiles stay below: a sharp object before a plain wall is sharp."""
DARK_BELOW, DARK_SHARE = 60, 0.95
"""Grey value (0 to 255), and the share of the picture that stays below it."""
GLARE_FROM = 250
"""Grey value of burnt-out pixels."""
GLARE_SHARE = 0.12
"""Of the picture, burnt out in patches (a white label is not so bright, a lamp's reflex is)."""
_TILES = 8  # each way


def notes(pixels: NDArray[np.uint8]) -> tuple[QualityNote, ...]:
    """Warnings for an RGB picture, in the order of QualityNote."""
    grey = _small_grey(pixels)
    shares = np.cumsum(cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel()) / grey.size
    dark = bool(shares[DARK_BELOW - 1] >= DARK_SHARE)
    found = {
        QualityNote.BLURRED: not dark and _sharpness(grey) < BLURRED_BELOW,  # edges in the dark are faint anyway
        QualityNote.DARK: dark,
        QualityNote.GLARE: 1 - shares[GLARE_FROM - 1] > GLARE_SHARE,
        QualityNote.TOO_SMALL: min(pixels.shape[:2]) < SMALL_SIDE,
    }
    return tuple(note for note, holds in found.items() if holds)


def _small_grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """At most LOOK_SIDE pixels a side: means of whole squares, which is several times faster than an exact size."""
    height, width = pixels.shape[:2]
    step = min(-(-max(height, width) // LOOK_SIDE), height, width)
    size = width // step, height // step
    cut = pixels[: size[1] * step, : size[0] * step]
    small = cv2.resize(cut, size, interpolation=cv2.INTER_AREA) if step > 1 else cut
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def _sharpness(grey: NDArray[np.uint8]) -> float:
    """The 90th percentile of the variances of the Laplacian, tile by tile."""
    if min(grey.shape) < 2 * _TILES:
        return float("inf")  # too small to say; that is a note of its own
    edges = np.asarray(cv2.Laplacian(grey, cv2.CV_16S))
    tiles = [part for row in np.array_split(edges, _TILES) for part in np.array_split(row, _TILES, axis=1)]
    deviations = sorted(float(cv2.meanStdDev(part)[1][0, 0]) for part in tiles)
    return deviations[len(deviations) * 9 // 10] ** 2
