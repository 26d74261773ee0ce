"""Owns the cut-outs of a board: bases of several families, their fuses, and the empty ways."""

from dataclasses import dataclass

from fusebus.vision import board_palette as palette
from fusebus.vision.board_drawing import Colour, Kind, curve, rounded_rectangle, scaled
from fusebus.vision.board_neutrals import Neutrals
from fusebus.vision.board_painter import Painter, Stage
from fusebus.vision.board_surroundings import Ends

_LOOK_ALIKE_CHANCE = 0.5  # of a cut-out without a neutral having something else in the neutral's place
_SECOND_LOOK_ALIKE_CHANCE = 0.15  # of a cut-out with a neutral having a look-alike on its other side
_EMPTY_CHANCE = 0.16  # of a way having no fuse in it
_CROOKED_CHANCE = 0.35  # of a fuse carrier not being pushed home
_PORCELAIN: Colour = (226, 222, 210)


@dataclass(frozen=True)
class Family:
    """A make of cut-out. `ways`: numbers of fuses to choose from; `radius`: of the base's corners, scene units."""

    colours: tuple[Colour, ...]
    ways: tuple[int, ...]
    radius: tuple[float, float]
    width: tuple[float, float]  # of the height
    lugs: bool = False
    carriers: tuple[Colour, ...] = palette.MOULDINGS
    lying: float = 0.0  # chance that the neutral lies below the fuses instead of standing beside them


_FAMILIES = (
    Family(palette.MOULDINGS, (1, 1, 2, 3), (6, 26), (0.95, 1.3)),
    Family(palette.CAST_IRON, (1, 1, 2), (22, 46), (0.85, 1.15), lugs=True, carriers=(_PORCELAIN, *palette.CAST_IRON)),
    Family(palette.GREYS, (3,), (4, 12), (1.2, 1.6), carriers=((58, 58, 62), (142, 145, 147), (206, 196, 170))),
    Family(palette.MOULDINGS, (1, 2), (6, 18), (0.8, 1.05), lying=1.0),
)
_FAMILY_CHANCES = (0.46, 0.2, 0.16, 0.18)


@dataclass(frozen=True)
class _Place:
    """A rectangle in scene units."""

    x: float
    y: float
    width: float
    height: float


