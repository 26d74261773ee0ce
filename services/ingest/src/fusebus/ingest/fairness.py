"""Keeps a supplier's flood from the others: whose upload is dealt with next."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from fusebus.bus import Lately
from fusebus.contracts.topology import UPLOAD_LANES

LONGEST_EVERY = 8
"""So often the next turn is that of who waits longest: nobody waits for ever."""


def rank_of(lane: str | None) -> int:
    """0 for the lane of those who send few, and for what has none yet; the more a supplier sent, the higher."""
    if lane is None:
        return 0
    return int(lane) if lane.isdecimal() and int(lane) < len(UPLOAD_LANES) else len(UPLOAD_LANES)


class Turn:
    """One upload's turn: waiting, running, or ended."""

    def __init__(self, turns: Turns, supplier: str, rank: int) -> None:
        self.supplier, self.rank = supplier, rank
        self.begun = False
        """Whether it ran before it waits again."""
        self.comes = asyncio.get_running_loop().create_future()
        self._turns = turns

    async def pause(self) -> None:
        """Between two steps: wait, unless of the first lane, while there is less room for the others than they take."""
        await self._turns.pause(self)


class Turns:
    """At most `places` uploads of the first lane are dealt with together, and as many of all others while it has none.

    While it has any the others have one place together, or none where it fills all of its own, and what they had begun
    waits at its next step. Of the others that goes first which was begun, then the lower lane; in a lane the supplier
    that was served least lately. Each eighth turn is that of the one that waits longest.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._served = Lately()
        self._waiting: list[Turn] = []  # the longest first
        self._running: Counter[int] = Counter()  # by rank
        self._given = 0
        self._is_expecting = False
        self._is_wary = False
        self._lull = asyncio.Event()
        """Set while nothing of the first lane is running or waiting."""
        self._lull.set()

    @asynccontextmanager
    async def of(self, supplier: str, rank: int) -> AsyncIterator[Turn]:
        """One upload's turn, from when it comes to the end of the block."""
        turn = Turn(self, supplier, rank)
        self._waiting.append(turn)
        self._give()
        try:
            await turn.comes
            yield turn
        finally:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:
                self._running[rank] -= 1
            self._give()

    @contextmanager
    def expecting(self, seconds: float) -> Iterator[None]:
        """Some of the first lane are about to come: in this block, for so long, the others begin no further step."""
        self._is_expecting = True
        timer = asyncio.get_running_loop().call_later(seconds, self._expect_no_more)
        try:
            yield
        finally:
            timer.cancel()
            self._expect_no_more()

    def _expect_no_more(self) -> None:
        self._is_expecting = False
        self._give()

    def beware(self, is_wary: bool) -> None:
        """Say whether some of the first lane may come any time: the others have half of the places then."""
        self._is_wary = is_wary
        self._give()

    async def lull(self) -> None:
        """Return when nothing of the first lane is there."""
        await self._lull.wait()

    async def pause(self, turn: Turn) -> None:
        """See Turn."""
        if not turn.rank or self._others <= self._room:
            return
        turn.comes = asyncio.get_running_loop().create_future()
        self._running[turn.rank] -= 1
        self._waiting.insert(0, turn)
        self._give()
        await turn.comes

    @property
    def _others(self) -> int:
        return self._running.total() - self._running[0]

    @property
    def _room(self) -> int:
        """For how many of the others there is room."""
        if self._is_expecting:
            return 0
        first = self._running[0] + sum(not one.rank for one in self._waiting)
        if not first:
            return max(1, self._places // 2) if self._is_wary else self._places
        return 1 if first < self._places else 0

    def _give(self) -> None:
        while (turn := self._next()) is not None:
            self._waiting.remove(turn)
            self._running[turn.rank] += 1
            if not turn.begun:
                self._served.add(turn.supplier)
            turn.begun = True
            self._given += 1
            turn.comes.set_result(None)
        first = self._running[0] or any(not one.rank for one in self._waiting)
        self._lull.clear() if first else self._lull.set()

    def _next(self) -> Turn | None:
        is_for_longest = self._given % LONGEST_EVERY == LONGEST_EVERY - 1
        first = self._running[0] < self._places
        room = max(1, self._room) if is_for_longest and not self._is_expecting else self._room
        others = self._others < room
        waiting = [one for one in self._waiting if not one.comes.done()]  # else it was cancelled just now
        waiting = [one for one in waiting if (others if one.rank else first)]
        if not waiting:
            return None
        if is_for_longest:
            return waiting[0]
        return min(waiting, key=lambda one: (one.rank > 0, not one.begun, one.rank, self._served.of(one.supplier)))
