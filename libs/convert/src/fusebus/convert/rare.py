"""What is not an ordinary JPEG: Pillow decodes it, libvips where Pillow would cut 16 bits to 8."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pyvips
from PIL import Image, ImageCms, UnidentifiedImageError

from fusebus.convert import profiles
from fusebus.convert.errors import Reason, Unconvertible
from fusebus.convert.picture import Palette, Picture, Samples
from fusebus.convert.upright import upright
from fusebus.vision.formats import MAX_PIXELS

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")
_BITS, _ORIENTATION, _SAMPLE_FORMAT = 258, 274, 339  # TIFF tags
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
    with _opened(data, (image_format,) if image_format else FORMATS) as image:
        found = (image.format or "").lower()
        try:
            deep = image.format == "TIFF" and _depth(image) == 16 and image.mode in ("RGB", "RGBA")
            turn = orientation or int(image.getexif().get(_ORIENTATION, 1))
            kept = profile or image.info.get("icc_profile")
            frames = int(getattr(image, "n_frames", 1))
            if deep:
                return Picture(samples=upright(_deep_tiff(data), turn), format=found, icc=_rgb(kept), frames=frames)
            if image.format == "TIFF":
                turn = 1  # Pillow turns it when it loads
            image.load()
            picture = _converted(image, found, kept)
        except _HOSTILE as error:
            raise Unconvertible(Reason.DAMAGED, f"{found}: {error}") from error
    return Picture(
        samples=upright(picture.samples, turn), format=found, palette=picture.palette, icc=picture.icc, frames=frames
    )


def extent(data: bytes) -> tuple[int, bool]:
    """Width × height, and whether it is a TIFF of 16 bits a sample, by the header. Raises Unconvertible."""
    with _opened(data, FORMATS) as image:
        try:
            return image.width * image.height, image.format == "TIFF" and _depth(image) == 16
        except _HOSTILE as error:
            raise Unconvertible(Reason.DAMAGED, f"{image.format}: {error}") from error


def _opened(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow refuses twice as many itself
    try:
        image = Image.open(io.BytesIO(data), formats=[one.upper() for one in formats])
    except UnidentifiedImageError as error:
        raise Unconvertible(Reason.NOT_AN_IMAGE, "no JPEG, PNG, WebP, TIFF, GIF or BMP by its first bytes") from error
    except Image.DecompressionBombError as error:
        raise Unconvertible(Reason.TOO_MANY_PIXELS, str(error)) from error
    except _HOSTILE as error:
        raise Unconvertible(Reason.DAMAGED, str(error)) from error
    if image.width * image.height > MAX_PIXELS:
        text = f"{image.width} x {image.height} pixels, allowed are {MAX_PIXELS / 1e6:.0f} million"
        raise Unconvertible(Reason.TOO_MANY_PIXELS, text)
    return image


def _depth(image: Image.Image) -> int:
    """Bits of a sample of a TIFF, the widest."""
    bits = image.tag_v2.get(_BITS, (8,))  # type: ignore[attr-defined]
    return max(bits) if isinstance(bits, tuple) else int(bits)


def _deep_tiff(data: bytes) -> Samples:
    try:
        image = pyvips.Image.new_from_buffer(data, "", access="sequential", fail_on="warning")
        samples: Samples = image.numpy()
    except pyvips.Error as error:
        raise Unconvertible(Reason.DAMAGED, f"tiff: {str(error).strip()[:300]}") from error
    if samples.dtype != np.uint16 or samples.ndim != 3 or samples.shape[2] not in (3, 4):
        raise Unconvertible(Reason.UNSUPPORTED_DEPTH, f"tiff with samples of {samples.dtype}")
    return np.ascontiguousarray(samples)


def _converted(image: Image.Image, found: str, profile: bytes | None) -> Picture:
    """Samples in a mode that the targets have."""
    mode, space = image.mode, profiles.space(profile)
    if mode == "P":
        return Picture(samples=_samples(image), format=found, palette=_palette(image), icc=_rgb(profile))
    if mode.startswith("I;16"):
        return Picture(
            samples=_samples(image).astype(np.uint16), format=found, icc=profile if space == "GRAY" else None
        )
    if mode in ("I", "F"):
        raise Unconvertible(Reason.UNSUPPORTED_DEPTH, f"{found} of 32 bits a sample: PNG and WebP hold 16 at most")
    if mode in ("CMYK", "LAB", "YCbCr", "HSV"):
        return Picture(samples=_samples(_managed(image, profile)), format=found)
    if mode in ("1", "L", "LA", "La"):
        grey = "LA" if mode in ("LA", "La") or image.has_transparency_data else "L"
        if space == "RGB":
            grey = "RGBA" if grey == "LA" else "RGB"
        icc = profile if space == ("RGB" if grey.startswith("RGB") else "GRAY") else None
        return Picture(samples=_samples(_in_mode(image, grey)), format=found, icc=icc)
    colour = "RGBA" if image.has_transparency_data else "RGB"
    return Picture(samples=_samples(_in_mode(image, colour)), format=found, icc=_rgb(profile))


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


def _managed(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Into sRGB through the embedded profile; without a usable one as Pillow converts."""
    srgb = ImageCms.createProfile("sRGB")
    own: ImageCms.ImageCmsProfile | None = None
    try:
        if image.mode == "LAB":
            own = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        elif profiles.space(profile) == image.mode:
            own = ImageCms.ImageCmsProfile(io.BytesIO(profile or b""))
        if own is not None:
            turned = ImageCms.profileToProfile(
                image,
                own,
                srgb,
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
            if turned is not None:
                return turned
    except (ImageCms.PyCMSError, OSError):
        pass
    return image.convert("RGB")
