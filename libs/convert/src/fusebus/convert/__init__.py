"""Bulk conversion of pictures to lossless PNG and WebP."""

from fusebus.convert.conversion import VERSION, Converted, Format, Target, convert
from fusebus.convert.errors import Reason, Unconvertible

__all__ = ["VERSION", "Converted", "Format", "Reason", "Target", "Unconvertible", "convert"]
