import numpy as np
import pytest
from PIL import Image

from fusebus.vision import resize_to_model, thumbnail
from fusebus.vision.boards import draw_board


def decibels(first: np.ndarray, second: np.ndarray) -> float:
    error = np.mean((first.astype(float) - second) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def photo(width: int, height: int) -> np.ndarray:
    """A board with the noise of a sensor: without it every filter looks good."""
    noise = np.random.default_rng(1).normal(0, 6, (height, width, 3))
    return np.clip(draw_board(3, (width, height)).image + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(1201, 1597), (2401, 1803), (640, 480), (100, 150)])
@pytest.mark.parametrize("edge", [224, 336])
def test_the_model_sees_the_antialiased_picture_within_50_decibels(size: tuple[int, int], edge: int) -> None:
    rgb = photo(*size)
    exact = np.asarray(Image.fromarray(rgb).resize((edge, edge), Image.Resampling.BILINEAR))
    found = resize_to_model(rgb, edge)
    assert found.shape == (edge, edge, 3)
    assert found.dtype == np.uint8
    assert decibels(found, exact) >= 50


def test_one_row_of_pixels_is_enough() -> None:
    assert resize_to_model(np.zeros((1, 5_000, 3), np.uint8), 224).shape == (224, 224, 3)


def test_a_thumbnail_keeps_the_aspect_and_is_never_enlarged() -> None:
    assert thumbnail(photo(1600, 1200), 320).shape == (240, 320, 3)
    assert thumbnail(np.zeros((2_000, 3, 3), np.uint8), 200).shape == (200, 1, 3)
    small = np.zeros((60, 80, 3), np.uint8)
    assert thumbnail(small, 320).shape == small.shape
