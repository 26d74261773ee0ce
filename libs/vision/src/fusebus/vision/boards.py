"""Owns the synthetic photographs of electrical cut-outs, with the truth about every fuse neutral in them.

The demo's photos, the demo model's training pictures and its evaluation come from here. Only numpy and OpenCV are used.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fusebus.vision import board_palette as palette
from fusebus.vision.board_drawing import Canvas, Colour, curve, rounded_rectangle, scaled
from fusebus.vision.board_photography import light, photograph

SCENE_WIDTH = 1000.0  # scene units across the photo; a scene is the same at every size in pixels
_BORDER = 0.17  # of the photo's width, drawn beyond each edge so that rotation never shows an empty corner
_LEAST_VISIBLE = 0.25  # of a neutral's area: less than this inside the photo isn't called visible
_NEUTRAL_CHANCES = (0.08, 0.36, 0.28, 0.18, 0.10)  # of 0, 1, 2, 3 and 4 neutrals


@dataclass(frozen=True)
class Board:
    """One synthetic photo and its truth.

    image: uint8 (height, width, 3), RGB.
    boxes: float32 (n, 4), x1 y1 x2 y2 in pixels around the visible part of each fuse neutral (x2, y2 exclusive).
    masks: bool (n, height, width), the visible pixels of each fuse neutral.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    masks: NDArray[np.bool_]


def draw_board(seed: int, size: tuple[int, int] = (1600, 1200), neutrals: int | None = None) -> Board:
    """Draw the board that belongs to `seed` as a photo of `size` = (width, height) pixels.

    The same seed gives the same scene at every size of the same aspect ratio. `neutrals` (0 to 4) asks for a number of
    fuse neutrals; by default the seed decides, 1 to 3 mostly. Raises ValueError for a size below 32 pixels or a number
    outside 0 to 4.
    """
    width, height = size
    if min(size) < 32:
        raise ValueError(f"a board is at least 32 pixels wide and high, not {width} x {height}")
    if neutrals is not None and not 0 <= neutrals < len(_NEUTRAL_CHANCES):
        raise ValueError(f"a board has 0 to {len(_NEUTRAL_CHANCES) - 1} fuse neutrals, not {neutrals}")
    random = np.random.default_rng(np.random.SeedSequence([0xF05E, seed]))
    scene = _Scene(random, SCENE_WIDTH * height / width, width / SCENE_WIDTH)
    scene.draw(int(random.choice(len(_NEUTRAL_CHANCES), p=_NEUTRAL_CHANCES)) if neutrals is None else neutrals)
    image, owner = photograph(scene.canvas, random, size)
    image = light(image, random)
    return _with_truth(image, owner, scene.areas)


def _with_truth(image: NDArray[np.uint8], owner: NDArray[np.uint8], areas: list[float]) -> Board:
    masks = [owner == number for number in range(1, len(areas) + 1)]
    masks = [mask for mask, area in zip(masks, areas, strict=True) if mask.sum() >= max(4.0, area * _LEAST_VISIBLE)]
    boxes = [cv2.boundingRect(mask.astype(np.uint8)) for mask in masks]
    corners = [(x, y, x + width, y + height) for x, y, width, height in boxes]
    return Board(
        image,
        np.array(corners, np.float32).reshape(-1, 4),
        np.array(masks, np.bool_).reshape(-1, *owner.shape),
    )


