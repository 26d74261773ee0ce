"""Bounds what is held in memory at a time, whatever the pictures' sizes: slots for the cores, bytes for the rest."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator

from fusebus.convert.conversion import Format
from fusebus.convert.reading import Scratch, extent
from fusebus.host import MallocOption, set_malloc
from fusebus.vision.formats import is_jpeg

JPEG_TO_PNG_BYTES, TO_PNG_BYTES, DEEP_TO_PNG_BYTES, TO_WEBP_BYTES = 20, 32, 64, 56
"""Most bytes a pixel, measured with noise (tests/unit/convert/test_memory.py): samples, turned and filtered copies, the
new file twice, libwebp's tables, which it has for reading lossless pictures, too. DEEP: of 16 bits a sample."""
MEMORY_PER_WORKER_BYTES = 512 << 20
"""Unless said otherwise: a JPEG of 20 megapixels to PNG on each core at a time, and the files that wait."""
LEAST_MEGABYTES = 64
"""For all workers together: with less, all but the smallest pictures would be converted alone."""
FILES_SHARE = 0.25
"""Of the memory, for source files that were read; they wait for a share of the rest, which waits for nothing."""

MMAP_THRESHOLD_BYTES, TRIM_THRESHOLD_BYTES = 32 << 20, 256 << 20
"""glibc's. Larger blocks go back to the system when they are freed (it allows no more), and what is free at the end of
a thread's memory goes back where it is more than the second."""


def keep_freed_memory() -> None:
    """What one picture leaves is the next one's: fresh pages take a tenth of a conversion's time. Only with glibc."""
    set_malloc(MallocOption.MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
    set_malloc(MallocOption.TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)


def needed(data: bytes, target: Format) -> int:
    """Bytes that a picture's conversion takes at most; 0 where no header can be read, which is found out quickly."""
    pixels, deep = extent(data)
    if target is Format.WEBP:
        return pixels * TO_WEBP_BYTES
    if deep:
        return pixels * DEEP_TO_PNG_BYTES
    return pixels * (JPEG_TO_PNG_BYTES if is_jpeg(data) else TO_PNG_BYTES)


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
    """Room for files and pixels, and a slot for each core with its scratch memory.

    `memory_bytes` 0: MEMORY_PER_WORKER_BYTES for each of `workers`; `files_share` 0: nobody asks for files' room.
    """

    def __init__(self, workers: int, memory_bytes: int = 0, files_share: float = FILES_SHARE) -> None:
        memory = memory_bytes or workers * MEMORY_PER_WORKER_BYTES
        files = int(memory * files_share)
        self._files, self._pixels = Gate(files), Gate(memory - files)
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
