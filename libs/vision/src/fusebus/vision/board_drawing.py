"""Owns the painter's canvas of the board generator: anti-aliased, shaded shapes, and what is visible at each pixel."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]  # RGB, 0 to 255
Point = tuple[float, float]  # scene units, y downwards


class Kind(IntEnum):
    """What a pixel of a board shows, beside fuse neutrals: the numbers of such owners on a canvas."""

    OTHER = 0
    NEUTRALS_CONDUCTOR = 249  # blue, black or grey; other ways have such, too
    LINE_CONDUCTOR = 250
    EARTH_CONDUCTOR = 251
    CARRIER = 252  # of a fuse, or its empty way
    COVER = 253
    EARTH_BLOCK = 254
    LINE_BLOCK = 255


_SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates


def scaled(colour: Colour, factor: float) -> Colour:
    """The colour `factor` times as bright, kept within 0 to 255."""
    red, green, blue = (min(255.0, max(0.0, channel * factor)) for channel in colour)
    return red, green, blue


def rounded_rectangle(x: float, y: float, width: float, height: float, radius: float) -> NDArray[np.float64]:
    """The outline of a rounded rectangle in scene units, shape (points, 2)."""
    radius = min(radius, width / 2, height / 2)
    quarter = np.linspace(0, np.pi / 2, 6)
    corners = [(x + width - radius, y + height - radius), (x + radius, y + height - radius)]
    corners += [(x + radius, y + radius), (x + width - radius, y + radius)]
    arcs = [
        np.stack([cx + radius * np.cos(quarter + turn), cy + radius * np.sin(quarter + turn)], axis=1)
        for (cx, cy), turn in zip(corners, np.arange(4) * np.pi / 2, strict=True)
    ]
    return np.concatenate(arcs)


def curve(start: Point, start_pull: Point, end_pull: Point, end: Point, steps: int = 40) -> NDArray[np.float64]:
    """A cubic Bezier curve in scene units, shape (steps, 2)."""
    t = np.linspace(0, 1, steps)[:, None]
    a, b, c, d = (np.asarray(point, dtype=np.float64) for point in (start, start_pull, end_pull, end))
    return np.asarray((1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d)


class Canvas:
    """An RGB picture in scene units, and beside it what is visible at each pixel.

    `image` is uint8 (height, width, 3), `owner` uint8 (height, width): a counted thing's number from 1 on, or the Kind
    of everything else. What is painted later hides what is below it, in both. Within `turned`, everything is painted
    crooked; within `of_kind`, everything that is not a counted thing is of that kind.
    """

    def __init__(self, width: float, height: float, pixels_per_unit: float) -> None:
        self.scale = pixels_per_unit
        shape = round(height * pixels_per_unit), round(width * pixels_per_unit)
        self.image = np.zeros((*shape, 3), np.uint8)
        self.owner = np.zeros(shape, np.uint8)
        self._pivot = np.zeros(2)
        self._angle = 0.0
        self._kind = Kind.OTHER

    @contextmanager
    def of_kind(self, kind: Kind) -> Iterator[None]:
        """Paint what follows as that kind; not to be nested."""
        self._kind = kind
        try:
            yield
        finally:
            self._kind = Kind.OTHER

    @contextmanager
    def turned(self, x: float, y: float, angle: float) -> Iterator[None]:
        """Paint what follows turned clockwise by `angle` radians about (x, y); not to be nested."""
        self._pivot, self._angle = np.array([x, y]), angle
        try:
            yield
        finally:
            self._angle = 0.0

    def placed(self, points: NDArray[np.float64] | Sequence[Point]) -> NDArray[np.float64]:
        """Where points really come to lie, in scene units."""
        points = np.asarray(points, np.float64)
        if self._angle == 0:
            return points
        cosine, sine = np.cos(self._angle), np.sin(self._angle)
        return np.asarray((points - self._pivot) @ np.array([[cosine, sine], [-sine, cosine]]) + self._pivot)

    def polygon(
        self,
        points: NDArray[np.float64],
        colour: Colour,
        shade: tuple[float, float] = (1, 1),
        owner: int = 0,
        alpha: float = 1.0,
    ) -> None:
        """Fill an outline, `shade` brightening it from top to bottom; `alpha` below 1 leaves the owner as it was."""
        points = self.placed(points)
        region = self._region(points)
        if region is None:
            return
        rows, columns = region
        cover = self._cover(points, rows, columns)
        ramp = np.linspace(*shade, cover.shape[0], dtype=np.float32)[:, None, None]
        paint = np.clip(np.asarray(colour, np.float32) * ramp, 0, 255)  # one colour per row
        below = self.image[rows, columns]
        inside = cover == 255 if alpha == 1 else np.zeros_like(cover, bool)
        whole = np.broadcast_to((paint + 0.5).astype(np.uint8), below.shape)
        np.copyto(below, whole, where=inside[:, :, None])
        y, x = np.nonzero((cover > 0) & ~inside)  # the edge, or everything that shines through
        weight = cover[y, x, None].astype(np.float32) * (alpha / 255)
        under = below[y, x].astype(np.float32)
        below[y, x] = (under + (paint[y, 0] - under) * weight + 0.5).astype(np.uint8)
        if alpha == 1:
            self.owner[rows, columns][cover > 127] = owner or self._kind

    def shadow(self, points: NDArray[np.float64], offset: Point, softness: float, strength: float) -> None:
        """Darken what is below by a blurred copy of the outline."""
        moved = self.placed(points) + np.asarray(offset)
        region = self._region(moved, margin=2 * softness)
        if region is None:
            return
        rows, columns = region
        cover = self._cover(moved, rows, columns)
        small = (
            cv2.resize(cover, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA) if min(cover.shape) > 8 else cover
        )
        blurred = cv2.GaussianBlur(small, (0, 0), max(0.6, softness * self.scale * small.shape[0] / cover.shape[0]))
        weight = cv2.resize(blurred, cover.shape[::-1], interpolation=cv2.INTER_LINEAR).astype(np.float32)
        darkening = 1 - weight[:, :, None] * (strength / 255)
        self.image[rows, columns] = (self.image[rows, columns] * darkening).astype(np.uint8)

    def line(self, points: NDArray[np.float64] | Sequence[Point], width: float, colour: Colour) -> None:
        """A line which leaves the owner as it was: a scratch, an edge, a print."""
        cv2.polylines(
            self.image, [self._fixed(self.placed(points))], False, colour, self._thickness(width), cv2.LINE_AA, _SHIFT
        )

    def block(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        radius: float,
        colour: Colour,
        owner: int = 0,
        lift: float = 5,
    ) -> None:
        """A moulded block that stands `lift` units proud: shadow, shaded face, light upper and dark lower edge."""
        outline = rounded_rectangle(x, y, width, height, radius)
        self.shadow(outline, (lift * 0.7, lift), lift, 0.6)
        self.polygon(outline, scaled(colour, 0.55), owner=owner)
        bevel = max(1.2, lift * 0.28)
        self.polygon(rounded_rectangle(x, y, width - bevel, height - bevel, radius), scaled(colour, 1.35), owner=owner)
        face = rounded_rectangle(x + bevel, y + bevel, width - 2 * bevel, height - 2 * bevel, radius)
        self.polygon(face, colour, shade=(1.12, 0.86), owner=owner)

    def cable(self, points: NDArray[np.float64], width: float, colour: Colour, stripe: Colour | None = None) -> None:
        """A round, shiny conductor along the points; it hides what it crosses."""
        outline = np.concatenate([points + width * np.array([0.3, 0.45]), points[::-1] + width * np.array([0.6, 0.5])])
        self.shadow(outline, (0, 0), width * 0.35, 0.4)
        layers = [(1.0, 0.45, 0.0), (0.84, 0.8, -0.02), (0.6, 1.05, -0.08), (0.22, 1.5, -0.2)]
        for thickness, brightness, drift in layers:
            tone = tuple(
                min(255.0, channel * brightness + (brightness - 1) * 18 * (brightness > 1)) for channel in colour
            )
            self.line(points + width * drift, width * thickness, (tone[0], tone[1], tone[2]))
        if stripe is not None:
            self.line(points + width * 0.12, width * 0.34, stripe)
        cv2.polylines(
            self.owner,
            [self._fixed(self.placed(points))],
            False,
            self._kind,
            self._thickness(width),
            cv2.LINE_8,
            _SHIFT,
        )

    def disc(self, x: float, y: float, radius: float, colour: Colour, owner: int = 0) -> None:
        """A domed disc: darker rim, lighter upper left."""
        for share, brightness, drift in ((1.0, 0.55, 0.0), (0.88, 1.0, 0.0), (0.6, 1.22, -0.1), (0.28, 1.45, -0.2)):
            centre = x + drift * radius, y + drift * radius
            self.polygon(
                rounded_rectangle(
                    centre[0] - radius * share,
                    centre[1] - radius * share,
                    2 * radius * share,
                    2 * radius * share,
                    radius,
                ),
                scaled(colour, brightness),
                owner=owner,
            )

    def screw(self, x: float, y: float, radius: float, angle: float, colour: Colour, owner: int = 0) -> None:
        """A slotted screw head, the slot turned by `angle` radians."""
        self.disc(x, y, radius, colour, owner)
        arm = np.array([np.cos(angle), np.sin(angle)]) * radius * 0.72
        ends = np.array([x, y]) + np.stack([-arm, arm])
        self.line(ends + radius * 0.08, radius * 0.34, scaled(colour, 1.5))
        self.line(ends, radius * 0.3, scaled(colour, 0.3))

    def text(self, words: str, x: float, y: float, height: float, colour: Colour, weight: float = 0.12) -> None:
        """Print `words` with their lower left corner at (x, y), capitals `height` units high."""
        size = height * self.scale / 21  # Hershey capitals are 21 pixels high at size 1
        if size * 21 < 3:  # unreadable below three pixels, and OpenCV would draw a smear
            return
        thickness = self._thickness(height * weight)
        if self._angle == 0:
            origin = round(x * self.scale), round(y * self.scale)
            cv2.putText(self.image, words, origin, cv2.FONT_HERSHEY_SIMPLEX, size, colour, thickness, cv2.LINE_AA)
            return
        (long, tall), below = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, size, thickness)
        stamp = np.zeros((tall + 2 * below, long + 2 * below), np.uint8)
        cv2.putText(stamp, words, (below, tall), cv2.FONT_HERSHEY_SIMPLEX, size, 255, thickness, cv2.LINE_AA)
        self._stamp(stamp, np.array([x - below / self.scale, y - tall / self.scale]), colour)

    def _stamp(self, stamp: NDArray[np.uint8], corner: NDArray[np.float64], colour: Colour) -> None:
        """Print a cover (upper left corner in scene units) turned as everything else is."""
        tall, long = stamp.shape
        local = np.array([[0, 0], [long, 0], [long, tall], [0, tall]], np.float64)
        where = self.placed(corner + local / self.scale)
        region = self._region(where)
        if region is None:
            return
        rows, columns = region
        goal = where[:3] * self.scale - np.array([columns.start, rows.start])
        matrix = cv2.getAffineTransform(local[:3].astype(np.float32), goal.astype(np.float32))
        below = self.image[rows, columns]
        cover = cv2.warpAffine(stamp, matrix, below.shape[1::-1])[:, :, None] / np.float32(255)
        below[:] = (below + (np.asarray(colour, np.float32) - below) * cover + 0.5).astype(np.uint8)

    def _thickness(self, width: float) -> int:
        return max(1, round(width * self.scale))

    def _fixed(self, points: NDArray[np.float64]) -> NDArray[np.int32]:
        return np.round((points * self.scale - 0.5) * (1 << _SHIFT)).astype(np.int32)

    def _region(self, points: NDArray[np.float64], margin: float = 0.0) -> tuple[slice, slice] | None:
        low = np.floor((points.min(0) - margin) * self.scale).astype(int) - 1
        high = np.ceil((points.max(0) + margin) * self.scale).astype(int) + 2
        (left, top), (right, bottom) = np.maximum(low, 0), np.minimum(high, self.owner.shape[::-1])
        return (slice(top, bottom), slice(left, right)) if right - left > 1 and bottom - top > 1 else None

    def _cover(self, points: NDArray[np.float64], rows: slice, columns: slice) -> NDArray[np.uint8]:
        cover = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
        local = self._fixed(points) - np.array([columns.start, rows.start], np.int32) * (1 << _SHIFT)
        cv2.fillPoly(cover, [local], 255, cv2.LINE_AA, _SHIFT)
        return cover
