"""The demo's delivery: 24 files as a supplier might send them, 20 of them sound and different."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from fusebus.vision import encode_jpeg
from fusebus.vision.boards import draw_board

SOUND = 20
SIZE = (1600, 1200)  # pixels
FIRST_SEED = 900_002
"""Boards that the demo model never saw: training and evaluation use other seeds. It counts these 20 right; it errs on
one in thirty."""
TRUNCATED_TO = 0.6
ZEROED = slice(0.45, 0.55)


@dataclass(frozen=True)
class Delivery:
    """What was made, and what must become of it."""

    folder: Path
    images: int
    to_be_rejected: int
    """Damaged, not an image, or a duplicate."""


def make_delivery(folder: Path, on_photo: Callable[[int, int], None] = lambda done, total: None) -> Delivery:
    """Write the files into `folder`; `on_photo` is told how many of how many are drawn. The same files each time."""
    folder.mkdir(parents=True, exist_ok=True)
    photos: list[bytes] = []
    # A fresh interpreter for each core: drawing takes 0.6 s a photo, and a fork would copy the console's threads.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for photo in pool.map(_photo, range(FIRST_SEED, FIRST_SEED + SOUND + 2)):
            photos.append(photo)
            on_photo(len(photos), SOUND + 2)
    files = {f"cut-out-{number:02}.jpg": data for number, data in enumerate(photos[:SOUND], start=1)}
    files["cut-out-21-truncated.jpg"] = _truncated(photos[SOUND])
    files["cut-out-22-zeroed.jpg"] = _zeroed(photos[SOUND + 1])
    files["cut-out-23-notes.jpg"] = b"Meter reading 48213, seal intact, neighbour has the key.\n" * 40
    files["cut-out-24-sent-twice.jpg"] = photos[4]
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return Delivery(folder, len(files), len(files) - SOUND)


def _photo(seed: int) -> bytes:
    return encode_jpeg(draw_board(seed, SIZE).image)


def _truncated(data: bytes) -> bytes:
    """An upload that broke off."""
    return data[: int(len(data) * TRUNCATED_TO)]


def _zeroed(data: bytes) -> bytes:
    """A bad memory card: a stretch of zeros inside."""
    start, end = int(len(data) * ZEROED.start), int(len(data) * ZEROED.stop)
    return data[:start] + bytes(end - start) + data[end:]
