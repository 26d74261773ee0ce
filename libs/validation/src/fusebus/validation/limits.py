"""Every limit that a picture and the child that reads it have, by format and size."""

from __future__ import annotations

import msgspec

from fusebus.vision import MAX_PIXELS

MAX_BYTES = 64_000_000
"""Of a file, by default; ingest has a setting for it."""
MOST_BYTES = 256_000_000
"""What that setting may be at most."""
MAX_SIDE = 65_500  # pixels: what a JPEG, and so the derivative, can have
MAX_SCAN_PIXELS = 2_000_000_000
"""Scans × pixels of a JPEG: each scan is a pass over the picture. Cameras and optimisers write up to 12 scans."""
MAX_FRAMES = 1_000
"""Pictures in one file; only the first is ever decoded."""
MAX_REPORT_BYTES = 16_384
"""What a child may say."""
SMALL_PIXELS = 30_000_000
"""Up to here a picture may cost 512 MB and has SMALL_CPU_SECONDS."""

MEGABYTE = 1_000_000
HEADER_CPU_SECONDS = 2
"""For reading the header of whatever file."""
SMALL_CPU_SECONDS = 6  # six times what a sound picture of 30 megapixels takes on a slow core
LARGE_CPU_SECONDS = 20
WALL_PER_CPU = 10.0
"""A child may wait for a core so much longer than it may compute; then the machine is overloaded, not the file bad."""
DERIVATIVE_BYTES = 3 * MAX_PIXELS
"""Largest file a child may write; no JPEG of the most pixels is larger."""

_BYTES_PER_PIXEL = {"jpeg": 12, "progressive": 15, "arithmetic": 15, "png": 12, "webp": 14, "heif": 16}
"""Pixels (3), a turned copy (3), the encoder's buffer (3), and what the decoder keeps: coefficients (6) or planes."""
_FIXED_BYTES = 48 * MEGABYTE


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """What one child may use."""

    memory_bytes: int
    """Address space beyond the fork server's own."""
    cpu_seconds: int
    wall_seconds: float


def header_tier(size: int) -> Tier:
    """The limits while the header of a file of so many bytes is read: the file, and pieces of it."""
    return Tier(
        memory_bytes=3 * size + _FIXED_BYTES,
        cpu_seconds=HEADER_CPU_SECONDS,
        wall_seconds=HEADER_CPU_SECONDS * WALL_PER_CPU,
    )


def tier(kind: str, pixels: int, size: int) -> Tier:
    """The limits for a picture of so many pixels in a file of so many bytes.

    `kind` is its format, `progressive` for a progressive JPEG, whose coefficients all stay in memory.
    """
    cpu = SMALL_CPU_SECONDS if pixels <= SMALL_PIXELS else LARGE_CPU_SECONDS
    return Tier(
        memory_bytes=_BYTES_PER_PIXEL[kind] * pixels + 3 * size + _FIXED_BYTES,
        cpu_seconds=cpu,
        wall_seconds=cpu * WALL_PER_CPU,
    )


LARGEST = max((tier(kind, MAX_PIXELS, MOST_BYTES) for kind in _BYTES_PER_PIXEL), key=lambda found: found.memory_bytes)
"""What no child exceeds."""
LONGEST_SECONDS = LARGEST.wall_seconds + HEADER_CPU_SECONDS * WALL_PER_CPU
"""After so long a child has ended."""
