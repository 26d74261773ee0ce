"""Writes pictures for people: JPEG from pixels alone, so that nothing of the original file can travel along."""

from __future__ import annotations

import numpy as np
import simplejpeg

from fusebus.vision.decode import Pixels


def encode_jpeg(rgb: Pixels, quality: int = 90) -> bytes:
    """A JPEG without any metadata; the same bytes for the same pixels. Releases the GIL."""
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality, "RGB", "420"))
