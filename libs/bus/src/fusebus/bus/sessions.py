"""A subscription handled session by session, some at a time: what a session has never waits behind another's.

Who sends says which messages belong together, and the broker keeps them apart: a supplier's ten are the next available
session however many another one sent before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from fusebus.bus.backoff import backoff
from fusebus.bus.errors import ConsumerDead, LinkBroken
from fusebus.bus.session_link import SessionLink
from fusebus.bus.settings import ConsumerSettings, SessionSettings
from fusebus.bus.settlement import Source
from fusebus.bus.worker import Consumer
from fusebus.host import until_stopped

LOOK_SECONDS = 0.1  # between two looks at a session that is served

MakeConsumer = Callable[[SessionLink, asyncio.Event], Consumer]
"""The consumer of one session; it ends when the event is set."""

log = logging.getLogger(__name__)


class Sessions:
    """Serves the sessions of a subscription until stopped, each by a consumer of its own.

    A session is let go when it is empty. Where all places are taken others may wait, so the one held longest gets no
    more after a while, and goes when what is in hand is done: one at a time, and the next only where that helped.
    """

    def __init__(
        self,
        source: Source,
        *,
        link: Callable[[], SessionLink],
        consumer: MakeConsumer,
        stop: asyncio.Event,
        settings: ConsumerSettings,
        sessions: SessionSettings,
    ) -> None:
        self._name, self._link, self._consumer, self._stop = source.name, link, consumer, stop
        self._settings, self._sessions = settings, sessions
        self._ended = asyncio.Event()
        self._turnstile = asyncio.Semaphore(sessions.accepting)
        self._accepting: dict[SessionLink, float] = {}  # since when
        self._serving: dict[Consumer, float] = {}  # since when, the longest first
        self._leaving: dict[Consumer, float] = {}  # likewise: they get no more
        self._failures = 0  # to accept a session that has something, in a row
        self._broken_since: float | None = None

    def is_alive(self) -> bool:
        """Whether all its loops still come round."""
        oldest = time.monotonic() - self._sessions.accept_seconds - self._settings.turn_seconds
        accepting = all(since >= oldest for since in self._accepting.values())
        return accepting and all(consumer.is_alive() for consumer in self._serving)

    async def run(self) -> None:
        """Serve until stopped; whatever ends it, finish or give back what is in hand. Raises ConsumerDead."""
        log.info("consuming %s, %d sessions at a time", self._name, self._sessions.most)
        stopped = asyncio.create_task(self._stop.wait())
        places = [asyncio.create_task(self._serve_sessions()) for _ in range(self._sessions.most)]
        try:
            await asyncio.wait([stopped, *places], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._ended.set()
            stopped.cancel()
            done = await asyncio.gather(*places, return_exceptions=True)
            log.info("stopped consuming %s", self._name)
        if (error := next((one for one in done if isinstance(one, BaseException)), None)) is not None:
            raise error

    async def _serve_sessions(self) -> None:
        while not self._ended.is_set():
            async with self._turnstile:
                link = None if self._ended.is_set() else await self._accepted()
            if link is not None:
                await self._serve(link)

    # A session, if there is one.

    async def _accepted(self) -> SessionLink | None:
        """The next session that has messages; None where none came in time, or the end did."""
        link, began = self._link(), time.monotonic()
        try:
            found = await self._accept(link)
        except LinkBroken as error:
            await self._wait_after_failure(f"no session could be accepted: {error}")
            return None
        if found:
            return link
        if time.monotonic() - began < self._sessions.accept_seconds / 2:  # it did not wait as it was asked to
            await self._rest(self._settings.rebuild_backoff_seconds)
        return None

    async def _accept(self, link: SessionLink) -> bool:
        """Raises LinkBroken."""
        self._accepting[link] = time.monotonic()
        try:
            accepting = link.accept(self._sessions.accept_seconds)
            return bool(await until_stopped(accepting, self._ended, link.clean_up_seconds))
        finally:
            del self._accepting[link]

    async def _wait_after_failure(self, reason: str) -> None:
        """Raises ConsumerDead where it has been so for long, and no session is served."""
        now = time.monotonic()
        self._failures += 1
        self._broken_since = self._broken_since or now
        log.warning("%s: %d in a row: %s", self._name, self._failures, reason)
        if now - self._broken_since >= self._settings.stall_seconds and not self._serving:
            raise ConsumerDead(f"{self._name}: no session for {now - self._broken_since:.0f} s: {reason}")
        first, most = self._settings.rebuild_backoff_seconds, self._settings.rebuild_backoff_most_seconds
        await self._rest(backoff(1 + self._failures // self._sessions.accepting, first, most))

    async def _rest(self, seconds: float) -> None:
        ended = asyncio.create_task(self._ended.wait())
        await asyncio.wait({ended}, timeout=seconds)
        ended.cancel()

    # A session's time.

    async def _serve(self, link: SessionLink) -> None:
        """Until it is empty, lost or has to go."""
        over = asyncio.Event()
        consumer = self._consumer(link, over)
        self._serving[consumer] = time.monotonic()
        watching = asyncio.create_task(self._watch(consumer, over))
        try:
            await consumer.run()
        finally:
            watching.cancel()
            del self._serving[consumer]
            self._leaving.pop(consumer, None)
        if not consumer.counts["received"] and not self._ended.is_set():
            await self._wait_after_failure("a session that was accepted delivered nothing")

    async def _watch(self, consumer: Consumer, over: asyncio.Event) -> None:
        """Set the event when the session is empty or the end has come; meanwhile say when it gets no more."""
        while not self._ended.is_set():
            most = self._sessions.empty_seconds
            if consumer.counts["received"]:
                self._failures, self._broken_since = 0, None
            else:
                most = self._sessions.first_seconds
            if consumer.idle_seconds >= most or (consumer in self._leaving and not consumer.in_hand):
                break
            if self._has_to_go(consumer):
                self._leaving[consumer], consumer.room = time.monotonic(), _no_room
            await self._rest(LOOK_SECONDS)
        over.set()

    def _has_to_go(self, consumer: Consumer) -> bool:
        """While somebody waits for a session, no session waits for a reader."""
        if self._accepting or len(self._serving) < self._sessions.most:
            return False
        recently = time.monotonic() - self._sessions.hold_seconds
        if any(since > recently for since in self._leaving.values()):
            return False
        longest = next((one for one in self._serving if one not in self._leaving), None)
        return consumer is longest and self._serving[consumer] <= recently


def _no_room(slots: int) -> int:
    return 0
