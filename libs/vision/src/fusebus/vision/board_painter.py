"""Owns what every part of the board generator paints with: canvas, dice, and where the photo is on the canvas."""

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from fusebus.vision.board_drawing import Canvas, Colour, Kind, Point, curve, scaled

SCENE_WIDTH = 1000.0  # scene units across the photo; a scene is the same at every size in pixels
BORDER = 0.24  # of the photo's width, drawn beyond each edge so that a crooked camera seldom sees where the scene ends


@dataclass
class Stage:
    """What stands in front of the camera: a photo of `width` x `height` scene units from (left, top) of the canvas.

    outlines: the corners (4, 2) of every fuse neutral in scene units; neutral i owns the canvas's pixels i + 1.
    """

    random: np.random.Generator
    canvas: Canvas
    left: float
    top: float
    width: float
    height: float
    outlines: list[NDArray[np.float64]] = field(default_factory=list)

    def unhidden(self) -> list[float]:
        """Which share of each neutral nothing hangs in front of; 1 where its round corners are all that is missing."""
        owned = np.bincount(self.canvas.owner.ravel(), minlength=256)[1 : len(self.outlines) + 1]
        areas = [cv2.contourArea((outline * self.canvas.scale).astype(np.float32)) for outline in self.outlines]
        return [min(1.0, float(pixels) / (0.97 * area)) for pixels, area in zip(owned, areas, strict=True)]


def new_stage(random: np.random.Generator, height: float, pixels_per_unit: float) -> Stage:
    """An empty stage for a photo of SCENE_WIDTH x `height` units."""
    border = SCENE_WIDTH * BORDER
    canvas = Canvas(SCENE_WIDTH + 2 * border, height + 2 * border, pixels_per_unit)
    return Stage(random, canvas, border, border, SCENE_WIDTH, height)


def _kind(colour: Colour, stripe: Colour | None) -> Kind:
    if stripe is not None:
        return Kind.EARTH_CONDUCTOR
    red, _, blue = colour
    return Kind.LINE_CONDUCTOR if red > 1.5 * blue else Kind.NEUTRALS_CONDUCTOR


class Painter:
    """Paints one kind of thing onto a stage."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.random, self.canvas = stage, stage.random, stage.canvas
        self.left, self.top, self.width, self.height = stage.left, stage.top, stage.width, stage.height

    def pick(self, choices: tuple[Colour, ...], spread: float = 0.12) -> Colour:
        return scaled(choices[self.random.integers(len(choices))], self.random.uniform(1 - spread, 1 + spread))

    def wire(self, start: Point, end: Point, width: float, colour: Colour, stripe: Colour | None = None) -> None:
        """A conductor that leaves `start` upwards and arrives at `end` from below, bent by chance."""
        random = self.random
        pull = min(130.0, 0.6 * abs(start[1] - end[1]) + 10)
        path = curve(
            start,
            (start[0] + random.uniform(-12, 12), start[1] - pull),
            (end[0] + random.uniform(-30, 30), end[1] + pull),
            end,
        )
        with self.canvas.of_kind(_kind(colour, stripe)):
            self.canvas.cable(path, width, colour, stripe)

    def noise(self, rows: int, columns: int, strength: float) -> NDArray[np.float32]:
        """Smooth brightness factors over the whole canvas, from a coarse grid so that the scene has no pixel size."""
        grid = self.random.normal(1, strength, (rows, columns)).astype(np.float32)
        return np.asarray(cv2.resize(grid, self.canvas.owner.shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)
