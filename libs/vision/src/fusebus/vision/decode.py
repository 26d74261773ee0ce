"""Turns an image file's bytes into upright RGB pixels, or says exactly why it cannot."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from fusebus.vision.errors import Damaged
from fusebus.vision.formats import (
    MAX_PIXELS,
    ImageHeader,
    Segment,
    inspect,
    is_jpeg,
    jpeg_components,
    jpeg_segments,
    verify_png_checksums,
)
from fusebus.vision.stills import (
    STRIP_ROWS,
    decode_png,
    decode_webp,
    decodes_fast,
    jpeg_still,
    png_still,
    without_padding,
)

Pixels = NDArray[np.uint8]
"""RGB, shape (height, width, 3)."""
Shrink = Literal[1, 2, 4, 8]
"""How many times smaller than stored: what a JPEG's blocks of 8 × 8 can be decoded to."""
CMYK_COMPONENTS = 4
_SHRINKS: tuple[Shrink, ...] = (2, 4, 8)


def decode(
    data: bytes,
    orientation: int | None = None,
    shrink: Shrink = 1,
    *,
    checked: bool = False,
    segments: Sequence[Segment] | None = None,
    memory: NDArray[np.uint8] | None = None,
) -> Pixels:
    """RGB pixels uint8 (height, width, 3), EXIF orientation applied (or the one given), transparency laid on white.

    Strict: a file that a lenient viewer would half show is refused. Releases the GIL while it decodes. Halved colours
    of a JPEG (4:2:0, 4:2:2, 4:4:0) are repeated, not interpolated: a tenth faster, and written as 4:2:0 again they are
    nearly what they were. With `shrink` both edges are divided by it and rounded up; a JPEG is decoded to that size, in
    half the time at 2 and in a quarter of the memory. `checked`: the checksums of a PNG were found right already.
    `segments`: see `inspect`. `memory`: the pixels of a JPEG may lie there if there is room.
    Raises NotAnImage, TooManyPixels, TooComplex, Damaged.
    """
    if segments is None and is_jpeg(data):
        segments = jpeg_segments(data)
    header = inspect(data, segments)
    if header.format == "png" and not checked:
        verify_png_checksums(data)  # decoders skip some
    pixels = _decoded(data, header, shrink, segments or (), memory)
    if pixels.shape != (*shrunk(header.height, header.width, shrink), 3):
        raise Damaged(f"header says {header.width} x {header.height} pixels, the data has {pixels.shape[1::-1]}")
    return _upright(pixels, orientation or header.orientation)


def shrink_for(width: int, height: int, most_pixels: int, least_edge: int) -> Shrink:
    """The least reduction to at most `most_pixels` that leaves both edges at least `least_edge`; 0 `most_pixels`: 1.

    Where the two can't be had together, the edge is kept.
    """
    chosen: Shrink = 1
    for shrink in _SHRINKS:
        rows, columns = shrunk(height, width, chosen)
        if not most_pixels or rows * columns <= most_pixels or min(shrunk(height, width, shrink)) < least_edge:
            break
        chosen = shrink
    return chosen


def shrunk(height: int, width: int, shrink: Shrink) -> tuple[int, int]:
    """Height and width in pixels after the division by `shrink`."""
    return -(height // -shrink), -(width // -shrink)


def _decoded(
    data: bytes, header: ImageHeader, shrink: Shrink, segments: Sequence[Segment], memory: NDArray[np.uint8] | None
) -> Pixels:
    if header.format == "jpeg":
        still = jpeg_still(data, segments)
        if jpeg_components(data, segments) != CMYK_COMPONENTS:
            return _decode_jpeg(still, header, shrink, memory)
        pixels = _decode_cmyk(still)
    else:
        pixels = _decoded_whole(data, header)
    if shrink == 1 or pixels.shape[:2] != (header.height, header.width):  # another size than its header's is found out
        return pixels
    rows, columns = shrunk(header.height, header.width, shrink)
    return np.asarray(cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _decoded_whole(data: bytes, header: ImageHeader) -> Pixels:
    if header.format == "webp":
        return decode_webp(data)
    return decode_png(data) if decodes_fast(data) else _decode_with_pillow(png_still(data), "png")


def _decode_jpeg(still: bytes, header: ImageHeader, shrink: Shrink, memory: NDArray[np.uint8] | None) -> Pixels:
    height, width = shrunk(header.height, header.width, shrink)
    enough = memory is not None and memory.size >= 3 * height * width
    return _strictly(still, "RGB", height if shrink > 1 else 0, width if shrink > 1 else 0, memory if enough else None)


def _decode_cmyk(still: bytes) -> Pixels:
    _strictly(still, "CMYK")  # Pillow converts the colours but forgives damage
    return _decode_with_pillow(still, "jpeg")


def _strictly(
    still: bytes,
    colours: Literal["RGB", "CMYK"],
    height: int = 0,
    width: int = 0,
    memory: NDArray[np.uint8] | None = None,
) -> Pixels:
    """At least so high and wide, 0: as it is. Any complaint of the decoder, but of zeros at the end, is damage."""
    try:
        return _turbo(still, colours, height, width, memory)
    except ValueError as error:
        if (unpadded := without_padding(still)) is not None:
            with contextlib.suppress(ValueError):
                return _turbo(unpadded, colours, height, width, memory)
        raise Damaged(f"jpeg: {error}") from error


def _turbo(
    jpeg: bytes, colours: Literal["RGB", "CMYK"], height: int, width: int, memory: NDArray[np.uint8] | None
) -> Pixels:
    return np.asarray(
        simplejpeg.decode_jpeg(
            jpeg,
            colours,
            fastupsample=True,
            min_height=height,
            min_width=width,
            min_factor=1,
            buffer=memory,
            strict=True,
        )
    )


def _decode_with_pillow(data: bytes, image_format: str) -> Pixels:
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # formats.inspect has refused more already; Pillow would warn from 89 million
    try:
        with Image.open(io.BytesIO(data), formats=[image_format.upper()]) as image:
            return _rgb(image)
    # Pillow documents OSError; hostile files bring out the others.
    except (OSError, ValueError, SyntaxError, IndexError, KeyError, TypeError, OverflowError, EOFError) as error:
        raise Damaged(f"{image_format}: {error}") from error


def _rgb(image: Image.Image) -> Pixels:
    """Eight-bit RGB of the first frame, converted in strips: whole copies would cost four bytes a pixel each."""
    image.load()
    out = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, STRIP_ROWS):
        bottom = min(top + STRIP_ROWS, image.height)
        out[top:bottom] = np.asarray(_rgb_strip(image.crop((0, top, image.width, bottom))))
    return out


def _rgb_strip(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip it to white
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured).convert("RGB")
    return image.convert("RGB")


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """The picture as a person shall see it; the eight cases are those of EXIF 2.3, tag 0x0112."""
    match orientation:
        case 2:
            turned = cv2.flip(pixels, 1)
        case 3:
            turned = cv2.rotate(pixels, cv2.ROTATE_180)
        case 4:
            turned = cv2.flip(pixels, 0)
        case 5:
            turned = cv2.transpose(pixels)
        case 6:
            turned = cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE)
        case 7:
            turned = cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180)
        case 8:
            turned = cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE)
        case _:
            return pixels
    return np.asarray(turned, dtype=np.uint8)
