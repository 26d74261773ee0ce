"""The numbers of the messages that can be delivered now, lowest first."""

from collections import deque
from collections.abc import Container
from heapq import heapify, heappop, heappush
from typing import Final

MAX_STALE: Final = 64


class Backlog:
    """A line for what is new and a heap for what comes back to an earlier place.

    Numbers of messages that are gone stay until they are taken or `sweep` finds too many.
    """

    __slots__ = ("_back", "_new")

    def __init__(self) -> None:
        self._new: deque[int] = deque()
        self._back: list[int] = []

    def add(self, number: int) -> None:
        if not self._new or number > self._new[-1]:
            self._new.append(number)
        else:
            heappush(self._back, number)

    def take(self) -> int | None:
        if self._back and (not self._new or self._back[0] < self._new[0]):
            return heappop(self._back)
        return self._new.popleft() if self._new else None

    def sweep(self, live: Container[int], count: int) -> None:
        """Drop the numbers that are not in `live`, if that is most of them; `count` are."""
        if len(self) <= 2 * count + MAX_STALE:
            return
        self._new = deque(number for number in self._new if number in live)
        self._back = [number for number in self._back if number in live]
        heapify(self._back)

    def __len__(self) -> int:
        return len(self._new) + len(self._back)
