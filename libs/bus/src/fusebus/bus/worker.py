"""The consumer loop: receive, keep the lock, let `handling` decode, handle and publish, then settle.

No other place does any of this.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from fusebus.bus import measures
from fusebus.bus.administration import Depth
from fusebus.bus.backoff import backoff
from fusebus.bus.confirmed import Confirmed
from fusebus.bus.context import Handler
from fusebus.bus.counts import Counts
from fusebus.bus.errors import Busy, ConsumerDead, LinkBroken, LockLost
from fusebus.bus.handling import Handling
from fusebus.bus.link import ReceiveLink
from fusebus.bus.liveness import Finding, judge
from fusebus.bus.publisher import Publisher
from fusebus.bus.received import Received
from fusebus.bus.renewal import Lock, Renewals, keep_lock
from fusebus.bus.settings import ConsumerSettings
from fusebus.bus.settlement import Complete, DeadLetter, GiveBack, Settlement, Source
from fusebus.bus.tracing import settle_span
from fusebus.host import until_stopped

log = logging.getLogger(__name__)

Limit = Callable[[float], int]
"""How many messages may be in hand now, given the longest lock seen in seconds (0: none yet)."""


@dataclass(eq=False)
class Work:
    """One message that we hold."""

    message: Received
    lock: Lock
    keeper: asyncio.Task[None]
    task: asyncio.Task[Settlement]
    settle_attempts: int = 0


class Consumer:
    """Receives from one subscription, hands to one handler, until stopped, idle or dead."""

    def __init__(
        self,
        *,
        source: Source,
        handler: Handler,
        stop: asyncio.Event,
        link: ReceiveLink,
        renewals: Renewals,
        publisher: Publisher,
        depth: Callable[[str, str], Awaitable[Depth | None]],
        settings: ConsumerSettings,
        limit: Limit | None = None,
        ready: asyncio.Event | None = None,
        confirmed: Confirmed | None = None,
    ) -> None:
        """`limit` is asked before each receive; it can only lower `settings.slots`, to 1 at the least.

        Until `ready` is set the link is opened, but nothing is received. `confirmed` is given where several consumers
        of a subscription have it in common.
        """
        self._source = source
        self._name = source.name
        self._stop = stop
        self._depth = depth
        self._settings = settings
        self._limit = limit
        self._ready = ready
        self._link = link
        self._renewals = renewals
        self._work: set[Work] = set()
        self._draining = False
        self._longest_lock = 0.0
        self._confirmed = Confirmed(settings.confirmed_memory) if confirmed is None else confirmed
        self._turned = self._worked = self._hungry_since = time.monotonic()
        self._rebuilt = False  # since the last message, because none came
        self._failures = 0  # of the link, in a row
        self._broken_since: float | None = None
        self.room: Callable[[int], int] | None = None
        """How many of so many slots may be in use, perhaps none, where others use them too."""
        self.counts = Counts(source)
        self._handling = Handling(source, handler, publisher, settings, self.counts)

    def is_alive(self) -> bool:
        """Whether the loop still comes round; a loop that hangs inside the SDK does not."""
        return time.monotonic() - self._turned < self._settings.turn_seconds

    @property
    def in_hand(self) -> int:
        """Messages held now."""
        return len(self._work)

    @property
    def idle_seconds(self) -> float:
        """How long nothing came; 0 with work in hand, and without a link: who is cut off is blind, not idle."""
        return time.monotonic() - self._worked if self._link.is_open and not self._work else 0.0

    async def run(self) -> None:
        """Consume until stopped or idle; whatever ends it, finish or give back what is in hand. Raises ConsumerDead."""
        self._turned = self._worked = self._hungry_since = time.monotonic()
        level = logging.INFO if self._link.reopens else logging.DEBUG  # of a session the others tell
        log.log(level, "consuming %s with %d slots", self._name, self._settings.slots)
        try:
            await self._consume()
        finally:
            try:
                await self._drain()
            finally:
                await self._close()
                log.log(level, "stopped consuming %s: %r", self._name, self.counts)

    # The loop: receive a little, settle what is finished, look around.

    async def _consume(self) -> None:
        while not self._stop.is_set() and not self._is_idle():
            self._turned = time.monotonic()
            if not self._link.is_open:
                if not self._link.reopens:
                    return
                await self._open_link()
                continue
            if self._ready is not None and not self._ready.is_set():
                await self._wait_until_ready(self._ready)
                continue
            await self._settle_finished()
            if not self._link.is_open:
                continue
            if (free := self._slots() - len(self._work)) > 0:
                await self._receive(free)
                await self._check_progress()
            else:
                self._hungry_since = time.monotonic()
                await self._wait_for_work(self._settings.idle_wait_seconds)

    def _slots(self) -> int:
        most = self._settings.slots
        if self._limit is not None:
            most = max(1, min(most, self._limit(self._longest_lock)))
        return most if self.room is None else min(most, self.room(most))

    async def _receive(self, free: int) -> None:
        seconds = self._settings.busy_wait_seconds if self._work else self._settings.idle_wait_seconds
        try:
            messages = await self._link.receive(free, seconds)
        except LinkBroken as error:
            await self._break_link(error)
            return
        for message in messages:
            self._begin(message)
        self._failures, self._broken_since = 0, None
        if messages:
            self._rebuilt = False
            self._worked = self._hungry_since = time.monotonic()

    def _begin(self, message: Received) -> None:
        self.counts.add("received")
        measures.received(self._source, message.delivery_count)
        if self._confirmed.has(message.sequence, message.message_id):
            self.counts.add("redelivered_after_confirmed_complete")
            log.error("%s: %s came back after its completion was confirmed", self._name, message.message_id)
        now = time.time()
        lock = Lock(message.locked_until.timestamp())
        self._longest_lock = max(self._longest_lock, lock.left(now))
        renew = partial(self._renewals.renew, message.raw)
        keeper = asyncio.create_task(keep_lock(lock, renew, self._settings, self.counts))
        # What aged on its way, and has little of its lock left, is renewed before anybody starts on it.
        aged = lock.left(now) < self._longest_lock * self._settings.start_with_lock_share
        task = asyncio.create_task(
            _not_started() if self._stop.is_set() else self._handling.process(message, lock, renew if aged else None)
        )
        self._work.add(Work(message, lock, keeper, task))

    async def _wait_until_ready(self, ready: asyncio.Event) -> None:
        """For so long as one receive may take; waiting is neither idleness nor hunger."""

        async def wait() -> None:
            with suppress(TimeoutError):
                await asyncio.wait_for(ready.wait(), self._settings.idle_wait_seconds)

        await until_stopped(wait(), self._stop)
        self._worked = self._hungry_since = time.monotonic()

    async def _wait_for_work(self, seconds: float) -> None:
        """Until one message is finished, or for so long; a stop ends it too unless it is already known."""
        tasks: set[asyncio.Task[Any]] = {work.task for work in self._work}
        stopped = asyncio.create_task(self._stop.wait())
        waited = tasks if self._draining else {*tasks, stopped}
        await asyncio.wait(waited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()

    def _is_idle(self) -> bool:
        """Whether nothing came for long enough."""
        return 0 < self._settings.idle_exit_seconds <= self.idle_seconds

    # Settling, by the loop: one answer of the broker for each message, all that are finished together.

    async def _settle_finished(self) -> None:
        if not self._link.is_open:
            return
        try:
            await self._link.look_after()
        except LinkBroken as broken:
            await self._break_link(broken)
            return
        finished = [work for work in self._work if work.task.done()]
        if not finished:
            return
        errors = await asyncio.gather(*(self._settle(work) for work in finished))
        self._worked = time.monotonic()
        if (error := next((error for error in errors if error is not None), None)) is not None:
            await self._break_link(error)

    async def _settle(self, work: Work) -> Exception | None:
        """Settle and let go; returns what was wrong with the link, then the next turn tries on a new one."""
        if work.lock.lost.is_set():
            log.warning("%s: lost the lock of %s: nothing settled", self._name, work.message.message_id)
            self.counts.add("lock_lost")
            self._let_go(work)
            return None
        settlement = _settlement_of(work)
        try:
            with (
                settle_span(self._source, work.message, settlement),
                measures.operation("settle", self._source.topic, self._source.subscription),
            ):
                async with asyncio.timeout(self._settings.settle_seconds):
                    await self._link.settle(work.message, settlement)
        except LockLost as error:
            log.warning("%s: lost the lock of %s when settling: %s", self._name, work.message.message_id, error)
            self.counts.add("lock_lost")
        except (LinkBroken, TimeoutError) as error:
            work.settle_attempts += 1
            self.counts.add("settle_failed")
            if work.settle_attempts < self._settings.settle_attempts:
                return error
            log.error("%s: %s stays unsettled: %r", self._name, work.message.message_id, error)
            self._let_go(work)
            return error
        else:
            self._confirm(work, settlement)
        self._let_go(work)
        return None

    def _confirm(self, work: Work, settlement: Settlement) -> None:
        match settlement:
            case Complete():
                self.counts.add("completed")
                self._confirmed.add(work.message.sequence, work.message.message_id)
            case DeadLetter(reason=reason):
                self.counts.add("dead_lettered")
                log.warning("%s: dead-lettered %s: %s", self._name, work.message.message_id, reason)
            case GiveBack(reason=reason):
                self.counts.add("given_back")
                log.info("%s: gave back %s: %s", self._name, work.message.message_id, reason)

    def _let_go(self, work: Work) -> None:
        work.keeper.cancel()
        self._work.discard(work)

    # The link's life: opened at need, opened again when it breaks, given up when that does not help.

    async def _open_link(self) -> None:
        if self._failures > 1:  # the first time at once: an idle link is detached after ten minutes, that is normal
            wait = backoff(
                self._failures - 1, self._settings.rebuild_backoff_seconds, self._settings.rebuild_backoff_most_seconds
            )
            await until_stopped(asyncio.sleep(wait), self._stop)
        try:
            await until_stopped(self._link.open(), self._stop, self._link.clean_up_seconds)
        except LinkBroken as error:
            await self._break_link(error)
        else:
            self._worked = time.monotonic()
            if self._failures and self._link.is_open:
                self.counts.add("rebuilt")

    async def _break_link(self, error: Exception) -> None:
        now = time.monotonic()
        self._failures += 1
        self._broken_since = self._broken_since or now
        log.warning("%s: the link broke, %d in a row: %s", self._name, self._failures, error)
        if not self._link.reopens:
            if isinstance(error, Busy) and now - self._broken_since < self._settings.stall_seconds:
                first, most = self._settings.rebuild_backoff_seconds, self._settings.rebuild_backoff_most_seconds
                await until_stopped(asyncio.sleep(backoff(self._failures, first, most)), self._stop)
                return
            for work in self._work:  # others may have them as soon as it is closed
                work.lock.lost.set()
        await self._link.close()
        if now - self._broken_since >= self._settings.stall_seconds:
            raise ConsumerDead(f"{self._name}: no working link for {now - self._broken_since:.0f} s: {error}")

    async def _check_progress(self) -> None:
        if not self._link.reopens:  # what others' sessions have says nothing of this one
            return
        hungry = time.monotonic() - self._hungry_since
        if hungry < self._settings.stall_seconds or not self._link.is_open:
            return
        depth = await self._depth(self._source.topic, self._source.subscription)
        waiting = None if depth is None else depth.active - len(self._work)
        self._hungry_since = time.monotonic()
        match judge(waiting, self._rebuilt):
            case Finding.EMPTY:
                self._rebuilt = False
            case Finding.REBUILD:
                log.warning("%s: %s messages wait, none came for %.0f s: new client", self._name, waiting, hungry)
                self._rebuilt = True
                self.counts.add("rebuilt")
                await self._link.close()
                await self._renewals.close()
            case Finding.DEAD:
                raise ConsumerDead(f"{self._name}: {waiting} messages wait, none came for {hungry:.0f} s, twice")

    # The end: finish, else give back.

    async def _drain(self) -> None:
        self._draining = True
        deadline = time.monotonic() + self._settings.drain_seconds
        with suppress(ConsumerDead):
            while self._work and self._may_settle and (left := deadline - time.monotonic()) > 0:
                await self._wait_for_work(min(left, self._settings.idle_wait_seconds))
                await self._settle_at_the_end()
            running = {work.task for work in self._work if not work.task.done()}
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running, timeout=self._settings.cancel_seconds * 2)
            await self._settle_at_the_end()

    @property
    def _may_settle(self) -> bool:
        return self._link.is_open or self._link.reopens

    async def _settle_at_the_end(self) -> None:
        if not self._may_settle:
            return
        if any(work.task.done() for work in self._work) and not self._link.is_open:
            with suppress(LinkBroken):
                await self._link.open()
            if not self._link.is_open:
                await asyncio.sleep(self._settings.busy_wait_seconds)
        await self._settle_finished()

    async def _close(self) -> None:
        for work in list(self._work):
            work.task.cancel()
            self._let_go(work)
        await asyncio.gather(self._link.close(), self._renewals.close())


async def _not_started() -> Settlement:
    return GiveBack("received while stopping")


def _settlement_of(work: Work) -> Settlement:
    """What the handling came to; a fault of our own gives the message back."""
    if work.task.cancelled():
        return GiveBack("cancelled")
    if (error := work.task.exception()) is not None:
        log.error("handling %s failed in the bus itself", work.message.message_id, exc_info=error)
        return GiveBack("fault in the bus")
    return work.task.result()
