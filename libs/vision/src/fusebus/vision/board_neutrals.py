"""Owns the fuse neutrals of a board, and what only looks like one.

The rule by which anybody can tell them apart: a fuse neutral is a narrow block with brass or steel screws in a terminal
bar or round an N, whose conductor is blue, black or grey. An earth block has a green-and-yellow conductor and an E on a
green plate, a line block a red or brown one and an L on a plate of that colour, a cover no conductor.
"""

import numpy as np

from fusebus.vision import board_palette as palette
from fusebus.vision.board_drawing import Colour, Kind, curve, rounded_rectangle, scaled
from fusebus.vision.board_painter import Painter
from fusebus.vision.board_surroundings import Ends

_SEAL_CHANCE = 0.3


class Neutrals(Painter):
    """Paints the block beside the fuses."""

    def neutral(self, x: float, y: float, width: float, height: float, base: Colour, ends: Ends) -> None:
        """A fuse neutral that stands in a cut-out of height `height` from y on."""
        random = self.random
        top, tall = y + height * random.uniform(0.1, 0.24), height * random.uniform(0.5, 0.68)
        self.tail(x + width * random.uniform(0.4, 0.6), top + 8, self._neutral_colour(), ends)
        with self.canvas.turned(x + width / 2, top + tall / 2, float(np.clip(random.normal(0, 0.02), -0.06, 0.06))):
            self._block(x, top, width, tall, base)
        if random.random() < _SEAL_CHANCE:
            self._seal(x + width * random.uniform(0.2, 0.8), top + tall)

    def lying_neutral(self, x: float, y: float, width: float, height: float, base: Colour, ends: Ends) -> None:
        """A fuse neutral that lies across a base; its conductor leaves at the side and goes up."""
        random = self.random
        wide, tall = height * random.uniform(0.7, 0.8), width * random.uniform(0.72, 0.88)
        middle = x + width / 2, y + height * 0.42
        side = 1 if random.random() < 0.5 else -1
        start = middle[0] + side * (tall / 2 - 8), middle[1]
        out = start[0] + side * random.uniform(60, 90)
        path = curve(start, (out, middle[1]), (out, middle[1] - 60), (out, y - height * 0.6))
        end = float(np.clip(out, ends[0] - 40, ends[1] + 40)), min(ends[2], y - height * 0.6 - 30)
        path = np.concatenate([path, curve(tuple(path[-1]), (out, y - height * 1.2), (end[0], end[1] + 60), end)[1:]])
        with self.canvas.of_kind(Kind.NEUTRALS_CONDUCTOR):
            self.canvas.cable(path, random.uniform(17, 23), self._neutral_colour())
        angle = float(np.clip(random.normal(0, 0.02), -0.06, 0.06)) + side * np.pi / 2
        with self.canvas.turned(*middle, angle):
            self._block(middle[0] - wide / 2, middle[1] - tall / 2, wide, tall, base)

    def look_alike(self, x: float, y: float, width: float, height: float, base: Colour, ends: Ends) -> None:
        """What is in the neutral's place without being one: a cover, an earth block or a line block."""
        random = self.random
        kind = random.choice(4, p=(0.3, 0.2, 0.28, 0.22))
        top, tall = y + height * random.uniform(0.14, 0.28), height * random.uniform(0.42, 0.6)
        if kind <= 1:
            with self.canvas.of_kind(Kind.COVER):
                self._cover(x, top, width, tall, base, screws=kind == 1)
        elif kind == 2:
            end = float(np.clip(x + random.uniform(-70, 70), ends[0], ends[1])), min(ends[2], top - 20)
            start = x + width / 2, top + 8
            self.wire(start, end, random.uniform(15, 20), palette.EARTH_GREEN, palette.EARTH_YELLOW)
            with self.canvas.of_kind(Kind.EARTH_BLOCK):
                self._terminal_block(
                    x,
                    top,
                    width,
                    tall,
                    "E",
                    self.pick(((206, 196, 170), (60, 110, 62), (104, 107, 110))),
                    palette.EARTH_GREEN,
                )
        else:
            colour = self.pick((palette.RED_TAIL, palette.BROWN_TAIL))
            self.tail(x + width / 2, top + 8, colour, ends)
            with self.canvas.of_kind(Kind.LINE_BLOCK):
                self._terminal_block(x, top, width, tall, "L", self.pick(palette.MOULDINGS), scaled(colour, 1.2))

    def tail(self, x: float, y: float, colour: Colour, ends: Ends) -> None:
        """The conductor from (x, y) up into what is above."""
        left, right, level = ends
        end = float(np.clip(x + self.random.uniform(-70, 70), left, right)), min(level, y - 20)
        self.wire((x, y), end, self.random.uniform(17, 23), colour)

    def _neutral_colour(self) -> Colour:
        if self.random.random() < 0.5:
            return scaled(palette.BLUE_TAIL, self.random.uniform(0.88, 1.12))
        return self.pick((palette.BLACK_TAIL, palette.GREY_TAIL))

    def _block(self, x: float, y: float, width: float, height: float, base: Colour) -> None:
        random = self.random
        self.stage.outlines.append(
            self.canvas.placed([(x, y), (x + width, y), (x + width, y + height), (x, y + height)])
        )
        owner = len(self.stage.outlines)
        colour = self.pick(palette.MOULDINGS) if random.random() < 0.65 else scaled(base, random.uniform(0.9, 1.25))
        self.canvas.block(x, y, width, height, random.uniform(4, 18), colour, owner, lift=8)
        self._face(x, y, width, height, colour, owner)

    def _face(self, x: float, y: float, width: float, height: float, colour: Colour, owner: int) -> None:
        random, canvas = self.random, self.canvas
        metal = self.pick((palette.BRASS, palette.BRASS, palette.STEEL), 0.15)
        style = int(
            random.integers(4)
        )  # 0, 1: an open recess that shows the terminal bar; 2: closed; 3: a strap on top
        if style < 2:
            recess = rounded_rectangle(x + width * 0.2, y + height * 0.1, width * 0.6, height * 0.8, 5)
            canvas.polygon(recess, scaled(colour, 0.4), (0.8, 1.2), owner)
        if style != 2:
            bar = rounded_rectangle(x + width * 0.3, y + height * 0.13, width * 0.4, height * 0.74, 3)
            canvas.polygon(bar, metal, (1.2, 0.75), owner)
        for level in (0.2, 0.5, 0.8) if style in (0, 3) else (0.2, 0.8):
            radius = min(width * (0.24 if style == 3 else 0.2), height * 0.11)
            canvas.screw(x + width / 2, y + height * level, radius, random.uniform(0, 3), metal, owner)
        if style in (1, 2):
            ink = scaled(colour, 0.35) if sum(colour) > 300 else scaled(colour, 3.2)
            self._letter("N", x, y, width, height, ink)

    def _letter(self, letter: str, x: float, y: float, width: float, height: float, ink: Colour) -> None:
        size = min(width * 0.46, height * 0.2)
        self.canvas.text(letter, x + width / 2 - size * 0.42, y + height / 2 + size / 2, size, ink, 0.16)

    def _terminal_block(
        self, x: float, y: float, width: float, height: float, letter: str, colour: Colour, plate: Colour
    ) -> None:
        """A block like a neutral's, for something else: the letter between its screws is on a plate that says so."""
        metal = self.pick((palette.BRASS, palette.STEEL), 0.15)
        self.canvas.block(x, y, width, height, self.random.uniform(4, 14), colour, lift=8)
        for level in (0.2, 0.8):
            radius = min(width * 0.2, height * 0.11)
            self.canvas.screw(x + width / 2, y + height * level, radius, self.random.uniform(0, 3), metal)
        outline = rounded_rectangle(x + width * 0.16, y + height * 0.34, width * 0.68, height * 0.32, 4)
        self.canvas.polygon(outline, plate, (1.06, 0.92))
        self._letter(letter, x, y, width, height, (232, 228, 214))

    def _cover(self, x: float, y: float, width: float, height: float, base: Colour, screws: bool) -> None:
        """A blanking cover where a neutral might have been: no brass and no conductor."""
        self.canvas.block(x, y, width, height, 8, scaled(base, self.random.uniform(0.85, 1.15)), lift=4)
        if screws:
            for level in (0.1, 0.9):
                self.canvas.screw(x + width / 2, y + height * level, 6, self.random.uniform(0, 3), palette.STEEL)
        line = y + height / 2
        self.canvas.line([(x + width * 0.2, line), (x + width * 0.8, line)], 3, scaled(base, 0.55))

    def _seal(self, x: float, y: float) -> None:
        """A lead-and-wire seal that dangles, and so may hide a little of what is behind it."""
        end = x + self.random.uniform(-24, 24), y + self.random.uniform(14, 46)
        self.canvas.line(curve((x, y - 16), (x - 14, y), (end[0] + 14, y), end), 2.2, (188, 188, 186))
        self.canvas.disc(end[0], end[1], self.random.uniform(9, 13), self.pick(palette.SEALS))
