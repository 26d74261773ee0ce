"""The bus as a service sees it: publish, consume, look at depths and dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

import msgspec

from fusebus.bus.administration import Administration, Depth
from fusebus.bus.confirmed import Confirmed
from fusebus.bus.connection import Connection
from fusebus.bus.context import Handler
from fusebus.bus.dead_letters import DeadLetter, Peek
from fusebus.bus.dealing import Dealing, Dealt
from fusebus.bus.lanes import Lanes, Share, by_rank
from fusebus.bus.link import ReceiveLink
from fusebus.bus.liveness import watch_lag
from fusebus.bus.publisher import Publisher
from fusebus.bus.queues import QueueWatch
from fusebus.bus.renewal import RenewalLink
from fusebus.bus.session_link import SessionLink
from fusebus.bus.sessions import Sessions
from fusebus.bus.settings import BusSettings, ConsumerSettings, SessionSettings
from fusebus.bus.settlement import Source
from fusebus.bus.taking_out import Instead, Taken, TakingOut
from fusebus.bus.worker import Consumer, Limit
from fusebus.contracts import topology
from fusebus.host import metrics_are_read


class Bus:
    """One process's connection to the namespace; nothing connects before it is used."""

    def __init__(self, settings: BusSettings) -> None:
        """Raises SettingsError where neither a connection string nor a namespace is set."""
        self._settings = settings
        self._connection = Connection(settings)
        self._publisher = Publisher(self._connection, settings)
        self._administration = Administration(self._connection, settings)
        self._peeks: dict[tuple[str, str], Peek] = {}
        self._consumers: set[Consumer | Sessions] = set()
        self._watchdog: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._watchdog = asyncio.create_task(watch_lag(self._settings.lag_warning_seconds))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
        peeks = [peek.close() for peek in self._peeks.values()]
        await asyncio.gather(self._publisher.close(), self._administration.close(), *peeks)
        await self._connection.close()

    def publisher(self) -> Publisher:
        """The process's publisher."""
        return self._publisher

    def consumer(
        self,
        topic: str,
        subscription: str,
        handler: Handler,
        *,
        stop: asyncio.Event,
        slots: int | None = None,
        idle_exit: float | None = None,
        settings: ConsumerSettings | None = None,
        limit: Limit | None = None,
        ready: asyncio.Event | None = None,
    ) -> Consumer:
        """A consumer to `run`; its `counts` say what it did. Raises KeyError for a subscription not in the topology.

        `limit`, asked before each receive, may lower the number of slots for a while. Nothing is received before
        `ready` is set; the link is opened meanwhile.
        """
        topology.subscription(topic, subscription)
        chosen = settings or ConsumerSettings()
        if slots is not None:
            chosen = msgspec.structs.replace(chosen, slots=slots)
        if idle_exit is not None:
            chosen = msgspec.structs.replace(chosen, idle_exit_seconds=idle_exit)
        return Consumer(
            source=Source(topic=topic, subscription=subscription),
            handler=handler,
            stop=stop,
            link=ReceiveLink(self._connection, topic, subscription, self._settings),
            renewals=RenewalLink(self._connection, topic, subscription, self._settings, chosen.renew_seconds),
            publisher=self._publisher,
            depth=self.depth,
            settings=chosen,
            limit=limit,
            ready=ready,
        )

    async def consume(
        self,
        topic: str,
        subscription: str,
        handler: Handler,
        *,
        stop: asyncio.Event,
        slots: int | None = None,
        idle_exit: float | None = None,
        settings: ConsumerSettings | None = None,
        limit: Limit | None = None,
        ready: asyncio.Event | None = None,
    ) -> None:
        """Handle messages until `stop` is set (then drain) or none came for `idle_exit` seconds.

        `slots` and `idle_exit` replace the fields of `settings`; `limit` and `ready` are as for `consumer`.
        Raises ConsumerDead: let it end the process.
        """
        consumer = self.consumer(
            topic,
            subscription,
            handler,
            stop=stop,
            slots=slots,
            idle_exit=idle_exit,
            settings=settings,
            limit=limit,
            ready=ready,
        )
        self._consumers.add(consumer)
        try:
            await consumer.run()
        finally:
            self._consumers.discard(consumer)

    async def consume_lanes(
        self,
        topic: str,
        subscriptions: Sequence[str],
        handler: Handler,
        *,
        share: Share = by_rank,
        stop: asyncio.Event,
        slots: int | None = None,
        idle_exit: float | None = None,
        settings: ConsumerSettings | None = None,
        limit: Limit | None = None,
        ready: asyncio.Event | None = None,
    ) -> None:
        """As `consume`, for several subscriptions of a topic that share the slots as `share` says: most urgent first.

        It ends as idle when none of them had anything for `idle_exit` seconds.
        """
        chosen = settings or ConsumerSettings()
        idle = chosen.idle_exit_seconds if idle_exit is None else idle_exit
        ended = asyncio.Event()
        consumers = [
            self.consumer(
                topic, one, handler, stop=ended, slots=slots, idle_exit=0, settings=chosen, limit=limit, ready=ready
            )
            for one in subscriptions
        ]
        self._consumers.update(consumers)
        try:
            await Lanes(consumers, share, stop=stop, ended=ended, idle_exit=idle).run()
        finally:
            self._consumers.difference_update(consumers)

    async def consume_sessions(
        self,
        topic: str,
        subscription: str,
        handler: Handler,
        *,
        stop: asyncio.Event,
        settings: ConsumerSettings | None = None,
        sessions: SessionSettings | None = None,
    ) -> None:
        """Handle the messages of a subscription with sessions until `stop`, some sessions side by side, then drain.

        Each session has the slots of `settings`. Raises ConsumerDead: let it end the process; KeyError for a
        subscription not in the topology, ValueError for one without sessions.
        """
        if not topology.subscription(topic, subscription).requires_session:
            raise ValueError(f"{topic}/{subscription} has no sessions: call consume")
        chosen, by_session = settings or ConsumerSettings(), sessions or SessionSettings()
        source, confirmed = Source(topic=topic, subscription=subscription), Confirmed(chosen.confirmed_memory)
        of_one = msgspec.structs.replace(
            chosen, idle_exit_seconds=0.0, idle_wait_seconds=min(chosen.idle_wait_seconds, by_session.empty_seconds)
        )

        def link() -> SessionLink:
            return SessionLink(self._connection, topic, subscription, self._settings, chosen.renew_seconds)

        def consumer(link: SessionLink, over: asyncio.Event) -> Consumer:
            return Consumer(
                source=source,
                handler=handler,
                stop=over,
                link=link,
                renewals=link,
                publisher=self._publisher,
                depth=self.depth,
                settings=of_one,
                confirmed=confirmed,
            )

        served = Sessions(source, link=link, consumer=consumer, stop=stop, settings=chosen, sessions=by_session)
        self._consumers.add(served)
        try:
            await served.run()
        finally:
            self._consumers.discard(served)

    def is_alive(self) -> bool:
        """Whether every consumer's loop still comes round."""
        return all(consumer.is_alive() for consumer in self._consumers)

    async def depth(self, topic: str, subscription: str) -> Depth | None:
        """How much waits; None where it could not be read: unknown is not zero."""
        return await self._administration.depth(topic, subscription)

    async def receiving(self, topic: str, subscription: str) -> bool | None:
        """Whether consumers get anything: not where the subscription is disabled; None: it can't be read."""
        return await self._administration.receiving(topic, subscription)

    async def take_out(self, topic: str, subscription: str, run_id: str, instead: Instead = lambda _: None) -> Taken:
        """Take the run's messages out of a subscription; what `instead` makes of each is sent to the topic first.

        How many, and whether those are all; not those that workers hold. Raises BusError: a repeat takes the rest.
        """
        topology.subscription(topic, subscription)
        return await TakingOut(self._connection, topic, subscription, self._settings).run(
            run_id, instead, self._publisher
        )

    async def waiting(self, topic: str, subscription: str, run_id: str) -> frozenset[str]:
        """The uploads that the run's messages in a subscription are about, those that workers hold too.

        Not those that are put off for later, which only the topic has. Raises BusError.
        """
        topology.subscription(topic, subscription)
        return await TakingOut(self._connection, topic, subscription, self._settings).waiting(run_id)

    async def peek_dead_letters(self, topic: str, subscription: str, after_sequence: int = 0) -> list[DeadLetter]:
        """The next dead letters after a sequence number, oldest first; empty where there are no more.

        Raises BusError where they could not be read.
        """
        key = (topic, subscription)
        if key not in self._peeks:
            self._peeks[key] = Peek(self._connection, topic, subscription, self._settings)
        return await self._peeks[key].after(after_sequence)

    async def deal_with_dead_letters(
        self, topic: str, subscription: str, message_ids: Collection[str] = (), *, put_back: bool
    ) -> Dealt:
        """Remove dead letters for good, those with these ids or all; `put_back`: send each to the topic again first.

        Raises BusError: a repeat deals with the rest.
        """
        topology.subscription(topic, subscription)
        dealing = Dealing(self._connection, topic, subscription, self._settings)
        return await dealing.run(message_ids, self._publisher if put_back else None)

    async def watch_queues(self, stop: asyncio.Event) -> None:
        """Measure every queue of the topology until `stop`; at once over where nobody reads metrics or it is off."""
        seconds = self._settings.queue_metrics_seconds
        if not seconds or not metrics_are_read():
            return
        async with QueueWatch(self._connection, self._administration, self._settings) as watch:
            while not stop.is_set():
                await watch.look()
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), seconds)
