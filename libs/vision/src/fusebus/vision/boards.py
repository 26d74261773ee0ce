"""Owns the synthetic photographs of electrical cut-outs, with the truth about every fuse neutral in them.

The demo's photos, the demo model's training pictures and its evaluation come from here. Only numpy and OpenCV are used.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fusebus.vision.board_cutouts import CutOuts
from fusebus.vision.board_drawing import Kind
from fusebus.vision.board_painter import SCENE_WIDTH, Stage, new_stage
from fusebus.vision.board_photography import look, photograph
from fusebus.vision.board_surroundings import Surroundings

_NEUTRAL_CHANCES = (0.1, 0.36, 0.27, 0.17, 0.1)  # of 0, 1, 2, 3 and 4 neutrals
_ASPECTS = ((4, 3), (4, 3), (4, 3), (3, 2), (16, 9), (3, 4))  # width to height; cameras and telephones
KINDS = 2 + max(Kind) - Kind.NEUTRALS_CONDUCTOR + 1  # of Board.kinds
_KIND_OF_OWNER = np.zeros(256, np.uint8)
_KIND_OF_OWNER[1 : len(_NEUTRAL_CHANCES)] = 1
_KIND_OF_OWNER[Kind.NEUTRALS_CONDUCTOR :] = np.arange(2, KINDS)
_PIXELS = (1e6, 12e6)  # the least and most of a photograph


@dataclass(frozen=True)
class Board:
    """One synthetic photo and its truth.

    image: uint8 (height, width, 3), RGB.
    boxes: float32 (n, 4), x1 y1 x2 y2 in pixels around the visible part of each fuse neutral (x2, y2 exclusive).
    masks: bool (n, height, width), the visible pixels of each fuse neutral.
    kinds: uint8 (height, width), what each pixel shows: 1 a fuse neutral, KINDS - 1 other kinds, 0 anything else.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    masks: NDArray[np.bool_]
    kinds: NDArray[np.uint8]


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
    stage = new_stage(random, SCENE_WIDTH * height / width, width / SCENE_WIDTH)
    paint(stage, int(random.choice(len(_NEUTRAL_CHANCES), p=_NEUTRAL_CHANCES)) if neutrals is None else neutrals)
    view, shares = look(stage, random)
    image, owner = photograph(stage.canvas, view, random, size)
    return _with_truth(image, owner, shares)


def photo_size(seed: int) -> tuple[int, int]:
    """Width and height in pixels of the photograph with that seed: 1 to 12 MP, shaped as cameras and telephones do."""
    random = np.random.default_rng(np.random.SeedSequence([0x51CE, seed]))
    across, down = _ASPECTS[random.integers(len(_ASPECTS))]
    pixels = np.exp(random.uniform(*np.log(_PIXELS)))
    unit = (pixels / (across * down)) ** 0.5
    return round(across * unit), round(down * unit)


def paint(stage: Stage, neutrals: int) -> None:
    """Everything that stands in front of the camera, back to front, with that many fuse neutrals."""
    random, surroundings, cut_outs = stage.random, Surroundings(stage), CutOuts(stage)
    surroundings.wall()
    surroundings.backboard()
    number = max(1, neutrals) + int(random.random() < (0.5, 0.25, 0.25, 0.2, 0.0)[neutrals])
    has_neutral = np.zeros(number, bool)
    has_neutral[random.permutation(number)[:neutrals]] = True
    rows = 2 if number == 4 and random.random() < 0.6 else 1
    columns = -(-number // rows)
    for row in range(rows):
        above = [surroundings.above(column, columns, row, rows) for column in range(columns)]
        for column, (ends, _) in enumerate(above):
            cut_outs.cut_out(column, columns, row, rows, bool(has_neutral[row * columns + column]), ends)
        for _, paint in above:  # in front of the tails that go into it
            paint()
    surroundings.clutter()


def _with_truth(image: NDArray[np.uint8], owner: NDArray[np.uint8], shares: list[float]) -> Board:
    masks = [owner == number for number, share in enumerate(shares, start=1) if share > 0.5]
    masks = [mask for mask in masks if mask.sum() >= 4]
    boxes = [cv2.boundingRect(mask.astype(np.uint8)) for mask in masks]
    corners = [(x, y, x + width, y + height) for x, y, width, height in boxes]
    return Board(
        image,
        np.array(corners, np.float32).reshape(-1, 4),
        np.array(masks, np.bool_).reshape(-1, *owner.shape),
        np.asarray(_KIND_OF_OWNER[owner], np.uint8),
    )
