"""Things to do at a time: a heap with cheap cancellation, the only place where time passes."""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any, Final, Protocol

MIN_CANCELLED_TO_COMPACT: Final = 1024  # below this a rebuilt heap saves nothing worth the pause


class Owner(Protocol):
    """Whose timer may be earlier than needed."""

    def refresh(self) -> None:
        """Cancel the timer or set one for the right time, if its time is wrong."""


class Timer:
    """One pending call; `due` in seconds since the epoch."""

    __slots__ = ("action", "argument", "cancelled", "due", "owner")

    def __init__(self, due: float, action: Callable[[Any], None], argument: Any, owner: Owner | None) -> None:
        self.due = due
        self.action = action
        self.argument = argument
        self.owner = owner
        self.cancelled = False


class TimerQueue:
    """Timers run in the order of their time, those of one instant in the order they were added."""

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Timer]] = []
        """(due, serial, timer), the earliest first; read by the engine, which looks at every call."""
        self._serial = 0
        self._cancelled = 0
        self.on_earlier: Callable[[float], None] | None = None
        """Called with the new earliest time whenever it moved forward."""

    def add(self, due: float, action: Callable[[Any], None], argument: Any, owner: Owner | None = None) -> Timer:
        timer = Timer(due, action, argument, owner)
        self._drop_cancelled()
        is_earliest = not self.heap or due < self.heap[0][0]
        self._serial += 1
        heappush(self.heap, (due, self._serial, timer))
        if is_earliest and self.on_earlier:
            self.on_earlier(due)
        return timer

    def cancel(self, timer: Timer | None) -> None:
        """Harmless for None and for a timer that ran or was cancelled."""
        if timer is None or timer.cancelled:
            return
        timer.cancelled = True
        self._cancelled += 1
        if self._cancelled > MIN_CANCELLED_TO_COMPACT and self._cancelled * 2 > len(self.heap):
            self.heap = [entry for entry in self.heap if not entry[2].cancelled]
            heapify(self.heap)
            self._cancelled = 0

    def next_due(self) -> float | None:
        self._drop_cancelled()
        while self.heap:
            first = self.heap[0][2]
            if first.owner is not None:
                first.owner.refresh()
                self._drop_cancelled()
            if self.heap and self.heap[0][2] is first:
                return first.due
        return None

    def run_due(self, now: float) -> None:
        while self.heap and self.heap[0][0] <= now:
            timer = heappop(self.heap)[2]
            if timer.cancelled:
                self._cancelled -= 1
                continue
            timer.cancelled = True  # it is spent: a later cancel must not count it
            timer.action(timer.argument)

    def _drop_cancelled(self) -> None:
        while self.heap and self.heap[0][2].cancelled:
            heappop(self.heap)
            self._cancelled -= 1
