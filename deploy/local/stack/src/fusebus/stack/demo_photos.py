"""The demo's delivery: 24 files as a supplier might send them, 20 of them sound and different."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fusebus.vision import encode_jpeg
from fusebus.vision.boards import draw_board

SOUND = 20
SIZE = (1600, 1200)  # pixels
FIRST_SEED = 900_001
"""Boards that the demo model never saw: training and evaluation use other seeds."""
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
    """Write the files into `folder`; `on_photo` is told how many of how many are done. The same files each time."""
    folder.mkdir(parents=True, exist_ok=True)
    total = SOUND + 4
    photos = []
    for number in range(SOUND):
        photos.append(encode_jpeg(draw_board(FIRST_SEED + number, SIZE).image))
        on_photo(number + 1, total)
    files = {f"cut-out-{number:02}.jpg": data for number, data in enumerate(photos, start=1)}
    files["cut-out-21-truncated.jpg"] = _truncated(encode_jpeg(draw_board(FIRST_SEED + SOUND, SIZE).image))
    files["cut-out-22-zeroed.jpg"] = _zeroed(encode_jpeg(draw_board(FIRST_SEED + SOUND + 1, SIZE).image))
    files["cut-out-23-notes.jpg"] = b"Meter reading 48213, seal intact, neighbour has the key.\n" * 40
    files["cut-out-24-sent-twice.jpg"] = photos[4]
    for name, data in files.items():
        (folder / name).write_bytes(data)
    on_photo(total, total)
    return Delivery(folder, total, total - SOUND)


def _truncated(data: bytes) -> bytes:
    """An upload that broke off."""
    return data[: int(len(data) * TRUNCATED_TO)]


def _zeroed(data: bytes) -> bytes:
    """A bad memory card: a stretch of zeros inside."""
    start, end = int(len(data) * ZEROED.start), int(len(data) * ZEROED.stop)
    return data[:start] + bytes(end - start) + data[end:]
