"""Draws what was found into the picture, for people: tinted mask, outline, box, and a label with the score."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fusebus.vision.decode import Pixels
from fusebus.vision.masks import Region
from fusebus.vision.postprocess import Detection

Colour = tuple[int, int, int]
"""RGB."""

PALETTE: tuple[Colour, ...] = (
    (0, 214, 201),
    (255, 176, 0),
    (236, 72, 153),
    (132, 204, 22),
    (96, 165, 250),
    (192, 132, 252),
)
"""One after the other by falling score: all lighter than mouldings and cables, no two alike to colour-blind eyes."""

_TINT = 0.28  # share of the colour inside a mask
_GAP = 2  # line widths between a box and its frame
_ARM = 0.18  # of the box's shorter edge, heavy from each corner
_INK: Colour = (16, 20, 24)
_TEXT_SHARE = 1 / 36  # of the picture's shorter edge, so that it is read where the picture fills a screen
_LINE_SHARE = 1 / 400
_STRIP_BYTES = 128 * 1024
_LEAST_TEXT, _MOST_TEXT = 11, 160  # pixels


def annotate(rgb: Pixels, detections: Sequence[Detection]) -> Pixels:
    """Draw into `rgb` itself (uint8, height × width × 3, upright, C-contiguous) and return it.

    Touches boxes and labels only, so that its time follows what was found, not the picture's size. The same pixels and
    detections give the same picture. Releases the GIL for most of its time.
    """
    line = max(1, round(min(rgb.shape[:2]) * _LINE_SHARE))
    paired = [(detection, PALETTE[index % len(PALETTE)]) for index, detection in enumerate(detections)]
    for detection, colour in reversed(paired):  # the best one on top
        _draw_mask(rgb, detection, colour, line)
    for detection, colour in reversed(paired):
        _draw_box(rgb, detection, colour, line)
    taken: list[Region] = []
    for detection, colour in paired:
        taken.append(_draw_label(rgb, detection, colour, line, taken))
    return rgb


def _draw_mask(rgb: Pixels, detection: Detection, colour: Colour, line: int) -> None:
    if not detection.polygons:
        return
    points = np.concatenate(detection.polygons)
    x0, y0 = np.maximum(points.min(axis=0), 0).tolist()
    x1, y1 = (points.max(axis=0) + 1).tolist()
    part = rgb[y0:y1, x0:x1]
    inside = np.zeros(part.shape[:2], np.uint8)
    cv2.fillPoly(inside, [polygon - (x0, y0) for polygon in detection.polygons], 255)
    _tint(part, inside, colour)
    cv2.polylines(rgb, detection.polygons, True, colour, line, cv2.LINE_AA)


def _tint(part: Pixels, inside: NDArray[np.uint8], colour: Colour) -> None:
    """Lay the colour over what is inside, strip by strip, so that the two passes meet in the processor's cache."""
    blend = np.column_stack([(1 - _TINT) * np.eye(3), _TINT * np.asarray(colour)])
    rows = max(1, _STRIP_BYTES // (3 * part.shape[1]))
    shade = np.empty((min(rows, len(part)), *part.shape[1:]), np.uint8)
    for top in range(0, len(part), rows):
        strip = part[top : top + rows]
        tinted = cv2.transform(strip, blend, shade[: len(strip)])
        cv2.copyTo(tinted, inside[top : top + rows], strip)


def _draw_box(rgb: Pixels, detection: Detection, colour: Colour, line: int) -> None:
    """A hairline with heavy corners: the outline of the mask is the louder one."""
    x0, y0, x1, y1 = (round(value) for value in detection.box)
    arm = round(_ARM * min(x1 - x0, y1 - y0))
    hair, heavy = max(1, line // 3), line + max(1, line // 2)
    gap = _GAP * line
    frame = (x0 - gap, y0 - gap, x1 + gap, y1 + gap)
    rows = (frame[1], 1), (frame[3], -1)
    for y, down in rows:
        _fill(rgb, (frame[0], frame[2]), (y, y + down * hair), colour)
    for x, inward in ((frame[0], 1), (frame[2], -1)):
        _fill(rgb, (x, x + inward * hair), (frame[1], frame[3]), colour)
        for y, down in rows:
            _fill(rgb, (x, x + inward * arm), (y, y + down * heavy), colour)
            _fill(rgb, (x, x + inward * heavy), (y, y + down * arm), colour)


def _fill(rgb: Pixels, across: tuple[int, int], down: tuple[int, int], colour: Colour) -> None:
    """A rectangle between two columns and two rows in either order, cut off at the picture's edges."""
    left, right = (max(0, edge) for edge in sorted(across))
    top, bottom = (max(0, edge) for edge in sorted(down))
    rgb[top:bottom, left:right] = colour


def _draw_label(rgb: Pixels, detection: Detection, colour: Colour, line: int, taken: Sequence[Region]) -> Region:
    """Puts the label where it covers no other label if there is such a place; returns where."""
    text = min(_MOST_TEXT, max(_LEAST_TEXT, round(min(rgb.shape[:2]) * _TEXT_SHARE)))
    cover = label_cover(f"{detection.label}  {detection.score:.0%}", text)
    height, width = (min(edge, limit) for edge, limit in zip(cover.shape, rgb.shape[:2], strict=True))
    x0, y0, x1, y1 = (round(value) for value in detection.box)
    gap, lowest = _GAP * line, rgb.shape[0] - height
    left = min(max(0, x0 - gap), rgb.shape[1] - width)
    right = min(max(0, x1 + gap - width), rgb.shape[1] - width)
    above, below, within = y0 - gap - height, y1 + gap, y0 - gap
    places = [(x, y) for y in (above, below, within) for x in (left, right) if 0 <= y <= lowest]
    regions = [(x, y, x + width, y + height) for x, y in places]
    fallback = (left, min(max(0, above), lowest), left + width, min(max(0, above), lowest) + height)
    free = (region for region in regions if not any(_overlap(region, other) for other in taken))
    chosen = next(free, regions[0] if regions else fallback)
    ground = np.asarray(colour)
    blend = np.column_stack([np.diag((_INK - ground) / 255), ground])
    tag = cv2.transform(cv2.cvtColor(cover[:height, :width], cv2.COLOR_GRAY2RGB), blend)
    rgb[chosen[1] : chosen[3], chosen[0] : chosen[2]] = tag
    return chosen


@lru_cache(maxsize=256)
def label_cover(text: str, size: int) -> NDArray[np.uint8]:
    """How much ink is on each pixel (0 to 255) of a label with capitals about 0.7 × `size` pixels high."""
    font = ImageFont.load_default(size)
    _, top, _, bottom = (round(edge) for edge in font.getbbox("Ag" + text))
    width = round(font.getlength(text))
    across, down = round(size * 0.4), round(size * 0.24)
    tag = Image.new("L", (width + 2 * across, bottom - top + 2 * down), 0)
    stroke = size / 60  # Pillow's built-in face is thin
    ImageDraw.Draw(tag).text((across, down - top), text, fill=255, font=font, stroke_width=stroke)
    cover = np.asarray(tag)
    cover.flags.writeable = False
    return cover


def _overlap(first: Region, second: Region) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]
