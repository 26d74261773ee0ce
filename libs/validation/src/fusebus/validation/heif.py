"""HEIC and HEIF: the size that the boxes declare, and decoding by pillow-heif where it is installed and switched on."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusebus.vision import Damaged, TooComplex

MAX_SIZE_BOXES = 2_000
"""Each picture, tile and preview in the file states its size once."""
MAX_BOX_BYTES = 1_000_000
"""Of the description at the front of the file."""

_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"heif"})


def is_heif(data: bytes) -> bool:
    """By the first bytes: a file type box with one of HEIF's brands (AVIF, which shares `mif1`, is another)."""
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, min(int.from_bytes(data[:4], "big"), 64), 4))}
    return data[4:8] == b"ftyp" and bool(brands & _BRANDS) and not any(one.startswith(b"avi") for one in brands)


def heif_size(data: bytes) -> tuple[int, int]:
    """The largest width and height that any part declares. Raises Damaged, TooComplex."""
    start = data.find(b"meta", 0, MAX_BOX_BYTES)
    if start < 4:
        raise Damaged("heif has no description")
    end = start - 4 + min(int.from_bytes(data[start - 4 : start], "big"), MAX_BOX_BYTES)
    if end > len(data):
        raise Damaged("heif is cut short")
    width, height, position = 0, 0, start
    for _ in range(MAX_SIZE_BOXES):
        position = data.find(b"ispe", position, end)
        if position < 0:
            break
        width = max(width, int.from_bytes(data[position + 8 : position + 12], "big"))
        height = max(height, int.from_bytes(data[position + 12 : position + 16], "big"))
        position += 4
    else:
        raise TooComplex(f"heif has more than {MAX_SIZE_BOXES} parts")
    if width < 1 or height < 1:
        raise Damaged("heif states no size")
    return width, height


def prepare() -> None:
    """Load the decoder, before a child that may open no file needs it. Raises ImportError where it is not installed."""
    _library()


def decode_heif(data: bytes) -> tuple[NDArray[np.uint8], bytes]:
    """Upright RGB pixels of the main picture, and its EXIF block. Raises Damaged."""
    library = _library()
    try:
        picture = library.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
        image = picture.to_pillow()
        exif = picture.info.get("exif") or b""
        return np.array(image.convert("RGB")), exif
    except (OSError, ValueError, SyntaxError, IndexError, KeyError, EOFError, RuntimeError) as error:
        raise Damaged(f"heif: {error}") from error


def _library() -> Any:
    import pillow_heif

    pillow_heif.options.DECODE_THREADS = 1  # a child may start no thread
    pillow_heif.options.ALLOW_INCORRECT_HEADERS = False
    return pillow_heif
