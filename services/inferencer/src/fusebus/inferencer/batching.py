"""How many pictures go into one model call, and what a call that failed says about them: values in, values out."""

from __future__ import annotations

import re
from dataclasses import dataclass

GROW_AFTER_CALLS = 200
"""Calls without a want of memory after which one picture more is tried."""

_MEMORY = re.compile(
    r"out ?of ?memory|bad_?alloc|bad allocation|failed to allocate|unable to allocate|\bOOM\b|_ALLOC_FAILED"
    r"|available memory of .* smaller than requested",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """What one model call may hold at most; one picture always goes."""

    pictures: int
    pixels: int = 0
    """Of the model's inputs together; 0: no limit."""

    def of(self, picture_pixels: int) -> int:
        """How many pictures of that size."""
        if not self.pixels:
            return self.pictures
        return max(1, min(self.pictures, self.pixels // max(1, picture_pixels)))


class BatchSize:
    """The present limit: smaller once the memory did not suffice, growing again while it does."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._calls = 0
        self.now = most

    def lacked_memory(self, tried: int) -> None:
        """A call with so many pictures wanted more memory than there is."""
        self.now, self._calls = max(1, min(self.now, tried // 2)), 0

    def succeeded(self) -> None:
        """One more call went well."""
        if self.now == self._most:
            return
        self._calls += 1
        if self._calls >= GROW_AFTER_CALLS:
            self.now, self._calls = self.now + 1, 0


def lacks_memory(error: BaseException) -> bool:
    """Whether fewer pictures at once may help. onnxruntime and CUDA have no class of error for it, only words."""
    return isinstance(error, MemoryError) or _MEMORY.search(str(error)) is not None
