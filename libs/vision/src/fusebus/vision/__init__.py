"""Decode, pre- and post-processing, masks, annotation."""

from fusebus.vision import rle
from fusebus.vision.annotate import annotate
from fusebus.vision.decode import Pixels, decode, shrink_for
from fusebus.vision.demo_model import DEMO_MODEL
from fusebus.vision.errors import Damaged, ImageError, NotAnImage, TooComplex, TooManyPixels
from fusebus.vision.formats import MAX_PIXELS, ImageHeader, inspect
from fusebus.vision.jpeg import encode_jpeg
from fusebus.vision.postprocess import Detection, postprocess, scaled
from fusebus.vision.resize import resize_to_model, thumbnail

__all__ = [
    "DEMO_MODEL",
    "MAX_PIXELS",
    "Damaged",
    "Detection",
    "ImageError",
    "ImageHeader",
    "NotAnImage",
    "Pixels",
    "TooComplex",
    "TooManyPixels",
    "annotate",
    "decode",
    "encode_jpeg",
    "inspect",
    "postprocess",
    "resize_to_model",
    "rle",
    "scaled",
    "shrink_for",
    "thumbnail",
]