class _Scene:
    """What stands in front of the camera, drawn back to front in scene units."""

    def __init__(self, random: np.random.Generator, height: float, pixels_per_unit: float) -> None:
        self.random = random
        border = SCENE_WIDTH * _BORDER
        self.left, self.top = border, border
        self.width, self.height = SCENE_WIDTH, height
        self.canvas = Canvas(SCENE_WIDTH + 2 * border, height + 2 * border, pixels_per_unit)
        self.areas: list[float] = []  # of each neutral before anything hid it, in pixels
        self.tails_end: tuple[float, float, float] = (0.0, 0.0, 0.0)  # left, right and height at which tails go in

    def draw(self, neutrals: int) -> None:
        self._wall()
        self._backboard()
        cut_outs = max(1, neutrals) + int(self.random.random() < (0.5, 0.2, 0.2, 0.15, 0.0)[neutrals])
        has_neutral = np.zeros(cut_outs, bool)
        has_neutral[self.random.permutation(cut_outs)[:neutrals]] = True
        rows = 2 if cut_outs == 4 and self.random.random() < 0.6 else 1
        columns = -(-cut_outs // rows)
        for row in range(rows):
            finish = [self._above(column, columns, row, rows) for column in range(columns)]
            for column, (tails_end, _) in enumerate(finish):
                self.tails_end = tails_end
                self._cut_out(column, columns, row, rows, bool(has_neutral[row * columns + column]))
            for _, paint in finish:  # in front of the tails that go into it
                paint()
        self._clutter()

    def _pick(self, choices: tuple[Colour, ...], spread: float = 0.12) -> Colour:
        return scaled(choices[self.random.integers(len(choices))], self.random.uniform(1 - spread, 1 + spread))

    def _noise(self, rows: int, columns: int, strength: float) -> NDArray[np.float32]:
        """Smooth brightness factors over the whole canvas, from a coarse grid so that the scene has no pixel size."""
        grid = self.random.normal(1, strength, (rows, columns)).astype(np.float32)
        return np.asarray(cv2.resize(grid, self.canvas.owner.shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)

    def _wall(self) -> None:
        colour = self._pick(((216, 212, 200), (198, 190, 172), (176, 178, 176), (222, 222, 220), (150, 84, 66)))
        texture = self._noise(9, 12, 0.035) * self._noise(160, 200, 0.02)
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

    def _backboard(self) -> None:
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
        colour = self._pick(tones)
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
            self.canvas.screw(*corner, 8, self.random.uniform(0, 3), self._pick((palette.BRASS, palette.STEEL)))

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

    def _above(
        self, column: int, columns: int, row: int, rows: int
    ) -> tuple[tuple[float, float, float], Callable[[], None]]:
        """Choose what the tails of a cut-out go into (none of it is a neutral): where, and what paints it."""
        random, slot = self.random, self.width / columns
        centre = self.left + slot * (column + 0.5) + random.uniform(-0.08, 0.08) * slot
        top = self.top + random.uniform(20, 60)
        kind = random.choice(4, p=(0.6, 0.14, 0.12, 0.14)) if rows == 1 else 3
        if kind == 0:
            width, height = min(300.0, slot * 0.62), random.uniform(190, 250)
            ends = centre - width * 0.4, centre + width * 0.4, top + height * 0.9
            return ends, lambda: self._meter(centre, top, width, height)
        if kind == 1:
            width = min(160.0, slot * 0.5)
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
        colour = self._pick(((224, 224, 220), (188, 190, 192)), 0.05)
        self.canvas.block(left, y, right - left, height, 2, colour, lift=6)
        self.canvas.line([(left, y + height * 0.2), (right, y + height * 0.2)], 1.6, scaled(colour, 0.8))

    def _meter(self, centre: float, y: float, width: float, height: float) -> None:
        random, canvas = self.random, self.canvas
        colour = self._pick(((222, 222, 214), (196, 198, 198), (60, 62, 66), (232, 228, 210)))
        x = centre - width / 2
        canvas.block(x, y, width, height, 12, colour, lift=12)
        dark = sum(colour) < 300
        canvas.block(x + width * 0.14, y + height * 0.16, width * 0.72, height * 0.26, 4, (46, 50, 48), lift=2)
        glass = self._pick(((150, 166, 138), (168, 178, 160), (28, 30, 32)))
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
        self.canvas.block(centre - width / 2, y, width, height, 8, self._pick(((228, 228, 224), (70, 72, 76))), lift=9)
        lever = self._pick(((176, 36, 34), (40, 40, 42)))
        self.canvas.block(centre - width * 0.16, y + height * 0.34, width * 0.32, height * 0.34, 4, lever, lift=6)
        self.canvas.text("ON", centre - width * 0.1, y + height * 0.25, height * 0.08, (120, 120, 120))

    def _earth_bar(self, centre: float, y: float, width: float) -> None:
        height = width * 0.22
        self.canvas.block(centre - width / 2, y, width, height, 4, self._pick(((214, 210, 200), (88, 90, 92))), lift=5)
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

    def _cut_out(self, column: int, columns: int, row: int, rows: int, has_neutral: bool) -> None:
        """A service cut-out: moulded base, fuse carriers, and beside them the neutral block if it has one."""
        random = self.random
        slot = self.width / columns
        height = self.height * (random.uniform(0.34, 0.47) if rows == 1 else random.uniform(0.27, 0.33))
        width = min(slot * random.uniform(0.78, 0.9), height * random.uniform(0.95, 1.3))
        middle = self.top + self.height * ((0.7 if rows == 1 else 0.29 + 0.42 * row) + random.uniform(-0.03, 0.03))
        x = self.left + slot * (column + 0.5) - width / 2 + random.uniform(-0.4, 0.4) * (slot - width)
        y = middle - height / 2
        colour = self._pick(palette.MOULDINGS)
        self._service_cable(x + width * random.uniform(0.3, 0.7), y + height)
        self.canvas.block(x, y, width, height, random.uniform(6, 26), colour, lift=14)
        neutral_width = max(94.0, width * random.uniform(0.3, 0.4))
        on_left = random.random() < 0.35
        inner, gap = width * 0.05, width * 0.035
        span = width - 2 * inner - neutral_width - gap if has_neutral or random.random() < 0.6 else width - 2 * inner
        neutral_x = x + inner if on_left else x + width - inner - neutral_width
        self._fuses(x + inner + (width - 2 * inner - span if on_left else 0), y, span, height, colour)
        if has_neutral:
            self._neutral(neutral_x, y, neutral_width, height, colour)
        elif span < width - 2 * inner:
            self._blank(neutral_x, y, neutral_width, height, colour)

    def _service_cable(self, x: float, y: float) -> None:
        sheath = self._pick((palette.BLACK_TAIL, (88, 90, 94), (70, 60, 52)))
        bottom = self.top + self.height + self.top
        drift = self.random.uniform(-60, 60)
        path = curve((x, y - 20), (x, y + 80), (x + drift, bottom - 120), (x + drift, bottom))
        self.canvas.cable(path, self.random.uniform(34, 48), sheath)
        self.canvas.block(x - 34, y - 6, 68, 26, 6, self._pick((palette.STEEL, palette.BRASS, (50, 50, 52))), lift=4)

    def _fuses(self, x: float, y: float, width: float, height: float, base: Colour) -> None:
        """One to three fuse carriers side by side: gripped, labelled, and never a neutral."""
        random = self.random
        count = 1 if width < 150 else int(random.choice((1, 1, 2, 3)))
        each = width / count
        colour = self._pick(palette.MOULDINGS) if random.random() < 0.6 else base
        top, tall = y + height * random.uniform(0.14, 0.2), height * random.uniform(0.56, 0.68)
        for index in range(count):
            left, wide = x + index * each + each * 0.06, each * 0.88
            tail = self._pick((palette.BLACK_TAIL, palette.GREY_TAIL, palette.BROWN_TAIL, palette.RED_TAIL))
            self._tail(left + wide / 2, top + 8, tail)
            self.canvas.block(left, top, wide, tall, random.uniform(5, 16), scaled(colour, 1.08), lift=9)
            self._grip(left, top, wide, tall, colour)
            self._carrier_label(left, top, wide, tall)

    def _grip(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        rise = height * self.random.uniform(0.22, 0.3)
        self.canvas.block(x + width * 0.16, y + height * 0.08, width * 0.68, rise, 6, scaled(colour, 1.15), lift=6)
        for ridge in np.linspace(0.2, 0.8, 4):
            level = y + height * 0.08 + rise * float(ridge)
            self.canvas.line([(x + width * 0.22, level), (x + width * 0.78, level)], 2.4, scaled(colour, 0.5))

    def _carrier_label(self, x: float, y: float, width: float, height: float) -> None:
        paper = self._pick(((232, 230, 220), (236, 214, 70), (220, 60, 50), (240, 240, 240)))
        label = rounded_rectangle(x + width * 0.14, y + height * 0.52, width * 0.72, height * 0.3, 3)
        self.canvas.polygon(label, paper, (1.04, 0.94))
        words = str(self.random.choice(["100A", "80A", "60A", "BS 1361", "L1", "TYPE II", "DANGER"]))
        size = min(height * 0.11, width * 0.5 / len(words) * 1.1)
        self.canvas.text(words, x + width * 0.2, y + height * 0.66, size, (28, 28, 30))
        level = y + height * 0.75
        self.canvas.line([(x + width * 0.2, level), (x + width * 0.7, level)], 2, (90, 90, 92))

    def _tail(self, x: float, y: float, colour: Colour) -> None:
        random = self.random
        left, right, level = self.tails_end
        end = float(np.clip(x + random.uniform(-70, 70), left, right)), min(level, y - 20)
        pull = min(130.0, 0.6 * (y - end[1]))
        path = curve(
            (x, y), (x + random.uniform(-12, 12), y - pull), (end[0] + random.uniform(-30, 30), end[1] + pull), end
        )
        self.canvas.cable(path, random.uniform(17, 23), colour)

    def _blank(self, x: float, y: float, width: float, height: float, base: Colour) -> None:
        """A blanking cover where a neutral might have been: no screws, no brass, no conductor."""
        top, tall = y + height * self.random.uniform(0.2, 0.3), height * self.random.uniform(0.4, 0.56)
        self.canvas.block(x, top, width, tall, 8, scaled(base, self.random.uniform(0.85, 1.15)), lift=4)
        self.canvas.line([(x + width * 0.2, top + tall / 2), (x + width * 0.8, top + tall / 2)], 3, scaled(base, 0.55))

    def _neutral(self, x: float, y: float, width: float, height: float, base: Colour) -> None:
        """The fuse neutral: a narrow moulded block with brass screws, its terminal bar and the neutral conductor."""
        random, canvas = self.random, self.canvas
        owner = len(self.areas) + 1
        top, tall = y + height * random.uniform(0.1, 0.24), height * random.uniform(0.5, 0.68)
        colour = self._pick(palette.MOULDINGS) if random.random() < 0.65 else scaled(base, random.uniform(0.9, 1.25))
        tail = palette.BLUE_TAIL if random.random() < 0.5 else self._pick((palette.BLACK_TAIL, palette.GREY_TAIL))
        self._tail(x + width * random.uniform(0.4, 0.6), top + 8, tail)
        canvas.block(x, top, width, tall, random.uniform(4, 14), colour, owner, lift=8)
        self._neutral_face(x, top, width, tall, colour, owner)
        self.areas.append(float((canvas.owner == owner).sum()))
        if random.random() < 0.3:
            self._seal(x + width * random.uniform(0.2, 0.8), top + tall)

    def _neutral_face(self, x: float, y: float, width: float, height: float, colour: Colour, owner: int) -> None:
        random, canvas = self.random, self.canvas
        metal = self._pick((palette.BRASS, palette.BRASS, palette.STEEL), 0.15)
        style = random.integers(3)
        screws = (0.2, 0.8) if style else (0.2, 0.5, 0.8)
        if style < 2:  # an open recess that shows the terminal bar
            recess = rounded_rectangle(x + width * 0.2, y + height * 0.1, width * 0.6, height * 0.8, 5)
            canvas.polygon(recess, scaled(colour, 0.4), (0.8, 1.2), owner)
            bar = rounded_rectangle(x + width * 0.3, y + height * 0.13, width * 0.4, height * 0.74, 3)
            canvas.polygon(bar, metal, (1.2, 0.75), owner)
        for level in screws:
            canvas.screw(
                x + width / 2, y + height * level, min(width * 0.2, height * 0.11), random.uniform(0, 3), metal, owner
            )
        if style:
            ink = scaled(colour, 0.35) if sum(colour) > 300 else scaled(colour, 3.2)
            size = min(width * 0.4, height * 0.18)
            canvas.text("N", x + width / 2 - size * 0.42, y + height / 2 + size / 2, size, ink, 0.16)

    def _seal(self, x: float, y: float) -> None:
        """A lead-and-wire seal that dangles, and so may hide a little of what is behind it."""
        end = x + self.random.uniform(-24, 24), y + self.random.uniform(14, 46)
        self.canvas.line(curve((x, y - 16), (x - 14, y), (end[0] + 14, y), end), 2.2, (188, 188, 186))
        self.canvas.disc(end[0], end[1], self.random.uniform(9, 13), self._pick(palette.SEALS))

    def _clutter(self) -> None:
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
                palette.EARTH_GREEN if earth else self._pick((palette.GREY_TAIL, (214, 214, 212))),
                palette.EARTH_YELLOW if earth else None,
            )
        for _ in range(int(random.integers(0, 12))):  # dust and drips of paint
            x, y = self.left + self.width * random.random(), self.top + self.height * random.random()
            radius = random.uniform(1, 3.4)
            speck = rounded_rectangle(x, y, radius * 2, radius * random.uniform(1, 3), radius)
            canvas.polygon(speck, self._pick(((222, 220, 212), (60, 56, 50))), alpha=0.6)

    def _sticker(self) -> None:
        random, canvas = self.random, self.canvas
        x, y = self.left + self.width * random.uniform(0.02, 0.85), self.top + self.height * random.uniform(0.02, 0.36)
        width, height = random.uniform(80, 150), random.uniform(44, 84)
        paper = self._pick(((244, 214, 40), (240, 240, 236), (226, 120, 40)))
        canvas.polygon(rounded_rectangle(x, y, width, height, 4), paper, (1.04, 0.93))
        canvas.text(
            str(random.choice(["CAUTION", "TEST DUE", "MAIN", "PME", "SUPPLY"])), x + 8, y + 22, 12, (30, 30, 30)
        )
        for line in range(2):
            level = y + height * (0.6 + 0.2 * line)
            canvas.line([(x + 8, level), (x + width * random.uniform(0.5, 0.9), level)], 2.4, (70, 70, 70))
