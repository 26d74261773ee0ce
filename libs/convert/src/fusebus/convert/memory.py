"""Bounds what is held in memory at a time, whatever the pictures' sizes: slots for the cores, bytes for the rest."""

from __future__ import annotations

import contextlib
import ctypes
import queue
import threading
from collections.abc import Iterator

from fusebus.convert.reading import Scratch, may_be_deep, pixels_of

BYTES_PER_PIXEL = {"png": 16, "webp": 40}
"""At most, by the target: samples, turned and filtered copies, the new file twice; libwebp's own tables."""
BYTES_PER_DEEP_PIXEL = 40
"""The same of 16 bits a sample."""
FILES_SHARE = 0.25
"""Of the memory, for source files that were read; they wait for a share of the rest, which waits for nothing."""

MMAP_THRESHOLD_BYTES, TRIM_THRESHOLD_BYTES = 32 << 20, 256 << 20
"""glibc's. Larger blocks go back to the system when they are freed (it allows no more), and what is free at the end of
a thread's memory goes back where it is more than the second."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> None:
    """What one picture leaves is the next one's: fresh pages take a tenth of a conversion's time. Only with glibc."""
    try:
        option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    option(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
    option(_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)


def needed(data: bytes, target: str) -> int:
    """Bytes that a picture's conversion takes at most; 0 where no header can be read, which is found out quickly."""
    a_pixel = BYTES_PER_PIXEL[target]
    return pixels_of(data) * (max(a_pixel, BYTES_PER_DEEP_PIXEL) if may_be_deep(data) else a_pixel)


class Gate:
    """So many bytes at a time; who wants more than there are gets all of them, alone. In the order of arrival."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def room(self, size: int) -> Iterator[None]:
        """Waits until there is room, and holds it."""
        wanted = min(size, self._limit)
        with self._turn, self._changed:  # one waits at a time: a large one is not passed by for ever
            self._changed.wait_for(lambda: self._used + wanted <= self._limit)
            self._used += wanted
        try:
            yield
        finally:
            with self._changed:
                self._used -= wanted
                self._changed.notify()


class Bench:
    """Room for files and pixels, and a slot for each core with its scratch memory."""

    def __init__(self, workers: int, memory_bytes: int) -> None:
        files = int(memory_bytes * FILES_SHARE)
        self._files, self._pixels = Gate(files), Gate(memory_bytes - files)
        self._slots: queue.LifoQueue[Scratch] = queue.LifoQueue()
        for _ in range(workers):
            self._slots.put(Scratch())

    def file(self, size: int) -> contextlib.AbstractContextManager[None]:
        """Room for a file of `size` bytes."""
        return self._files.room(size)

    def pixels(self, size: int) -> contextlib.AbstractContextManager[None]:
        """Room for a picture that needs `size` bytes; asked for while its file's room is held, never the reverse."""
        return self._pixels.room(size)

    @contextlib.contextmanager
    def core(self) -> Iterator[Scratch]:
        """A core, and memory for decoded pixels."""
        scratch = self._slots.get()
        try:
            yield scratch
        finally:
            self._slots.put(scratch)
