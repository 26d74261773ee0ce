"""Many instants of one mailbox behind one timer: locks that end, messages that expire or are due."""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from fusebus.servicebus.engine.timers import Timer

if TYPE_CHECKING:
    from fusebus.servicebus.engine.core import Core

MAX_STALE: Final = 64  # entries without meaning that are kept beyond the number of those with one


class Deadlines:
    """A heap of (due, key). Nothing is taken out when a key ceases to matter: `is_due` says so when its time comes.

    So what happens most, a lock that is settled long before it ends, costs nothing here but a seldom sweep.
    """

    __slots__ = ("_action", "_core", "_heap", "_is_due", "_timer")

    def __init__(self, core: "Core", is_due: Callable[[int, float], bool], action: Callable[[int], None]) -> None:
        """`is_due(key, due)`: whether that key still has that deadline."""
        self._core = core
        self._is_due = is_due
        self._action = action
        self._heap: list[tuple[float, int]] = []
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, due: float, key: int) -> None:
        heappush(self._heap, (due, key))
        if self._timer is None or due < self._timer.due:
            self._arm(due)

    def sweep(self, meaningful: int) -> None:
        """Drop what has no meaning any more, if that is most of it; `meaningful` keys have one."""
        if len(self._heap) > 2 * meaningful + MAX_STALE:
            self._heap = [entry for entry in self._heap if self._is_due(entry[1], entry[0])]
            heapify(self._heap)

    def refresh(self) -> None:
        """Move the timer to the first deadline that still has a meaning."""
        heap, is_due = self._heap, self._is_due
        while heap and not is_due(heap[0][1], heap[0][0]):
            heappop(heap)
        if not heap:
            self._disarm()
        elif self._timer is None or self._timer.due != heap[0][0]:
            self._arm(heap[0][0])

    def clear(self) -> None:
        self._heap = []
        self._disarm()

    def _arm(self, due: float) -> None:
        self._disarm()
        self._timer = self._core.timers.add(due, self._run, None, self)

    def _disarm(self) -> None:
        self._core.timers.cancel(self._timer)
        self._timer = None

    def _run(self, _: object) -> None:
        self._timer = None
        now = self._core.now
        while self._heap and self._heap[0][0] <= now:
            due, key = heappop(self._heap)
            if self._is_due(key, due):
                self._action(key)
        self.refresh()
