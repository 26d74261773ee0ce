"""Owns the colours of what hangs on a board."""

from fusebus.vision.board_drawing import Colour

BRASS: Colour = (186, 148, 66)
STEEL: Colour = (150, 152, 156)
MOULDINGS: tuple[Colour, ...] = (
    (38, 38, 41),
    (58, 58, 62),
    (104, 107, 110),
    (142, 145, 147),
    (206, 196, 170),
    (92, 62, 46),
)
BLACK_TAIL: Colour = (34, 34, 36)
GREY_TAIL: Colour = (128, 130, 133)
BROWN_TAIL: Colour = (104, 62, 38)
BLUE_TAIL: Colour = (36, 78, 158)
RED_TAIL: Colour = (156, 34, 32)
EARTH_GREEN: Colour = (52, 132, 52)
EARTH_YELLOW: Colour = (222, 204, 52)
SEALS: tuple[Colour, ...] = ((196, 40, 40), (38, 92, 190), (228, 190, 40), (60, 150, 70), (222, 222, 222))
CAST_IRON: tuple[Colour, ...] = ((44, 46, 48), (52, 66, 58), (70, 66, 62), (34, 36, 40), (86, 48, 40))
GREYS: tuple[Colour, ...] = ((142, 145, 147), (178, 180, 180), (104, 107, 110), (214, 214, 208))
