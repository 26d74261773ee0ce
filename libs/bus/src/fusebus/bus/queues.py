"""Measures all queues of the topology for metrics: how many messages wait, how old the oldest is, how many are dead."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from fusebus.bus.administration import Administration
from fusebus.bus.connection import Connection
from fusebus.bus.dead_letters import Peek
from fusebus.bus.errors import BusError
from fusebus.bus.settings import BusSettings
from fusebus.bus.tracing import destination
from fusebus.contracts.topology import TOPICS

FRESH_LOOKS = 3
"""What was measured longer ago than so many looks is unknown, and unknown is not zero."""

_meter = metrics.get_meter("fusebus.bus")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Queue:
    """One subscription at one moment."""

    measured_at: float
    """Seconds, monotonic."""
    active: int
    dead: int
    scheduled: int
    """Of the topic."""
    oldest_seconds: float | None
    """Age of the message at the head, 0 where none waits; None: it could not be seen."""


class QueueWatch:
    """All subscriptions of the topology; `look` measures, whoever collects metrics reads what the last look saw."""

    def __init__(self, connection: Connection, administration: Administration, settings: BusSettings) -> None:
        self._administration = administration
        self._fresh_seconds = FRESH_LOOKS * (settings.queue_metrics_seconds + settings.depth_seconds)
        self._heads = {
            (topic.name, subscription.name): None
            if subscription.requires_session  # it has as many heads as sessions, and shows none without accepting one
            else Peek(connection, topic.name, subscription.name, settings, None)
            for topic in TOPICS
            for subscription in topic.subscriptions
        }
        self._found: dict[tuple[str, str], _Queue] = {}
        self._offer()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._found = {}
        await asyncio.gather(*(head.close() for head in self._heads.values() if head is not None))

    async def look(self) -> None:
        """Measure all; what can't be measured keeps its last value until that is too old."""
        await asyncio.gather(*(self._measure(*key) for key in self._heads))

    async def _measure(self, topic: str, subscription: str) -> None:
        depth = await self._administration.depth(topic, subscription)
        if depth is None:
            return
        self._found[topic, subscription] = _Queue(
            measured_at=time.monotonic(),
            active=depth.active,
            dead=depth.dead_letter,
            scheduled=depth.scheduled,
            oldest_seconds=await self._age(topic, subscription) if depth.active else 0.0,
        )

    async def _age(self, topic: str, subscription: str) -> float | None:
        if (head := self._heads[topic, subscription]) is None:
            return None
        try:
            oldest = await head.oldest()
        except BusError as error:
            log.warning("the age of a queue is not known: %s", error)
            return None
        return 0.0 if oldest is None else max(0.0, time.time() - oldest.timestamp())

    def _offer(self) -> None:
        _meter.create_observable_gauge(
            "fusebus.queue.messages",
            [self._gauge(lambda found: {"active": found.active, "dead_letter": found.dead})],
            unit="{message}",
            description="Messages in each subscription that wait or are worked on, and its dead letters.",
        )
        _meter.create_observable_gauge(
            "fusebus.queue.oldest.age",
            [self._gauge(lambda found: {"": found.oldest_seconds})],
            unit="s",
            description="How long the message at the head of each subscription has been there.",
        )
        _meter.create_observable_gauge(
            "fusebus.topic.scheduled",
            [self._scheduled],
            unit="{message}",
            description="Messages of each topic that are to appear later.",
        )

    def _fresh(self) -> list[tuple[tuple[str, str], _Queue]]:
        oldest = time.monotonic() - self._fresh_seconds
        return [(key, found) for key, found in list(self._found.items()) if found.measured_at >= oldest]

    def _gauge(
        self, values: Callable[[_Queue], dict[str, float | None]]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def read(_: CallbackOptions) -> Iterable[Observation]:
            return [
                Observation(value, destination(*key) | ({"fusebus.state": state} if state else {}))
                for key, found in self._fresh()
                for state, value in values(found).items()
                if value is not None
            ]

        return read

    def _scheduled(self, _: CallbackOptions) -> Iterable[Observation]:
        found = {topic: queue.scheduled for (topic, _), queue in self._fresh()}
        return [Observation(count, destination(topic)) for topic, count in found.items()]
