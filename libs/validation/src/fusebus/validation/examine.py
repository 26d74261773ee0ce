"""What a guarded child does with one file: header, limits, damage, pixels, notes, kept fields, derivative."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from fusebus.contracts.messages import RejectReason
from fusebus.validation import integrity, quality
from fusebus.validation.heif import decode_heif
from fusebus.validation.heif_data import verify_heif
from fusebus.validation.kept import fields_of, kept_fields
from fusebus.validation.levels import verify_levels
from fusebus.validation.limits import Tier
from fusebus.validation.look import Look, look
from fusebus.validation.png_data import verified_png
from fusebus.validation.verdicts import Facts, Verdict, rejected
from fusebus.vision import ImageError, ImageHeader, decode, encode_jpeg

DERIVATIVE_QUALITY = 95  # of 100, JPEG: a detector sees no difference to the original
_DECODER_OUT_OF_MEMORY = ("memory", "allocat")  # in the words of libjpeg, OpenCV and Pillow


def examine(
    data: bytes, *, derivative: bool = False, heif: bool = False, narrow: Callable[[Tier], None] = lambda tier: None
) -> Verdict:
    """Judge a file's bytes; never raises for what they hold. `narrow` sets the limits that the header calls for.

    Raises OSError, ImportError for what our own code lacks here: that is not the file's fault.
    """
    if not data:
        return rejected(RejectReason.EMPTY, "0 bytes")
    try:
        found = look(data, heif=heif)
        narrow(found.tier)
        return _inside(data, found, derivative)
    except MemoryError:
        return rejected(RejectReason.TOO_COMPLEX, "needs more memory than a picture of its format and size may")
    except ImageError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno is not None:
            raise error.__cause__ from None
        if any(word in str(error).lower() for word in _DECODER_OUT_OF_MEMORY):
            return rejected(RejectReason.TOO_COMPLEX, str(error))
        return rejected(RejectReason(error.reason), str(error))
    except ImportError:
        raise
    except Exception as error:  # hostile bytes find what nobody thought of: a refusal that ops can read
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return rejected(RejectReason.DAMAGED, f"unforeseen {type(error).__name__}: {error}")


def _inside(data: bytes, found: Look, derivative: bool) -> Verdict:
    header, exif = found.header, b""
    if header.format == "heif":
        verify_heif(data)
        pixels, exif = decode_heif(data)
        header = ImageHeader("heif", pixels.shape[1], pixels.shape[0])
    else:
        pixels = _decoded(data, found)
    captured_at, camera = fields_of(exif) if header.format == "heif" else kept_fields(header.format, data)
    wanted = derivative or header.format == "heif"  # which workers don't read
    facts = Facts(
        format=header.format,
        width=header.width,
        height=header.height,
        orientation=header.orientation,
        captured_at=captured_at,
        camera=camera,
        quality=quality.notes(pixels),
    )
    return Verdict(facts=facts, derivative=_rebuilt(pixels) if wanted else b"")


def _decoded(data: bytes, found: Look) -> NDArray[np.uint8]:
    """Upright pixels of a file that is sound to its end. Raises Damaged, TooComplex."""
    if found.header.format == "png":
        return decode(verified_png(data), found.header.orientation, checked=True)
    if found.header.format == "jpeg":
        integrity.verify_jpeg(data, found.header, found.kind, found.segments)
        verify_levels(data, found.segments)
        return decode(data, found.header.orientation, segments=found.segments)
    integrity.verify_webp(data)
    return decode(data)


def _rebuilt(pixels: NDArray[np.uint8]) -> bytes:
    return encode_jpeg(np.ascontiguousarray(pixels), DERIVATIVE_QUALITY)


def without_derivative(verdict: Verdict) -> Verdict:
    """For the report, which travels beside the derivative's own file."""
    return msgspec.structs.replace(verdict, derivative=b"")
