"""Keeps a supplier's flood from the others: who was served least goes first, and what is too much goes aside."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fusebus.contracts.topology import ASIDE, upload_lane

HALF_LIFE = 30.0  # seconds, after which a served upload counts half
UNMARKED_SHARE = 0.04
"""Of what a supplier may send in its own lane, which it may send without one: 20 of 500."""
NOTHING = 0.5  # of an upload, below which a supplier is forgotten


@dataclass(kw_only=True)
class Served:
    """How much each supplier was served lately: uploads, older ones count less and less."""

    clock: Callable[[], float] = time.monotonic
    _counts: dict[str, tuple[float, float]] = field(default_factory=dict)

    def lately(self, supplier: str) -> float:
        """About as many as in the last minute, where they come evenly (the sum of a decay of HALF_LIFE is 43 s)."""
        count, at = self._counts.get(supplier, (0.0, 0.0))
        return count * 0.5 ** ((self.clock() - at) / HALF_LIFE) if count else 0.0

    def other_lane(self, supplier: str, lane: str | None, aside_after: int) -> str | None:
        """Where the next event is to wait instead of in this lane; None: it is looked at now, and counts.

        What comes without a lane waits with everybody's, so a supplier that sends many is soon sent to its own lane.
        """
        if lane == ASIDE or not aside_after:
            return None
        self.add(supplier)
        if lane is None:
            return upload_lane(supplier) if self.lately(supplier) > aside_after * UNMARKED_SHARE else None
        return ASIDE if self.lately(supplier) > aside_after else None

    def add(self, supplier: str) -> None:
        """One more."""
        self._counts[supplier] = (self.lately(supplier) + 1.0, self.clock())
        if len(self._counts) > 1000:
            self._counts = {name: one for name, one in self._counts.items() if self.lately(name) >= NOTHING}


class Turns:
    """At most `places` files are judged together; of those that wait, the least served supplier's is next."""

    def __init__(self, places: int, served: Served | None = None) -> None:
        self._free = places
        self._served = served or Served()
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def of(self, supplier: str) -> AsyncIterator[None]:
        """One file's turn, from when it comes to the end of the block."""
        rank = self._served.lately(supplier)
        self._served.add(supplier)  # now, so that a supplier's second one that waits stands behind another's first
        await self._wait(rank)
        try:
            yield
        finally:
            self._next()

    async def _wait(self, rank: float) -> None:
        if self._free > 0:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (rank, next(self._order), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._next()  # the turn came at the same moment
            raise

    def _next(self) -> None:
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
