"""Decode, pre- and post-processing, masks, annotation."""

from fusebus.vision.decode import Pixels, decode
from fusebus.vision.errors import Damaged, ImageError, NotAnImage, TooManyPixels
from fusebus.vision.formats import MAX_PIXELS, ImageHeader, inspect

__all__ = [
    "MAX_PIXELS",
    "Damaged",
    "ImageError",
    "ImageHeader",
    "NotAnImage",
    "Pixels",
    "TooManyPixels",
    "decode",
    "inspect",
]
