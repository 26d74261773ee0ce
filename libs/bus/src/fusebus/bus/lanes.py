"""Several subscriptions of a topic handled side by side as one: their consumers share slots, and idle together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from fusebus.bus.worker import Consumer

IDLE_POLL_SECONDS = 0.2

LONG_BUSY_SECONDS = 3.0
"""A lane that has had work for so long has a flood; one that began later goes before it."""
PAUSE_SECONDS = 2.0
"""Without work for less than that, a lane is still busy: the next messages are on their way."""


class Load(NamedTuple):
    """What a lane has in hand, and for how long it has had work without a pause, in seconds."""

    in_hand: int
    busy_seconds: float = 0.0


Share = Callable[[int, Sequence[Load], int], int]
"""From the slots there are, every lane's load, and a lane's number: how many messages it may have in hand."""


def by_rank(slots: int, lanes: Sequence[Load], lane: int) -> int:
    """The first lane has all slots, whatever the others hold; each further one what those before it leave.

    A less urgent lane gets nothing while the more urgent are full: what it held meanwhile would only age.
    """
    return max(0, slots - sum(load.in_hand for load in lanes[:lane]))


def evenly(slots: int, lanes: Sequence[Load], lane: int) -> int:
    """Each lane that has work gets the same share, at least one slot; a lane alone gets all."""
    others = sum(load.in_hand > 0 for number, load in enumerate(lanes) if number != lane)
    return max(1, slots // (others + 1))


def newcomers_first(slots: int, lanes: Sequence[Load], lane: int) -> int:
    """Lanes that have been busy for long share a quarter of the slots while others have work, these the rest.

    The last lane counts as such a one whenever it has work. None is ever left without a slot.
    """
    long = [number == len(lanes) - 1 or load.busy_seconds > LONG_BUSY_SECONDS for number, load in enumerate(lanes)]
    alike = [load for number, load in enumerate(lanes) if long[number] == long[lane] or number == lane]
    place = sum(1 for number in range(lane) if long[number] == long[lane])
    if not any(load.in_hand for number, load in enumerate(lanes) if long[number] != long[lane]):
        return evenly(slots, alike, place)
    return evenly(max(1, slots // 4) if long[lane] else slots - slots // 4, alike, place)


class Lanes:
    """The consumers of some subscriptions until stopped, until all are idle together, or until one is dead."""

    def __init__(
        self,
        consumers: Sequence[Consumer],
        share: Share,
        *,
        stop: asyncio.Event,
        ended: asyncio.Event,
        idle_exit: float,
    ) -> None:
        """Each consumer has `ended` as its stop, and no idle limit of its own; `idle_exit` in seconds, 0: never."""
        self.consumers = tuple(consumers)
        self._share, self._stop, self._ended, self._idle_exit = share, stop, ended, idle_exit
        self._busy = [(0.0, float("-inf"))] * len(self.consumers)  # since when, and when work was last seen
        for lane, consumer in enumerate(self.consumers):
            consumer.room = partial(self._room, lane)

    async def run(self) -> None:
        """Consume until the end; whatever ends it, all finish or give back what is in hand. Raises ConsumerDead."""
        running = [asyncio.create_task(consumer.run()) for consumer in self.consumers]
        watching = asyncio.create_task(self._watch())
        try:
            await asyncio.wait([watching, *running], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._ended.set()  # one that is dead ends the others too, which drain
            watching.cancel()
            done = await asyncio.gather(*running, return_exceptions=True)
        if (error := next((one for one in done if isinstance(one, BaseException)), None)) is not None:
            raise error

    async def _watch(self) -> None:
        """Until the stop, or until none has had work for long enough."""
        stopped = asyncio.create_task(self._stop.wait())
        try:
            while not stopped.done():
                await asyncio.wait({stopped}, timeout=IDLE_POLL_SECONDS if self._idle_exit else None)
                if self._idle_exit and all(one.idle_seconds >= self._idle_exit for one in self.consumers):
                    return
        finally:
            stopped.cancel()

    def _room(self, lane: int, slots: int) -> int:
        now = time.monotonic()
        return self._share(slots, [self._load(number, now) for number in range(len(self.consumers))], lane)

    def _load(self, lane: int, now: float) -> Load:
        since, last = self._busy[lane]
        held = self.consumers[lane].in_hand
        if now - last > PAUSE_SECONDS:
            since = now
        if held:
            last = now
        self._busy[lane] = since, last
        return Load(held, last - since if now - last <= PAUSE_SECONDS else 0.0)
