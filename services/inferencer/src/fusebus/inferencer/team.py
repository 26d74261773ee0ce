"""A few threads for functions that release the GIL; the first in rank goes first."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_AHEAD = 1  # handed over beyond the threads, so that none waits for the loop to come round
_STOP_SECONDS = 10.0  # how long a running function may take when the process ends; the threads die with it anyway

_Task = tuple[asyncio.Future[Any], Callable[[], Any]]


class Team:
    """`await team.run(rank, function)`. Owned by the event loop that starts it.

    Not a ThreadPoolExecutor: that knows no order, and its futures, with a lock each, cost half of what an image's whole
    way through the stages may cost.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._size = threads
        self._waiting: list[tuple[Any, int, asyncio.Future[Any], Callable[[], Any]]] = []
        self._numbers = itertools.count()
        self._handed_over = 0
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._finished: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._told = False  # whether the loop knows that something is finished
        self._loop: asyncio.AbstractEventLoop | None = None
        # Daemons: a process that is told to stop must not wait for a picture without end.
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True) for number in range(threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        self._loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start()

    async def stop(self) -> None:
        """Begin nothing any more and wait, within a limit, for what runs."""
        for _, _, answer, _ in self._waiting:
            answer.cancel()
        self._waiting.clear()
        for _ in self._threads:
            self._tasks.put(None)
        await asyncio.to_thread(self._join, time.monotonic() + _STOP_SECONDS)

    async def run(self, rank: Any, function: Callable[[], T]) -> T:
        """The function's result; raises what it raises. Smaller ranks go first. A cancelled call is not begun."""
        assert self._loop is not None
        answer: asyncio.Future[T] = self._loop.create_future()
        heapq.heappush(self._waiting, (rank, next(self._numbers), answer, function))
        self._hand_over()
        return await answer

    def _hand_over(self) -> None:
        while self._waiting and self._handed_over < self._size + _AHEAD:
            _, _, answer, function = heapq.heappop(self._waiting)
            if not answer.done():
                self._handed_over += 1
                self._tasks.put((answer, function))

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            answer, function = task
            found, error = None, None
            if not answer.done():  # read only: a cancellation in this very moment costs one call in vain
                try:
                    found = function()
                except BaseException as raised:
                    error = raised
            self._finished.append((answer, found, error))
            del task, answer, function, found, error  # an idle thread must not keep a picture alive
            if not self._told:
                self._told = True
                assert self._loop is not None
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    self._loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        """In the loop: answer all that is finished, then hand over what waits."""
        self._told = False  # before looking: what is finished from now on tells again
        while self._finished:
            answer, found, error = self._finished.popleft()
            self._handed_over -= 1
            if answer.done():
                continue
            if error is None:
                answer.set_result(found)
            else:
                answer.set_exception(error)
        self._hand_over()

    def _join(self, deadline: float) -> None:
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
