"""Memory of pictures that are drawn, for the next ones: the system's fresh pages cost a seventh of decoding."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

Memory = NDArray[np.uint8]
"""Flat."""

MOST_BYTES = 48 << 20
"""Of one picture, 16 megapixels: what larger ones need goes back to the system."""
LEAST_BYTES = 16 << 20
"""What smaller ones need the allocator gives from memory that it has."""
MOST_TOO_LARGE = 2
"""A picture gets no memory that is more than so many times too large: its own would be bound by it meanwhile."""


class Spare:
    """Keeps at most `most` pieces, the latest ones. For any number of threads."""

    def __init__(self, most: int, least_bytes: int = LEAST_BYTES) -> None:
        self._most = most
        self._least_bytes = least_bytes
        self._kept: list[Memory] = []
        self._lock = threading.Lock()

    def take(self, size: int) -> Memory | None:
        """A piece of at least so many bytes and not many more; None: there is none."""
        with self._lock:
            for at, memory in enumerate(self._kept):
                if size <= memory.size <= MOST_TOO_LARGE * size:
                    return self._kept.pop(at)
        return None

    def give(self, memory: Memory) -> None:
        """Nobody looks at what lies in it any more; given twice, it is kept once."""
        with self._lock:
            if self._least_bytes <= memory.size <= MOST_BYTES and not any(memory is kept for kept in self._kept):
                self._kept.append(memory)
                del self._kept[: -self._most]
