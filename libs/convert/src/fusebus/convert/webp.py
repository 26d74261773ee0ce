"""Writes lossless WebP, transparent pixels' colours included."""

from __future__ import annotations

import io

from PIL import Image

from fusebus.convert.errors import Reason, Unconvertible
from fusebus.convert.picture import Picture, true_colour

LONGEST_EDGE = 16_383  # pixels, of the format
FAST = {"method": 0, "quality": 20}
SMALL = {"method": 4, "quality": 75}


def encode_webp(picture: Picture, *, small: bool = False) -> bytes:
    """The picture as lossless WebP: RGB or RGBA of 8 bits. Raises Unconvertible for what that can't hold."""
    if picture.samples.itemsize != 1:
        raise Unconvertible(Reason.UNSUPPORTED_DEPTH, "WebP holds 8 bits a colour, this picture has 16; take PNG")
    if max(picture.width, picture.height) > LONGEST_EDGE:
        raise Unconvertible(
            Reason.UNSUPPORTED_SIZE,
            f"{picture.width} x {picture.height} pixels; WebP's longest edge is {LONGEST_EDGE}; take PNG",
        )
    out = io.BytesIO()
    options = {**(SMALL if small else FAST), **({"icc_profile": picture.icc} if picture.icc else {})}
    Image.fromarray(true_colour(picture)).save(out, "WEBP", lossless=True, exact=True, **options)
    return out.getvalue()
