"""Owns what surrounds the cut-outs on a board: wall, backboard, meters and the like above, clutter in front."""

from collections.abc import Callable

import cv2
import numpy as np

from fusebus.vision import board_palette as palette
from fusebus.vision.board_drawing import Colour, curve, rounded_rectangle, scaled
from fusebus.vision.board_painter import Painter

Ends = tuple[float, float, float]  # left, right and height at which tails go into what is above a cut-out


class Surroundings(Painter):
    """Paints everything that is not part of a cut-out; none of it is a fuse neutral."""

    def wall(self) -> None:
        colour = self.pick(((216, 212, 200), (198, 190, 172), (176, 178, 176), (222, 222, 220), (150, 84, 66)))
        texture = self.noise(9, 12, 0.035) * self.noise(160, 200, 0.02)
        for channel in range(3):
            self.canvas.image[:, :, channel] = cv2.convertScaleAbs(texture, alpha=colour[channel])
        if colour[0] > 1.5 * colour[2]:
            self._bricks(colour)

    def _bricks(self, colour: Colour) -> None:
        mortar = scaled((176, 168, 156), self.random.uniform(0.8, 1.05))
        step, across = 62.0, 190.0
        for row in range(int((self.height + 2 * self.top) / step) + 2):
            y = row * step
            self.canvas.line([(0, y), (self.width + 2 * self.left, y)], 7, mortar)
            for column in range(9):
                x = column * across + (row % 2) * across / 2
                self.canvas.line([(x, y), (x, y + step)], 7, mortar)
                brick = rounded_rectangle(x + 4, y + 4, across - 8, step - 8, 3)
                self.canvas.polygon(brick, scaled(colour, self.random.uniform(0.75, 1.2)), alpha=0.35)

    def backboard(self) -> None:
        kind = self.random.choice(4, p=(0.5, 0.2, 0.15, 0.15))
        if kind == 3:
            return  # straight on the wall
        x, y = self.left + self.random.uniform(-60, 60), self.top + self.random.uniform(-60, 50)
        width, height = self.width * self.random.uniform(0.9, 1.06), self.height * self.random.uniform(0.92, 1.1)
        tones = (
            ((168, 124, 78), (140, 98, 62), (188, 150, 104), (112, 76, 50)),
            ((150, 153, 156), (116, 119, 122)),
            ((226, 226, 222), (208, 204, 192)),
        )[kind]
        colour = self.pick(tones)
        outline = rounded_rectangle(x, y, width, height, 6)
        self.canvas.shadow(outline, (10, 14), 12, 0.5)
        self.canvas.block(x, y, width, height, 6, colour, lift=8)
        if kind == 0:
            self._grain(x, y, width, height)
        for corner in (
            (x + 28, y + 28),
            (x + width - 28, y + 28),
            (x + 28, y + height - 28),
            (x + width - 28, y + height - 28),
        ):
            self.canvas.screw(*corner, 8, self.random.uniform(0, 3), self.pick((palette.BRASS, palette.STEEL)))

    def _grain(self, x: float, y: float, width: float, height: float) -> None:
        scale = self.canvas.scale
        rows = slice(max(0, round(y * scale)), round((y + height) * scale))
        columns = slice(max(0, round(x * scale)), round((x + width) * scale))
        region = self.canvas.image[rows, columns]
        streaks = (
            self.random.normal(1, 0.06, (150, 7))
            * self.random.normal(1, 0.07, (22, 3)).repeat(7, 0)[:150].mean(1)[:, None]
        )
        factor = cv2.resize(streaks.astype(np.float32), region.shape[1::-1], interpolation=cv2.INTER_CUBIC)[:, :, None]
        region[:] = np.clip(region * factor, 0, 255)

    def above(
        self, column: int, columns: int, row: int, rows: int
    ) -> tuple[tuple[float, float, float], Callable[[], None]]:
        """Choose what the tails of a cut-out go into (none of it is a neutral): where, and what paints it."""
        random, slot = self.random, self.width / columns
        centre = self.left + slot * (column + 0.5) + random.uniform(-0.08, 0.08) * slot
        top = self.top + random.uniform(20, 60)
        kind = random.choice(4, p=(0.6, 0.14, 0.12, 0.14)) if rows == 1 else 3
        room = min(1.0, self.height / 750)  # a wide photo shows less of what is above
        if kind == 0:
            width, height = min(300.0, slot * 0.62), random.uniform(190, 250) * room
            ends = centre - width * 0.4, centre + width * 0.4, top + height * 0.9
            return ends, lambda: self._meter(centre, top, width, height)
        if kind == 1:
            width = min(160.0, slot * 0.5) * room
            return (centre - width * 0.35, centre + width * 0.35, top + 60 + width), lambda: self._isolator(
                centre, top + 60, width
            )
        if kind == 2:  # the tails leave the photo behind the earth bar
            width = min(230.0, slot * 0.7)
            return (centre - width, centre + width, 0.0), lambda: self._earth_bar(centre, top + 110, width)
        level = self.top + (random.uniform(-30, 60) if rows == 1 else self.height * (0.02 + 0.42 * row))
        deep = random.uniform(44, 60)
        left, right = centre - slot * 0.56, centre + slot * 0.56
        return (centre - slot * 0.35, centre + slot * 0.35, level + deep / 2), lambda: self._trunking(
            left, right, level, deep
        )

    def _trunking(self, left: float, right: float, y: float, height: float) -> None:
        colour = self.pick(((224, 224, 220), (188, 190, 192)), 0.05)
        self.canvas.block(left, y, right - left, height, 2, colour, lift=6)
        self.canvas.line([(left, y + height * 0.2), (right, y + height * 0.2)], 1.6, scaled(colour, 0.8))

    def _meter(self, centre: float, y: float, width: float, height: float) -> None:
        random, canvas = self.random, self.canvas
        colour = self.pick(((222, 222, 214), (196, 198, 198), (60, 62, 66), (232, 228, 210)))
        x = centre - width / 2
        canvas.block(x, y, width, height, 12, colour, lift=12)
        dark = sum(colour) < 300
        canvas.block(x + width * 0.14, y + height * 0.16, width * 0.72, height * 0.26, 4, (46, 50, 48), lift=2)
        glass = self.pick(((150, 166, 138), (168, 178, 160), (28, 30, 32)))
        canvas.polygon(
            rounded_rectangle(x + width * 0.2, y + height * 0.2, width * 0.6, height * 0.18, 2), glass, (1.1, 0.9)
        )
        ink = (230.0, 230.0, 230.0) if sum(glass) < 200 else (26.0, 30.0, 26.0)
        canvas.text(f"{random.integers(100000):05d}", x + width * 0.27, y + height * 0.35, height * 0.11, ink, 0.14)
        print_colour = (210.0, 210.0, 210.0) if dark else (50.0, 52.0, 56.0)
        canvas.text("kWh", x + width * 0.7, y + height * 0.5, height * 0.055, print_colour)
        for line in range(int(random.integers(1, 4))):
            level = y + height * (0.56 + 0.07 * line)
            canvas.line([(x + width * 0.16, level), (x + width * random.uniform(0.4, 0.8), level)], 3, print_colour)
        canvas.block(x + width * 0.03, y + height * 0.8, width * 0.94, height * 0.2, 6, scaled(colour, 0.88), lift=3)
        for side in (0.12, 0.88):
            canvas.screw(x + width * side, y + height * 0.9, height * 0.03, random.uniform(0, 3), palette.STEEL)

    def _isolator(self, centre: float, y: float, width: float) -> None:
        height = width * 1.35
        self.canvas.block(centre - width / 2, y, width, height, 8, self.pick(((228, 228, 224), (70, 72, 76))), lift=9)
        lever = self.pick(((176, 36, 34), (40, 40, 42)))
        self.canvas.block(centre - width * 0.16, y + height * 0.34, width * 0.32, height * 0.34, 4, lever, lift=6)
        self.canvas.text("ON", centre - width * 0.1, y + height * 0.25, height * 0.08, (120, 120, 120))

    def _earth_bar(self, centre: float, y: float, width: float) -> None:
        height = width * 0.22
        self.canvas.block(centre - width / 2, y, width, height, 4, self.pick(((214, 210, 200), (88, 90, 92))), lift=5)
        bar = rounded_rectangle(centre - width * 0.44, y + height * 0.28, width * 0.88, height * 0.44, 2)
        self.canvas.polygon(bar, palette.BRASS, (1.25, 0.8))
        for step in np.linspace(-0.36, 0.36, 5):
            self.canvas.screw(
                centre + width * step, y + height * 0.5, height * 0.16, self.random.uniform(0, 3), palette.BRASS
            )
        for step in self.random.choice(np.linspace(-0.36, 0.36, 5), 2, replace=False):
            x = centre + width * float(step)
            end = x + self.random.uniform(-120, 120), self.top + self.height * self.random.uniform(0.9, 1.3)
            path = curve((x, y + height * 0.8), (x, y + 130), (end[0], y + 150), end)
            self.canvas.cable(path, 13, palette.EARTH_GREEN, palette.EARTH_YELLOW)

    def clutter(self) -> None:
        random, canvas = self.random, self.canvas
        for _ in range(int(random.integers(0, 3))):
            self._sticker()
        if random.random() < 0.4:  # an earth conductor or a stray cable across the whole photo
            x = self.left + self.width * random.uniform(0, 1)
            end = self.left + self.width * random.uniform(0, 1)
            path = curve(
                (x, 0), (x + 60, self.height * 0.5), (end - 60, self.height * 0.7), (end, self.height + 2 * self.top)
            )
            earth = random.random() < 0.6
            canvas.cable(
                path,
                random.uniform(9, 15),
                palette.EARTH_GREEN if earth else self.pick((palette.GREY_TAIL, (214, 214, 212))),
                palette.EARTH_YELLOW if earth else None,
            )
        for _ in range(int(random.integers(0, 12))):  # dust and drips of paint
            x, y = self.left + self.width * random.random(), self.top + self.height * random.random()
            radius = random.uniform(1, 3.4)
            speck = rounded_rectangle(x, y, radius * 2, radius * random.uniform(1, 3), radius)
            canvas.polygon(speck, self.pick(((222, 220, 212), (60, 56, 50))), alpha=0.6)

    def _sticker(self) -> None:
        random, canvas = self.random, self.canvas
        x, y = self.left + self.width * random.uniform(0.02, 0.85), self.top + self.height * random.uniform(0.02, 0.36)
        width, height = random.uniform(80, 150), random.uniform(44, 84)
        near = np.array([[x - 20, y - 20], [x + width + 20, y + height + 20]])
        if any((box.min(0) < near[1]).all() and (box.max(0) > near[0]).all() for box in self.stage.outlines):
            return  # nobody may stick anything over a fuse neutral
        paper = self.pick(((244, 214, 40), (240, 240, 236), (226, 120, 40)))
        canvas.polygon(rounded_rectangle(x, y, width, height, 4), paper, (1.04, 0.93))
        canvas.text(
            str(random.choice(["CAUTION", "TEST DUE", "MAIN", "PME", "SUPPLY"])), x + 8, y + 22, 12, (30, 30, 30)
        )
        for line in range(2):
            level = y + height * (0.6 + 0.2 * line)
            canvas.line([(x + 8, level), (x + width * random.uniform(0.5, 0.9), level)], 2.4, (70, 70, 70))
