"""Photos for deliveries: a few drawn boards, and as many variants of them as are wanted, no two with the same bytes."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np

from fusebus.vision import encode_jpeg
from fusebus.vision.boards import draw_board

FIRST_SEED = 910_000
DRAWN = 4
MARK = 16  # pixels: edge of the square that makes a variant


@cache
def _boards(size: tuple[int, int]) -> list[np.ndarray]:
    return [draw_board(FIRST_SEED + number, size).image for number in range(DRAWN)]


def write_photos(folder: Path, first: int, count: int, size: tuple[int, int] = (800, 600)) -> None:
    """Photos number `first` to `first + count - 1` of `size` pixels; the same number gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        picture = _boards(size)[number % DRAWN].copy()
        place = number // DRAWN
        left, top = MARK * (place % 40), MARK * (place // 40 % 30)
        picture[top : top + MARK, left : left + MARK] = (place * 7 % 256, place * 31 % 256, place * 101 % 256)
        (folder / f"photo-{number:05}.jpg").write_bytes(encode_jpeg(picture))


if __name__ == "__main__":
    # python tests/compose/delivery_photos.py FOLDER FIRST COUNT WIDTH HEIGHT
    write_photos(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), (int(sys.argv[4]), int(sys.argv[5])))