class CutOuts(Painter):
    """Paints one cut-out after the other."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.neutrals = Neutrals(stage)

    def cut_out(self, column: int, columns: int, row: int, rows: int, has_neutral: bool, ends: Ends) -> None:
        """A service cut-out in its row and column: moulded base, fuse carriers, and a neutral if it has one."""
        random = self.random
        family = _FAMILIES[int(random.choice(len(_FAMILIES), p=_FAMILY_CHANCES))]
        base = self._base(family, column, columns, row, rows)
        colour = self.pick(family.colours)
        self._service_cable(base.x + base.width * random.uniform(0.3, 0.7), base.y + base.height)
        if family.lugs:
            self._lugs(base, colour)
        self.canvas.block(
            base.x, base.y, base.width, base.height, random.uniform(*family.radius), colour, lift=random.uniform(9, 16)
        )
        if random.random() < family.lying:
            self._with_lying_neutral(family, base, colour, has_neutral, ends)
        else:
            self._with_standing_neutral(family, base, colour, has_neutral, ends)

    def _base(self, family: Family, column: int, columns: int, row: int, rows: int) -> _Place:
        random = self.random
        slot = self.width / columns
        height = self.height * (random.uniform(0.34, 0.47) if rows == 1 else random.uniform(0.25, 0.3))
        height = min(height, slot * 1.35)
        width = min(slot * random.uniform(0.8, 0.92), height * random.uniform(*family.width))
        middle = self.top + self.height * ((0.7 if rows == 1 else 0.26 + 0.42 * row) + random.uniform(-0.02, 0.02))
        x = self.left + slot * (column + 0.5) - width / 2 + random.uniform(-0.4, 0.4) * (slot - width)
        return _Place(x, middle - height / 2, width, height)

    def _lugs(self, base: _Place, colour: Colour) -> None:
        """Cast ears with the bolts that hold the base."""
        for side in (base.x - 16, base.x + base.width - 20):
            for level in (0.16, 0.78):
                y = base.y + base.height * level
                self.canvas.block(side, y, 36, 34, 14, scaled(colour, 0.9), lift=8)
                self.canvas.screw(
                    side + (8 if side < base.x else 28), y + 17, 7, self.random.uniform(0, 3), palette.STEEL
                )

    def _with_standing_neutral(
        self, family: Family, base: _Place, colour: Colour, has_neutral: bool, ends: Ends
    ) -> None:
        random = self.random
        inner, gap = base.width * 0.05, base.width * 0.035
        wide = max(94.0, base.width * (random.uniform(0.3, 0.4) if max(family.ways) < 3 else random.uniform(0.2, 0.26)))
        wide = min(wide, base.width * 0.45)
        on_left = random.random() < 0.35
        look_alike = random.random() < (_SECOND_LOOK_ALIKE_CHANCE if has_neutral else _LOOK_ALIKE_CHANCE)
        left, right = base.x + inner, base.x + base.width - inner
        sides = [on_left] if has_neutral or look_alike else []
        if has_neutral and look_alike and base.width > 3.2 * wide:
            sides.append(not on_left)
        for number, at_left in enumerate(sides):
            x = left if at_left else right - wide
            left, right = (left + wide + gap, right) if at_left else (left, right - wide - gap)
            paint = self.neutrals.neutral if has_neutral and number == 0 else self.neutrals.look_alike
            paint(x, base.y, wide, base.height, colour, ends)
        self._fuses(family, _Place(left, base.y, right - left, base.height), colour, ends)

    def _with_lying_neutral(self, family: Family, base: _Place, colour: Colour, has_neutral: bool, ends: Ends) -> None:
        """Fuses above; below them, across the base, the neutral or nothing."""
        share = self.random.uniform(0.31, 0.39)
        self._fuses(family, _Place(base.x + 6, base.y, base.width - 12, base.height * (1 - share) * 1.12), colour, ends)
        if has_neutral:
            self.neutrals.lying_neutral(
                base.x, base.y + base.height * (1 - share), base.width, base.height * share, colour, ends
            )

    def _service_cable(self, x: float, y: float) -> None:
        sheath = self.pick((palette.BLACK_TAIL, (88, 90, 94), (70, 60, 52)))
        bottom = self.top + self.height + self.top
        drift = self.random.uniform(-60, 60)
        path = curve((x, y - 20), (x, y + 80), (x + drift, bottom - 120), (x + drift, bottom))
        self.canvas.cable(path, self.random.uniform(34, 48), sheath)
        self.canvas.block(x - 34, y - 6, 68, 26, 6, self.pick((palette.STEEL, palette.BRASS, (50, 50, 52))), lift=4)

    def _fuses(self, family: Family, place: _Place, base: Colour, ends: Ends) -> None:
        """Fuse carriers side by side: gripped, labelled, some crooked, some missing, and never a neutral."""
        random = self.random
        count = 1 if place.width < 110 else int(random.choice(family.ways))
        each = place.width / count
        colour = self.pick(family.carriers) if random.random() < 0.7 else base
        top, tall = place.y + place.height * random.uniform(0.12, 0.18), place.height * random.uniform(0.56, 0.68)
        for index in range(count):
            left, wide = place.x + index * each + each * 0.06, each * 0.88
            tail = self.pick((palette.BLACK_TAIL, palette.GREY_TAIL, palette.BROWN_TAIL, palette.RED_TAIL))
            self.neutrals.tail(left + wide / 2, top + 8, tail, ends)
            empty = random.random() < _EMPTY_CHANCE
            with self.canvas.of_kind(Kind.CARRIER):
                if empty:
                    self._empty_way(left, top, wide, tall, base)
                else:
                    self._carrier(left, top, wide, tall, colour)

    def _empty_way(self, x: float, y: float, width: float, height: float, base: Colour) -> None:
        """A way whose carrier was pulled: a dark well with two apart spring contacts, no screws and no bar."""
        well = rounded_rectangle(x + width * 0.06, y, width * 0.88, height, 6)
        self.canvas.polygon(well, scaled(base, 0.42), (0.55, 1.25))
        deep = rounded_rectangle(x + width * 0.16, y + height * 0.3, width * 0.68, height * 0.4, 4)
        self.canvas.polygon(deep, (18, 18, 19), (0.7, 1.3))
        metal = self.pick((palette.BRASS, palette.STEEL), 0.15)
        for level in (0.08, 0.74):
            top = y + height * level
            for side in (0.28, 0.56):
                jaw = rounded_rectangle(x + width * side, top, width * 0.16, height * 0.18, 2)
                self.canvas.polygon(jaw, metal, (1.15, 0.6))

    def _carrier(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        random = self.random
        crooked = random.random() < _CROOKED_CHANCE
        angle = float(random.uniform(-0.2, 0.2)) if crooked else float(random.normal(0, 0.012))
        angle *= min(1.0, 90 / height)  # a long carrier can't turn far between its neighbours
        with self.canvas.turned(x + width / 2, y + height * random.uniform(0.2, 0.8), angle):
            lift = random.uniform(12, 18) if crooked else 9
            self.canvas.block(x, y, width, height, random.uniform(5, 16), scaled(colour, 1.08), lift=lift)
            self._grip(x, y, width, height, colour)
            if random.random() < 0.85:
                self._carrier_label(x, y, width, height)

    def _grip(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        rise = height * self.random.uniform(0.22, 0.3)
        self.canvas.block(x + width * 0.16, y + height * 0.08, width * 0.68, rise, 6, scaled(colour, 1.15), lift=6)
        for ridge in (0.2, 0.4, 0.6, 0.8):
            level = y + height * 0.08 + rise * ridge
            self.canvas.line([(x + width * 0.22, level), (x + width * 0.78, level)], 2.4, scaled(colour, 0.5))

    def _carrier_label(self, x: float, y: float, width: float, height: float) -> None:
        paper = self.pick(((232, 230, 220), (236, 214, 70), (220, 60, 50), (240, 240, 240)))
        label = rounded_rectangle(x + width * 0.14, y + height * 0.52, width * 0.72, height * 0.3, 3)
        self.canvas.polygon(label, paper, (1.04, 0.94))
        words = str(self.random.choice(["100A", "80A", "60A", "BS 1361", "L1", "TYPE II", "DANGER"]))
        size = min(height * 0.11, width * 0.5 / len(words) * 1.1)
        self.canvas.text(words, x + width * 0.2, y + height * 0.66, size, (28, 28, 30))
        level = y + height * 0.75
        self.canvas.line([(x + width * 0.2, level), (x + width * 0.7, level)], 2, (90, 90, 92))
