"""Any picture file's bytes to upright samples, at the depth and in the colours that the file has."""

from __future__ import annotations

import contextlib

import cv2
import msgspec
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from fusebus.convert import colours, profiles, rare
from fusebus.convert.errors import Reason, Unconvertible, of_image_error
from fusebus.convert.picture import Picture, Samples
from fusebus.convert.upright import upright
from fusebus.validation.integrity import verify_jpeg, verify_webp
from fusebus.validation.look import Look, look
from fusebus.validation.png_data import verified_png
from fusebus.vision.errors import Damaged, ImageError
from fusebus.vision.formats import MAX_PIXELS, PNG_SIGNATURE, inspect, is_jpeg, png_chunks
from fusebus.vision.stills import jpeg_still, png_still, webp_still, without_padding

SCRATCH_BYTES = 64 << 20
"""Most memory that a Scratch keeps between pictures; a larger picture gets memory of its own."""
_COLOUR_CHUNKS = frozenset({b"sRGB", b"gAMA", b"cHRM", b"cICP"})


class Scratch:
    """Memory for decoded JPEG that is used again: fresh pages cost as much as a tenth of the decoding."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def of(self, size: int) -> NDArray[np.uint8] | None:
        """At least `size` bytes, valid until the next call; None for more than is kept."""
        if size > SCRATCH_BYTES:
            return None
        if self._memory.size < size:
            self._memory = np.empty(size, np.uint8)
        return self._memory


def read(data: bytes, scratch: Scratch | None = None) -> Picture:
    """The first picture of a JPEG, PNG, WebP, TIFF, GIF or BMP file, strictly decoded and upright.

    With `scratch` the samples may lie in it: one thread at a time, one picture at a time. Raises Unconvertible.
    """
    try:
        if is_jpeg(data):
            return _jpeg(data, scratch)
        if data[:8] == PNG_SIGNATURE:
            return _png(data)
        if _is_webp(data):
            return _webp(data)
        return rare.read(data)
    except ImageError as error:
        raise of_image_error(error) from error
    except MemoryError as error:
        raise Unconvertible(Reason.MEMORY, "there is not enough memory for its pixels") from error


def _jpeg(data: bytes, scratch: Scratch | None) -> Picture:
    found = look(data, heif=False)
    header = found.header
    verify_jpeg(data, header, found.kind, found.segments)
    profile = profiles.of_jpeg(data)
    try:
        height, width, colours = _jpeg_header(data, found)
        if (height, width) != (header.height, header.width):
            raise Damaged("jpeg has two different frame headers")
        if colours in ("CMYK", "YCCK"):
            simplejpeg.decode_jpeg(data, "CMYK", strict=True)  # Pillow converts the colours but forgives damage
            return rare.read(data, "jpeg", profile=profile, orientation=header.orientation)
        grey = colours == "Gray" and profiles.space(profile) != "RGB"
        samples = _decoded(data, found, (height, width, 1 if grey else 3), scratch)
    except ValueError as error:
        raise Damaged(f"jpeg: {error}") from error
    wanted = "GRAY" if grey else "RGB"
    return Picture(
        samples=upright(samples, header.orientation),
        format="jpeg",
        icc=profile if profiles.space(profile) == wanted else None,
    )


def _jpeg_header(data: bytes, found: Look) -> tuple[int, int, str]:
    """Height, width and colours as the decoder has them. Raises ValueError."""
    try:
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        except ValueError:  # perhaps of what lies between the segments that make the picture
            height, width, colours, _ = simplejpeg.decode_jpeg_header(jpeg_still(data, found.segments))
    except KeyError:  # a sampling that it decodes and has no name for, 4:4:1; only YCbCr is sampled like that
        return found.header.height, found.header.width, "YCbCr"
    return height, width, colours


def _decoded(data: bytes, found: Look, shape: tuple[int, int, int], scratch: Scratch | None) -> Samples:
    """What ingest takes for sound is sound here: loose bytes between segments, zeros before the end. Raises ValueError
    for any other complaint of the decoder."""
    memory = scratch.of(shape[0] * shape[1] * shape[2]) if scratch is not None else None
    colours = "GRAY" if shape[2] == 1 else "RGB"
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, colours, strict=True, buffer=memory))
    except ValueError:
        still = jpeg_still(data, found.segments)
        for sound in filter(None, (still, without_padding(still))):
            with contextlib.suppress(ValueError):
                return np.asarray(simplejpeg.decode_jpeg(sound, colours, strict=True, buffer=memory))
        raise


def _png(data: bytes) -> Picture:
    header = look(data, heif=False).header
    still, depth, colour = png_still(verified_png(data)), data[24], data[25]
    profile = profiles.of_png(data)
    frames = 1 + sum(chunk.kind == b"fdAT" for chunk in png_chunks(data))
    if depth == 16 and colour in (2, 4, 6):
        picture = colours.described(upright(_deep_png(still, colour), header.orientation), profile, "png")
    else:
        picture = rare.read(still, "png", profile=profile, orientation=header.orientation)
    if picture.icc is None:
        chunks = [chunk for chunk in png_chunks(data) if chunk.kind in _COLOUR_CHUNKS]
        content = tuple((one.kind, data[one.start : one.start + one.length]) for one in chunks)
        picture = _with(picture, colour_chunks=content)
    return _with(picture, frames=min(frames, 2))


def _deep_png(still: bytes, colour: int) -> Samples:
    """RGB or RGBA of 16 bits; OpenCV gives a transparent colour its alpha."""
    try:
        pixels = cv2.imdecode(np.frombuffer(still, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise Damaged(f"png: {str(error).strip()[:200]}") from error
    if pixels is None or pixels.dtype != np.uint16:
        raise Damaged("png: its pixel data can't be decoded")
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA)
        return np.ascontiguousarray(pixels[:, :, (0, 3)]) if colour == 4 else np.asarray(pixels)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def _webp(data: bytes) -> Picture:
    header = look(data, heif=False).header
    verify_webp(data)
    still = webp_still(data)
    file = data if still.animated else still.file()
    picture = rare.read(file, "webp", profile=profiles.of_webp(data), orientation=header.orientation)
    return _with(picture, frames=2 if still.animated else 1)


def _with(picture: Picture, **changes: object) -> Picture:
    return msgspec.structs.replace(picture, **changes)


def extent(data: bytes) -> tuple[int, bool]:
    """Width × height, at most MAX_PIXELS, and whether a sample has 16 bits, as the header says; decodes nothing.

    0 where `read` finds no header that it takes either.
    """
    try:
        if is_jpeg(data):
            with contextlib.suppress(ValueError, KeyError):  # see _jpeg_header
                height, width, _, _ = simplejpeg.decode_jpeg_header(data)  # without a look at the whole file
                return min(int(height) * int(width), MAX_PIXELS), False
        elif data[:8] != PNG_SIGNATURE and not _is_webp(data):
            return rare.extent(data)
        header = inspect(data)
        return header.width * header.height, header.format == "png" and data[24:25] == b"\x10"
    except (ImageError, Unconvertible):
        return 0, False


def _is_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"
