"""Keeps a supplier's flood from the others: whose upload is dealt with next."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fusebus.bus import Lately
from fusebus.contracts.topology import UPLOAD_LANES

LONGEST_EVERY = 8
"""So often the next turn is that of who waits longest: nobody waits for ever."""


def rank_of(lane: str | None) -> int:
    """0 for the lane of those who send few, and for what has none yet; the more a supplier sent, the higher."""
    if lane is None:
        return 0
    return int(lane) if lane.isdecimal() and int(lane) < len(UPLOAD_LANES) else len(UPLOAD_LANES)


@dataclass(eq=False)
class _Waiting:
    supplier: str
    rank: int
    turn: asyncio.Future[None]


class Turns:
    """At most `places` uploads are dealt with together; of those that wait, one of the first lane that has any is next.

    In a lane it is that of the supplier that was served least lately. While one of the first lane is dealt with, all
    other lanes have one place together.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._served = Lately()
        self._waiting: list[_Waiting] = []  # the longest first
        self._running: Counter[int] = Counter()  # by rank
        self._given = 0

    @asynccontextmanager
    async def of(self, supplier: str, rank: int) -> AsyncIterator[None]:
        """One upload's turn, from when it comes to the end of the block."""
        one = _Waiting(supplier, rank, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self._give()
        try:
            await one.turn
            yield
        finally:
            self._end(one)

    def _end(self, one: _Waiting) -> None:
        if one in self._waiting:
            self._waiting.remove(one)
        else:
            self._running[one.rank] -= 1
        self._give()

    def _give(self) -> None:
        while self._running.total() < self._places and (one := self._next()) is not None:
            self._waiting.remove(one)
            self._running[one.rank] += 1
            self._served.add(one.supplier)
            self._given += 1
            one.turn.set_result(None)

    def _next(self) -> _Waiting | None:
        waiting = [one for one in self._waiting if not one.turn.done()]  # else it was cancelled just now
        if self._running[0] and self._running.total() > self._running[0]:
            waiting = [one for one in waiting if one.rank == 0]
        if not waiting:
            return None
        if self._given % LONGEST_EVERY == LONGEST_EVERY - 1:
            return waiting[0]
        return min(waiting, key=lambda one: (one.rank, self._served.of(one.supplier)))
