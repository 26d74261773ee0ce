"""Gives memory back to the system after many messages have gone: the C library keeps it otherwise."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable

CHECK_SECONDS = 2.0
WORTH_BYTES = 32 << 20  # less is not worth the pause: trimming 1 GB takes some tens of milliseconds


class MemoryReturn:
    """Looks now and then at how many bytes of messages are held; where the C library cannot trim it does nothing."""

    def __init__(self, held_bytes: Callable[[], int]) -> None:
        self._held_bytes = held_bytes
        self._most = 0  # held at any look since the last trim
        self._timer: asyncio.TimerHandle | None = None
        self._trim = _trimmer()

    def start(self) -> None:
        """Needs a running loop."""
        if self._trim is not None:
            self._timer = asyncio.get_running_loop().call_later(CHECK_SECONDS, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        held = self._held_bytes()
        self._most = max(self._most, held)
        if self._most - held >= WORTH_BYTES and self._trim is not None:
            self._trim()
            self._most = held
        self.start()


def _trimmer() -> Callable[[], None] | None:
    """glibc's malloc_trim, if this is glibc."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    return lambda: trim(0)
