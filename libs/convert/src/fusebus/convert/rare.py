"""What is not an ordinary JPEG: Pillow decodes it, libvips the TIFF that Pillow gets wrong."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from fusebus.convert import colours, profiles, tiff
from fusebus.convert.errors import Reason, Unconvertible
from fusebus.convert.picture import Palette, Picture, Samples
from fusebus.convert.upright import upright
from fusebus.vision.formats import MAX_PIXELS

_PNG_DEPTH_AT = 24
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")
_ORIENTATION = 274  # EXIF tag
_HOSTILE = (
    OSError,
    ValueError,
    SyntaxError,
    LookupError,
    TypeError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""Pillow documents OSError; hostile files bring out the others."""


def read(data: bytes, image_format: str = "", *, profile: bytes | None = None, orientation: int = 0) -> Picture:
    """The first picture; `profile` and `orientation` where the caller knows them better. Raises Unconvertible."""
    tags = None if image_format else tiff.directory(data)
    if tags is not None:
        _within_limits(tags.width, tags.height)
        try:
            tiff.refuse(tags)
            tiff.verify(data, tags)
            if tiff.is_for_libvips(tags):
                return tiff.read(data, tags)
        except _HOSTILE as error:
            raise Unconvertible(Reason.DAMAGED, f"tiff: {error}") from error
    with _opened(data, (image_format,) if image_format else FORMATS, tags) as image:
        found = (image.format or "").lower()
        try:
            turn = orientation or int(image.getexif().get(_ORIENTATION, 1))
            kept = profile or image.info.get("icc_profile")
            frames = int(getattr(image, "n_frames", 1))
            if image.format == "TIFF":
                turn = 1  # Pillow turns it when it loads
            image.load()
            if image.format == "PNG":
                _scale_clear_colour(image, data[_PNG_DEPTH_AT])
            picture = _converted(image, found, kept)
        except _HOSTILE as error:
            raise Unconvertible(Reason.DAMAGED, f"{found}: {error}") from error
    return Picture(
        samples=upright(picture.samples, turn), format=found, palette=picture.palette, icc=picture.icc, frames=frames
    )


def extent(data: bytes) -> tuple[int, bool]:
    """Width × height, and whether it is a TIFF of more than 8 bits a sample, by the header. Raises Unconvertible."""
    tags = tiff.directory(data)
    if tags is not None:
        _within_limits(tags.width, tags.height)
        return tags.width * tags.height, tags.bits > 8
    with _opened(data, FORMATS) as image:
        return image.width * image.height, False


def _opened(data: bytes, formats: tuple[str, ...], tags: tiff.Directory | None = None) -> Image.Image:
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow refuses twice as many itself
    try:
        image = Image.open(io.BytesIO(data), formats=[one.upper() for one in formats])
    except UnidentifiedImageError as error:
        if tags is not None:
            raise tiff.unsupported(tags) from error
        if data[:4] in tiff.FIRST_BYTES:
            raise Unconvertible(Reason.DAMAGED, "tiff: its directory can't be read") from error
        raise Unconvertible(Reason.NOT_AN_IMAGE, "no JPEG, PNG, WebP, TIFF, GIF or BMP by its first bytes") from error
    except Image.DecompressionBombError as error:
        raise Unconvertible(Reason.TOO_MANY_PIXELS, str(error)) from error
    except _HOSTILE as error:
        raise Unconvertible(Reason.DAMAGED, str(error)) from error
    _within_limits(image.width, image.height)
    return image


def _within_limits(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        text = f"{width} x {height} pixels, allowed are {MAX_PIXELS / 1e6:.0f} million"
        raise Unconvertible(Reason.TOO_MANY_PIXELS, text)


def _scale_clear_colour(image: Image.Image, depth: int) -> None:
    """Pillow scales grey of 2 and 4 bits to 8, but not the transparent one; of that only the lowest bits count."""
    clear = image.info.get("transparency")
    if image.mode == "L" and isinstance(clear, int):
        most = (1 << depth) - 1
        image.info["transparency"] = (clear & most) * 255 // most


def _converted(image: Image.Image, found: str, profile: bytes | None) -> Picture:
    """Samples in a mode that the targets have."""
    mode, space = image.mode, profiles.space(profile)
    if mode == "P":
        return Picture(samples=_samples(image), format=found, palette=_palette(image), icc=_rgb(profile))
    if mode.startswith("I;16"):
        return colours.described(_deep_grey(image), profile, found)
    if mode in ("CMYK", "LAB", "YCbCr", "HSV"):
        return Picture(samples=_samples(colours.managed(image, profile)), format=found)
    if mode in ("1", "L", "LA", "La"):
        grey = "LA" if mode in ("LA", "La") or image.has_transparency_data else "L"
        if space == "RGB":
            grey = "RGBA" if grey == "LA" else "RGB"
        icc = profile if space == ("RGB" if grey.startswith("RGB") else "GRAY") else None
        return Picture(samples=_samples(_in_mode(image, grey)), format=found, icc=icc)
    colour = "RGBA" if image.has_transparency_data else "RGB"
    return Picture(samples=_samples(_in_mode(image, colour)), format=found, icc=_rgb(profile))


def _deep_grey(image: Image.Image) -> Samples:
    """Of a PNG, with alpha where one grey is transparent, or of a TIFF of 12 bits, which are scaled to 16."""
    grey = _samples(image).astype(np.uint16)
    if image.format == "TIFF":
        return ((grey.astype(np.uint32) * 65_535 + 2_047) // 4_095).astype(np.uint16)
    clear = image.info.get("transparency")
    if clear is None:
        return grey
    return np.concatenate([grey, np.where(grey == clear, 0, 65_535).astype(np.uint16)], axis=2)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)


def _samples(image: Image.Image) -> Samples:
    samples = np.asarray(image)
    return samples.reshape(image.height, image.width, -1)


def _palette(image: Image.Image) -> Palette:
    clear = image.info.get("transparency", b"")
    if isinstance(clear, int):
        clear = b"\xff" * clear + b"\x00"
    colours = bytes(image.getpalette("RGB") or b"\x00\x00\x00")
    used = int(np.asarray(image).max()) + 1
    colours = colours.ljust(3 * used, b"\x00")  # an index behind the palette is black, as Pillow shows it
    return Palette(colours[:768], bytes(clear)[: len(colours) // 3])


def _rgb(profile: bytes | None) -> bytes | None:
    return profile if profiles.space(profile) == "RGB" else None
