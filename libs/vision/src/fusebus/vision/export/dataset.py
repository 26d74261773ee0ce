"""Owns the training pictures: boards drawn by number, squashed to the model's size, with their truth."""

from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fusebus.vision.boards import draw_board

MAX_INSTANCES = 4  # a board has no more fuse neutrals than this
TRAINING_SEED_BASE = 1_000_000  # seeds below are for evaluation, demos and tests: never trained on
_SIZES = ((448, 336), (448, 336), (448, 336), (896, 672))  # pixels; boards are drawn at these in turn


@dataclass(frozen=True)
class BoardSet:
    """Boards as arrays. All are indexed by board; instances beyond `counts` are zero.

    images: uint8 (n, size, size, 3), RGB. boxes: float32 (n, 4, 4), x1 y1 x2 y2 as shares of the picture.
    masks: uint8 (n, 4, mask_size, mask_size), share of each cell that the instance covers, times 255.
    counts: int64 (n,).
    """

    images: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    masks: NDArray[np.uint8]
    counts: NDArray[np.int64]


def squash(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The picture at `size` x `size` pixels, aspect ratio not kept, antialiased bilinear: what the model sees."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR), np.uint8)


def make_boards(seeds: Iterable[int], image_size: int, mask_size: int, processes: int = 1) -> BoardSet:
    """Draw one training example per seed, in the order of the seeds whatever the number of processes."""
    draw = partial(_example, image_size=image_size, mask_size=mask_size)
    if processes == 1:
        examples = [draw(seed) for seed in seeds]
    else:
        with ProcessPoolExecutor(processes, mp_context=get_context("forkserver")) as pool:
            examples = list(pool.map(draw, seeds, chunksize=50))
    images, boxes, masks, counts = zip(*examples, strict=True)
    return BoardSet(np.stack(images), np.stack(boxes), np.stack(masks), np.array(counts, np.int64))


def load_or_make_boards(path: Path, seeds: range, image_size: int, mask_size: int, processes: int) -> BoardSet:
    """The boards kept in `path` if they are those asked for, else new ones, which are then kept there."""
    wanted = np.array([seeds.start, seeds.stop, image_size, mask_size])
    if path.exists():
        with np.load(path) as kept:
            if np.array_equal(kept["wanted"], wanted):
                return load_boards(path)
    boards = make_boards(seeds, image_size, mask_size, processes)
    np.savez(path, wanted=wanted, images=boards.images, boxes=boards.boxes, masks=boards.masks, counts=boards.counts)
    return boards


def load_boards(path: Path) -> BoardSet:
    """The boards which load_or_make_boards kept in `path`."""
    with np.load(path) as kept:
        return BoardSet(kept["images"], kept["boxes"], kept["masks"], kept["counts"])


def _example(
    seed: int, image_size: int, mask_size: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8], int]:
    cv2.setNumThreads(1)
    width, height = _SIZES[seed % len(_SIZES)]
    board = draw_board(seed, (width, height))
    count = len(board.boxes)
    boxes = np.zeros((MAX_INSTANCES, 4), np.float32)
    masks = np.zeros((MAX_INSTANCES, mask_size, mask_size), np.uint8)
    boxes[:count] = board.boxes / np.array([width, height, width, height], np.float32)
    for index, mask in enumerate(board.masks):
        masks[index] = cv2.resize(mask.astype(np.uint8) * 255, (mask_size, mask_size), interpolation=cv2.INTER_AREA)
    return squash(board.image, image_size), boxes, masks, count
