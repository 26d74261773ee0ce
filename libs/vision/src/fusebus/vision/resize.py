"""Makes the model's input and thumbnails from a picture: small, antialiased, fast."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from PIL import Image

from fusebus.vision.decode import Pixels

_LEFT_BY_HALVING = 2
"""Halving leaves the picture at least so many times larger than the result: with 1.5 some sizes fall below 50 dB."""
_LEFT_FOR_THE_FILTER = 5.0
"""libvips' own whole-number reduction, of what could not be halved, leaves at least so much: with 3 some sizes fall
below 50 dB."""
_STRIP_ROWS = 48
"""Fetched at a time, in the caller's thread: asked for the whole, libvips has a thread of its pool make each strip and
waits for it, which takes a third more CPU time at 12 MP to 1008. Longer strips take no less, but more memory; shorter
ones take the GIL more often."""


def resize_to_model(rgb: Pixels, size: int) -> Pixels:
    """The picture squashed to uint8 (size, size, 3): aspect ratio not kept, antialiased bilinear, as in training.

    At least 50 dB like Pillow's bilinear filter over the full picture, in two fifths of its time, of 12 megapixels in a
    quarter. Releases the GIL.
    """
    height, width = rgb.shape[:2]
    if min(height, width) < size:  # libvips places enlarged pixels otherwise; so small a picture costs little
        return np.array(Image.fromarray(rgb).resize((size, size), Image.Resampling.BILINEAR))
    halved = _halved(np.ascontiguousarray(rgb), _LEFT_BY_HALVING * size)
    height, width = halved.shape[:2]
    vips = _libvips()
    picture = vips.Image.new_from_memory(halved, width, height, 3, "uchar")
    small = picture.resize(size / width, vscale=size / height, kernel="linear", gap=_LEFT_FOR_THE_FILTER)
    region, out = vips.Region.new(small), np.empty((size, size, 3), np.uint8)
    for top in range(0, size, _STRIP_ROWS):
        rows = out[top : top + _STRIP_ROWS]
        rows[:] = np.frombuffer(region.fetch(0, top, size, len(rows)), np.uint8).reshape(rows.shape)
    return out


def _halved(rgb: Pixels, least_edge: int) -> Pixels:
    """As often as both edges are even and stay that long: means of 2 × 2 cost little.

    A picture with an odd edge is left to libvips, since a row left out would move all others.
    """
    height, width = rgb.shape[:2]
    while min(height, width) >= 2 * least_edge and height % 2 == width % 2 == 0:
        height, width = height // 2, width // 2
        rgb = np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return rgb


@lru_cache(maxsize=1)
def _libvips() -> Any:
    """Loaded with the first picture (0.1 s): a process that forks after libvips is loaded may hang."""
    import pyvips

    pyvips.cache_set_max(0)  # it would keep pictures for an operation that is never repeated
    return pyvips


def thumbnail(rgb: Pixels, edge: int) -> Pixels:
    """The picture with its longer edge at most `edge` pixels; never enlarged."""
    height, width = rgb.shape[:2]
    scale = edge / max(height, width)
    if scale >= 1:
        return rgb
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
