"""Lets slow work go on beside the looks: each waits for it a while, and takes what it brought once it is done."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Beside(Generic[T]):
    """At most one piece of work of each name at a time."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Task[T]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._under_way

    async def within(self, name: str, work: Callable[[], Awaitable[T]], seconds: float) -> T:
        """What the work of that name brings, begun now unless it is under way.

        Raises what it raises, and TimeoutError where it goes on beyond `seconds`: the next call waits for it again.
        """
        task = self._under_way.get(name)
        if task is None:
            task = self._under_way[name] = asyncio.create_task(_run(work), name=name)
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise TimeoutError(f"{name} goes on beyond {seconds:g} s")
        self._under_way.pop(name, None)
        return task.result()

    async def close(self) -> None:
        """End whatever is under way."""
        tasks, self._under_way = list(self._under_way.values()), {}
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


async def _run(work: Callable[[], Awaitable[T]]) -> T:
    return await work()
