import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import cv2
import numpy as np
import pytest
from PIL import Image

from fusebus.vision import resize_to_model, thumbnail
from fusebus.vision.boards import draw_board


def decibels(first: np.ndarray, second: np.ndarray) -> float:
    error = np.mean((first.astype(float) - second) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


@lru_cache
def photo(width: int, height: int) -> np.ndarray:
    """A board with the noise of a sensor: without it every filter looks good."""
    board = cv2.resize(draw_board(3, (800, 600)).image, (width, height), interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(1).normal(0, 6, (height, width // 4 + 1, 3)).astype(np.float32)
    return np.clip(board + np.tile(noise, (1, 4, 1))[:, :width], 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "size",
    [
        (1201, 1597),
        (2401, 1803),
        (2567, 2166),
        (3200, 2400),
        (3200, 1800),
        (640, 480),
        (100, 150),
        (225, 3000),
        (1008, 1008),
    ],
)
@pytest.mark.parametrize("edge", [224, 336, 1008])
def test_the_model_sees_the_antialiased_picture_within_50_decibels(size: tuple[int, int], edge: int) -> None:
    rgb = photo(*size)
    exact = np.asarray(Image.fromarray(rgb).resize((edge, edge), Image.Resampling.BILINEAR))
    found = resize_to_model(rgb, edge)
    assert found.shape == (edge, edge, 3)
    assert found.dtype == np.uint8
    assert decibels(found, exact) >= 50


def test_a_photograph_of_12_million_pixels_keeps_50_decibels_at_the_full_models_size() -> None:
    rgb = photo(4032, 3024)
    exact = np.asarray(Image.fromarray(rgb).resize((1008, 1008), Image.Resampling.BILINEAR))
    assert decibels(resize_to_model(rgb, 1008), exact) >= 50
    assert decibels(resize_to_model(rgb[::-1, 1:], 1008), exact[::-1]) >= 30  # whatever its layout in memory


def test_threads_resize_side_by_side_and_get_what_one_alone_gets() -> None:
    pictures = [photo(700 + 10 * number, 600) for number in range(4)]
    alone = [resize_to_model(picture, 224) for picture in pictures]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda number: resize_to_model(pictures[number % 4], 224), range(40)))
    assert all(np.array_equal(found, alone[number % 4]) for number, found in enumerate(together))


def test_nothing_is_started_that_a_fork_would_break_until_a_picture_is_resized() -> None:
    code = "import sys, fusebus.vision; assert 'pyvips' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_row_of_pixels_is_enough() -> None:
    assert resize_to_model(np.zeros((1, 5_000, 3), np.uint8), 224).shape == (224, 224, 3)


def test_a_thumbnail_keeps_the_aspect_and_is_never_enlarged() -> None:
    assert thumbnail(photo(1600, 1200), 320).shape == (240, 320, 3)
    assert thumbnail(np.zeros((2_000, 3, 3), np.uint8), 200).shape == (200, 1, 3)
    small = np.zeros((60, 80, 3), np.uint8)
    assert thumbnail(small, 320).shape == small.shape
