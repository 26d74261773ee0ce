"""Settings of glibc's malloc for this process (mallopt(3)); with another C library they change nothing."""

from __future__ import annotations

import ctypes
from enum import IntEnum


class MallocOption(IntEnum):
    """Numbers of malloc.h."""

    TRIM_THRESHOLD = -1
    MMAP_THRESHOLD = -3
    ARENA_MAX = -8


def set_malloc(option: MallocOption, value: int) -> bool:
    """Whether the C library knows the option and took it."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(option, value))
