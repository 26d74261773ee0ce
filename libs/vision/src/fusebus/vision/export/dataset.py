"""Owns the synthetic training pictures: boards drawn by number, squashed to the model's size, with their truth."""

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fusebus.vision.boards import draw_board, photo_size

MAX_INSTANCES = 4  # a board has no more fuse neutrals than this
TRAINING_SEED_BASE = 1_000_000  # seeds below are for evaluation, demos and tests: never trained on
_PIXELS = (*7 * (150_000,), 600_000)  # boards to train on are drawn this large in turn, in all photos' shapes
_GENERATION = 3  # of the board generator: kept pictures of another one are drawn anew
_BLOCK = 500  # boards drawn between two notes of progress, so that an interrupted drawing goes on where it was

Example = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]
Drawn = tuple[Example, NDArray[np.uint8]]  # with what each cell shows


@dataclass(frozen=True)
class Examples:
    """Pictures with their truth as arrays; instances beyond `counts` are zero. M: the most instances of a picture.

    images: uint8 (n, size, size, 3), RGB. boxes: float32 (n, M, 4), x1 y1 x2 y2 as shares of the picture.
    masks: uint8 (n, M, mask_size, mask_size), share of each cell that the instance covers, times 255.
    counts: int64 (n,). kinds: uint8 (n, mask_size, mask_size), what each cell shows (Board.kinds); 0 where unknown.
    """

    images: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    masks: NDArray[np.uint8]
    counts: NDArray[np.int64]
    kinds: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, index: NDArray[np.int64]) -> "Examples":
        """The pictures of these numbers, read now."""
        return Examples(self.images[index], self.boxes[index], self.masks[index], self.counts[index], self.kinds[index])


def squash(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The picture at `size` x `size` pixels, aspect ratio not kept, antialiased bilinear: what the model sees."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR), np.uint8)


def make_boards(seeds: Iterable[int], image_size: int, mask_size: int) -> Examples:
    """Draw one example per seed, in the order of the seeds."""
    drawn = [_example(seed, image_size, mask_size) for seed in seeds]
    return replace(
        gathered([example for example, _ in drawn], mask_size), kinds=np.stack([kinds for _, kinds in drawn])
    )


def gathered(examples: Sequence[Example], mask_size: int) -> Examples:
    """Examples (image, boxes (m, 4), masks (m, ...)) of different m, as one."""
    counts = np.array([len(boxes) for _, boxes, _ in examples], np.int64)
    most = max(1, int(counts.max(initial=0)))
    boxes = np.zeros((len(examples), most, 4), np.float32)
    masks = np.zeros((len(examples), most, mask_size, mask_size), np.uint8)
    for row, (_, its_boxes, its_masks) in enumerate(examples):
        boxes[row, : counts[row]] = its_boxes
        masks[row, : counts[row]] = its_masks
    kinds = np.zeros((len(examples), mask_size, mask_size), np.uint8)
    return Examples(np.stack([image for image, _, _ in examples]), boxes, masks, counts, kinds)


def keep_boards(folder: Path, seeds: range, image_size: int, mask_size: int, processes: int) -> None:
    """Draw the boards of `seeds` into `folder`, unless it has them already; an interrupted drawing is continued."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {"generation": _GENERATION, "seeds": [seeds.start, seeds.stop], "sizes": [image_size, mask_size]}
    note = folder / "boards.json"
    found = json.loads(note.read_text()) if note.exists() else {}
    done = int(found.get("done", 0)) if {**found, "done": 0} == {**wanted, "done": 0} else 0
    arrays = _arrays(folder, len(seeds), image_size, mask_size, new=done == 0)
    draw = partial(_example, image_size=image_size, mask_size=mask_size)
    if done == len(seeds):
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("forkserver")) as pool:
        while done < len(seeds):
            block = seeds[done : done + _BLOCK]
            for row, ((image, boxes, masks), kinds) in enumerate(pool.map(draw, block, chunksize=25), start=done):
                arrays.images[row], arrays.counts[row], arrays.kinds[row] = image, len(boxes), kinds
                arrays.boxes[row, : len(boxes)], arrays.masks[row, : len(boxes)] = boxes, masks
            done += len(block)
            note.write_text(json.dumps({**wanted, "done": done}))


def kept_boards(folder: Path) -> Examples:
    """The boards which keep_boards left in `folder`, mapped into memory."""
    note = json.loads((folder / "boards.json").read_text())
    image_size, mask_size = note["sizes"]
    return _arrays(folder, note["seeds"][1] - note["seeds"][0], image_size, mask_size, new=False)


def _arrays(folder: Path, number: int, image_size: int, mask_size: int, *, new: bool) -> Examples:
    def array(name: str, kind: type[np.generic], *shape: int) -> Any:
        path = folder / f"{name}.npy"
        if new:
            return np.lib.format.open_memmap(path, "w+", dtype=kind, shape=(number, *shape))
        return np.load(path, mmap_mode="r+")

    return Examples(
        array("images", np.uint8, image_size, image_size, 3),
        array("boxes", np.float32, MAX_INSTANCES, 4),
        array("masks", np.uint8, MAX_INSTANCES, mask_size, mask_size),
        array("counts", np.int64),
        array("kinds", np.uint8, mask_size, mask_size),
    )


def _example(seed: int, image_size: int, mask_size: int) -> Drawn:
    cv2.setNumThreads(1)
    board = draw_board(seed, _size(seed))
    height, width = board.image.shape[:2]
    masks = np.zeros((len(board.boxes), mask_size, mask_size), np.uint8)
    for index, mask in enumerate(board.masks):
        masks[index] = cv2.resize(mask.astype(np.uint8) * 255, (mask_size, mask_size), interpolation=cv2.INTER_AREA)
    boxes = (board.boxes / np.array([width, height] * 2, np.float32)).astype(np.float32)
    kinds = cv2.resize(board.kinds, (mask_size, mask_size), interpolation=cv2.INTER_NEAREST_EXACT)
    return (squash(board.image, image_size), boxes, masks), np.asarray(kinds, np.uint8)


def _size(seed: int) -> tuple[int, int]:
    width, height = photo_size(seed)
    factor = (_PIXELS[seed % len(_PIXELS)] / (width * height)) ** 0.5
    return round(width * factor), round(height * factor)
