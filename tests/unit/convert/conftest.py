"""Odd pictures of every kind, and what they must look like."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from picture_bytes import board
from PIL import Image, ImageOps

Samples = NDArray[Any]


def _shown(data: bytes) -> Image.Image:
    image: Image.Image = Image.open(io.BytesIO(data))
    image.load()
    return image if image.format == "TIFF" else ImageOps.exif_transpose(image)


@pytest.fixture(scope="session")
def shown() -> Callable[[bytes], Image.Image]:
    """The picture as Pillow decodes it, upright: the reference."""
    return _shown


@pytest.fixture(scope="session")
def same_pixels() -> Callable[[bytes, bytes], None]:
    """Asserts that two files of 8 bits a colour show the same pixels, transparent ones' colours included."""

    def assert_same(source: bytes, made: bytes) -> None:
        one, two = _shown(source), _shown(made)
        assert one.size == two.size
        mode = "RGBA" if one.has_transparency_data or two.has_transparency_data else "RGB"
        np.testing.assert_array_equal(np.asarray(one.convert(mode)), np.asarray(two.convert(mode)))

    return assert_same


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    """Soft areas, edges and grain, 97 × 61."""
    return Image.fromarray(board(97, 61))


@pytest.fixture(scope="session")
def file(picture: Image.Image) -> Callable[..., bytes]:
    """`file("JPEG", mode="L", quality=80)`: the picture as Pillow writes it."""

    def saved(image_format: str, mode: str = "RGB", image: Image.Image = picture, **options: Any) -> bytes:
        out = io.BytesIO()
        (image if image.mode == mode else image.convert(mode)).save(out, image_format, **options)
        return out.getvalue()

    return saved


@pytest.fixture
def resident_megabytes() -> Callable[[], float]:
    """Memory of this process that is in use now."""

    def read() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    return read
