"""A subscription handled session by session, some at a time: what a session's reader has never waits behind another's.

Who sends says which messages belong together, and the broker keeps them apart: a supplier's ten are the next available
session however many another one sent before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.exceptions import OperationTimeoutError, SessionLockLostError

from fusebus.bus.backoff import backoff
from fusebus.bus.connection import Connection
from fusebus.bus.errors import ConsumerDead, LinkBroken, LockLost
from fusebus.bus.link import ReceiveLink
from fusebus.bus.received import Received, received
from fusebus.bus.settings import BusSettings, ConsumerSettings, SessionSettings
from fusebus.bus.settlement import Source
from fusebus.bus.worker import Consumer

log = logging.getLogger(__name__)


class SessionLink(ReceiveLink):
    """A receiver of one session, whichever has messages and no other reader.

    It opens once: what was received of a session can't be settled over the link of another. All its messages have the
    session's lock, and only this link can renew it: the loop does when it comes round, once for all that ask.
    """

    reopens = False

    def __init__(
        self, connection: Connection, topic: str, subscription: str, settings: BusSettings, renew_seconds: float
    ) -> None:
        super().__init__(connection, topic, subscription, settings)
        self._renew_seconds = renew_seconds
        self._asked: asyncio.Future[datetime] | None = None

    async def accept(self, seconds: float) -> bool:
        """Wait so long for a session that has messages; whether one came. Raises LinkBroken."""
        client = self._connection.client(seconds)
        receiver = self._connection.session_receiver(client, self._topic, self._subscription, seconds)
        try:
            await self._attach(client, receiver, seconds + self._settings.open_seconds)
        except LinkBroken as error:
            if isinstance(error.__cause__, OperationTimeoutError):
                return False
            raise
        return True

    async def open(self) -> None:
        """Never again. Raises LinkBroken."""
        raise LinkBroken("the session is over")

    async def renew(self, message: ServiceBusReceivedMessage) -> datetime:
        """The new end of the session's lock, once the loop has come round. Raises LockLost or LinkBroken."""
        if self._asked is None:
            self._asked = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._asked)

    async def look_after(self) -> None:
        """Renew the lock if any message's keeper asked. Raises LinkBroken."""
        asked, self._asked, receiver = self._asked, None, self._receiver
        if asked is None or receiver is None:
            return
        try:
            async with asyncio.timeout(self._renew_seconds):
                asked.set_result(await receiver.session.renew_lock())
        except SessionLockLostError as error:
            asked.set_exception(LockLost(str(error)))
        except Exception as error:
            asked.set_exception(LinkBroken(f"renewal: {error!r}"))
        if (failed := asked.exception()) is not None:  # looked at, or asyncio would complain where nobody waits
            raise LinkBroken(f"the session is lost: {failed}") from failed

    async def close(self) -> None:
        """Let the session go, with what of it is not settled."""
        if self._asked is not None:
            self._asked.cancel()
        await super().close()

    def _received(self, message: ServiceBusReceivedMessage) -> Received:
        locked_until = None if self._receiver is None else self._receiver.session.locked_until_utc
        return received(message, locked_until)


TURN_POLL_SECONDS = 0.2
CANCEL_POLL_SECONDS = 0.5

MakeConsumer = Callable[[SessionLink, asyncio.Event], Consumer]
"""The consumer of one session; it ends when the event is set."""


class Sessions:
    """Serves the sessions of a subscription until stopped, each by a consumer of its own.

    A session is let go when it is empty, and after its turn where all places are taken: others may wait then.
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
        self._consumers: set[Consumer] = set()
        self._failures = 0  # to accept, in a row
        self._broken_since: float | None = None

    def is_alive(self) -> bool:
        """Whether all its loops still come round."""
        oldest = time.monotonic() - self._sessions.accept_seconds - self._settings.turn_seconds
        accepting = all(since >= oldest for since in self._accepting.values())
        return accepting and all(consumer.is_alive() for consumer in self._consumers)

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
                link = await self._accepted()
            if link is not None:
                await self._serve(link)

    async def _accepted(self) -> SessionLink | None:
        """The next session that has messages; None where none came in time, or the end did."""
        link = self._link()
        accepting = asyncio.create_task(link.accept(self._sessions.accept_seconds))
        ended = asyncio.create_task(self._ended.wait())
        self._accepting[link] = time.monotonic()
        try:
            await asyncio.wait({accepting, ended}, return_when=asyncio.FIRST_COMPLETED)
            while not accepting.done():
                accepting.cancel()  # again where the SDK lost it: its `wait_for` may end just then
                await asyncio.wait({accepting}, timeout=CANCEL_POLL_SECONDS)
            found = accepting.result()
        except LinkBroken as error:
            await self._wait_after(error, ended)
            return None
        except asyncio.CancelledError:
            if not self._ended.is_set():
                raise
            return None
        finally:
            ended.cancel()
            del self._accepting[link]
        self._failures, self._broken_since = 0, None
        return link if found else None

    async def _wait_after(self, error: LinkBroken, ended: asyncio.Task[bool]) -> None:
        now = time.monotonic()
        self._failures += 1
        self._broken_since = self._broken_since or now
        log.warning("%s: no session could be accepted, %d in a row: %s", self._name, self._failures, error)
        if now - self._broken_since >= self._settings.stall_seconds:
            raise ConsumerDead(f"{self._name}: no session for {now - self._broken_since:.0f} s: {error}") from error
        first, most = self._settings.rebuild_backoff_seconds, self._settings.rebuild_backoff_most_seconds
        await asyncio.wait({ended}, timeout=backoff(self._failures, first, most))

    async def _serve(self, link: SessionLink) -> None:
        """Until the session is empty, or its turn is over."""
        over = asyncio.Event()
        consumer = self._consumer(link, over)
        self._consumers.add(consumer)
        turn = asyncio.create_task(self._end_turn(over))
        try:
            await consumer.run()
        finally:
            turn.cancel()
            self._consumers.discard(consumer)

    async def _end_turn(self, over: asyncio.Event) -> None:
        """Set the event when the session has had its turn and nobody is left who could accept another, or at the end.

        While somebody waits for a session, no session waits for a reader.
        """
        left = self._sessions.turn_seconds
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._ended.wait()
            if self._ended.is_set() or not self._accepting:
                over.set()
                return
            left = TURN_POLL_SECONDS
