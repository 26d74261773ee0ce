"""Several subscriptions of a topic handled side by side as one: their consumers share slots, and idle together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from fusebus.bus.worker import Consumer

IDLE_POLL_SECONDS = 0.2

Share = Callable[[int, Sequence[int], int], int]
"""From the slots there are, what every lane has in hand, and a lane's number: how many messages it may have in hand."""


def by_rank(slots: int, in_hand: Sequence[int], lane: int) -> int:
    """The first lane has all slots, whatever the others hold; each further one what those before it leave.

    A less urgent lane gets nothing while the more urgent are full: what it held meanwhile would only age.
    """
    return max(0, slots - sum(in_hand[:lane]))


def apart(slots: int, in_hand: Sequence[int], lane: int) -> int:
    """Each lane has so many slots of its own: the handler chooses among the messages of all lanes."""
    return slots


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
        return self._share(slots, [consumer.in_hand for consumer in self.consumers], lane)
