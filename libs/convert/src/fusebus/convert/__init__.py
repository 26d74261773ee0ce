"""Bulk conversion of pictures to lossless PNG and WebP."""

from fusebus.convert.conversion import Converted, Format, Target, convert
from fusebus.convert.errors import Reason, Unconvertible

__all__ = ["Converted", "Format", "Reason", "Target", "Unconvertible", "convert"]
