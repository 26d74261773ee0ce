"""A few threads for functions that release the GIL; the first in rank goes first."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

_AHEAD = 1  # handed over beyond the threads, so that none waits for the loop to come round
_STOP_SECONDS = 10.0  # how long a running function may take when the process ends; the threads die with it anyway

_Task = tuple[asyncio.Future[Any], Callable[[], Any]]


class Team:
    """`await team.run(rank, function)`. Owned by the event loop that starts it.

    Not a ThreadPoolExecutor: that knows no order, and its futures, with a lock each, cost half of what an image's whole
    way through the stages may cost. Its threads wait for a byte in a pipe: whoever writes or reads one lets go of
    Python's lock meanwhile. A thread that a queue wakes finds that lock taken and must be woken once more.
    Both ends are the loop's to open and to close; children that are started later get neither.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._size = threads
        self._waiting: list[tuple[Any, int, asyncio.Future[Any], Callable[[], Any]]] = []
        self._numbers = itertools.count()
        self._handed_over = 0
        self._tasks: deque[_Task] = deque()  # a byte in the pipe for each, once the loop has come round
        self._silent = 0  # tasks without a byte
        self._to_read: int | None = None  # the pipe's ends, while they are open
        self._to_write: int | None = None
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
        self._to_read, self._to_write = os.pipe()
        for thread in self._threads:
            thread.start()

    async def stop(self) -> None:
        """Hand over nothing any more and wait, within a limit, for what was."""
        for _, _, answer, _ in self._waiting:
            answer.cancel()
        self._waiting.clear()
        self._ring()
        if self._to_write is not None:
            os.close(self._to_write)  # the threads end behind the last byte
            self._to_write = None
        await asyncio.to_thread(self._join, time.monotonic() + _STOP_SECONDS)
        if self._to_read is not None and not any(thread.is_alive() for thread in self._threads):
            os.close(self._to_read)  # not before: its number would be another file's
            self._to_read = None

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
                self._tasks.append((answer, function))
                if not self._silent:
                    assert self._loop is not None
                    self._loop.call_soon(self._ring)
                self._silent += 1

    def _ring(self) -> None:
        """Wake the threads for all that was handed over in this round of the loop; so few bytes always have room."""
        number, self._silent = self._silent, 0
        if number and self._to_write is not None:
            os.write(self._to_write, bytes(number))

    def _work(self) -> None:
        assert self._to_read is not None
        wait = partial(os.read, self._to_read, 1)
        while wait():
            answer, function = self._tasks.popleft()
            found, error = None, None
            if not answer.done():  # read only: a cancellation in this very moment costs one call in vain
                try:
                    found = function()
                except BaseException as raised:
                    error = raised
            self._finished.append((answer, found, error))
            del answer, function, found, error  # an idle thread must not keep a picture alive
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
