"""A decoded picture as it is handed from reader to writer: numbers exactly as the source has them."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[Any]
"""uint8 or uint16, shape (height, width, channels): 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha; contiguous."""


class Palette(msgspec.Struct, frozen=True):
    """Colours that one-channel samples point to."""

    colours: bytes
    """RGB triples."""
    alpha: bytes = b""
    """Opacity of the first so many colours; the others are opaque."""


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """Upright samples, and what they mean."""

    samples: Samples
    format: str
    """What it was read from: `jpeg`, `png`, `webp`, `tiff`, `gif` or `bmp`."""
    palette: Palette | None = None
    icc: bytes | None = None
    """The ICC profile that the samples are in."""
    colour_chunks: tuple[tuple[bytes, bytes], ...] = ()
    """PNG's own colour description (sRGB, gAMA, cHRM, cICP): kind and content, as read."""
    frames: int = 1
    """Pictures in the file; the first is this one."""

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.samples.shape[1])

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.samples.shape[0])

    @property
    def mode(self) -> str:
        """As Pillow calls it: `L`, `LA`, `P`, `RGB`, `RGBA`, with `;16` behind for 16 bits."""
        if self.palette is not None:
            return "P"
        return ("L", "LA", "RGB", "RGBA")[self.samples.shape[2] - 1] + (";16" if self.samples.itemsize == 2 else "")


def true_colour(picture: Picture) -> Samples:
    """The samples as RGB or RGBA."""
    samples = picture.samples
    if picture.palette is not None:
        table = np.zeros((256, 3), np.uint8)
        colours = np.frombuffer(picture.palette.colours, np.uint8).reshape(-1, 3)
        table[: len(colours)] = colours
        if picture.palette.alpha:
            opacity = np.full((256, 1), 255, np.uint8)
            opacity[: len(picture.palette.alpha), 0] = np.frombuffer(picture.palette.alpha, np.uint8)
            table = np.hstack([table, opacity])
        return np.ascontiguousarray(table[samples[:, :, 0]])
    if samples.shape[2] == 1:
        return np.repeat(samples, 3, axis=2)
    if samples.shape[2] == 2:
        return np.ascontiguousarray(samples[:, :, (0, 0, 0, 1)])
    return samples
