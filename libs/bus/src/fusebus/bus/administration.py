"""How much waits in a subscription, as the namespace's administration endpoint says it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from azure.servicebus.aio.management import ServiceBusAdministrationClient
from azure.servicebus.management import EntityStatus

from fusebus.bus.connection import Connection, close_quietly
from fusebus.bus.settings import BusSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Depth:
    """Counts of one subscription; approximate in Azure."""

    active: int
    """Includes messages that somebody has locked."""
    dead_letter: int
    scheduled: int
    """Of the whole topic: a subscription has no such count."""


class Administration:
    """Reads depths; opens its client when first asked."""

    def __init__(self, connection: Connection, settings: BusSettings) -> None:
        self._connection = connection
        self._settings = settings
        self._client: ServiceBusAdministrationClient | None = None
        self._reading: dict[str, asyncio.Task[dict[str, Depth]]] = {}

    async def depth(self, topic: str, subscription: str) -> Depth | None:
        """The counts now; None where they can't be read. Who asks for several of a topic at once shares one reading."""
        reading = self._reading.get(topic)
        if reading is None or reading.done():
            reading = self._reading[topic] = asyncio.create_task(self._read(topic))
            reading.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may wait any more
        try:
            return (await asyncio.shield(reading))[subscription]
        except Exception as error:
            log.warning("the depth of %s/%s could not be read: %r", topic, subscription, error)
            return None

    async def receiving(self, topic: str, subscription: str) -> bool | None:
        """Whether consumers get anything: not where somebody has disabled the subscription; None: it can't be read."""
        try:
            async with asyncio.timeout(self._settings.depth_seconds):
                found = await self._opened().get_subscription(topic, subscription)
        except Exception as error:
            log.warning("the state of %s/%s could not be read: %r", topic, subscription, error)
            return None
        return found.status not in (EntityStatus.DISABLED, EntityStatus.RECEIVE_DISABLED)

    async def close(self) -> None:
        """Close the client; a question would open it again."""
        for reading in self._reading.values():
            reading.cancel()
        await asyncio.gather(*self._reading.values(), return_exceptions=True)
        client, self._client = self._client, None
        await close_quietly(client, self._settings.close_seconds)

    def _opened(self) -> ServiceBusAdministrationClient:
        if self._client is None:
            self._client = self._connection.administration()
        return self._client

    async def _read(self, topic: str) -> dict[str, Depth]:
        """Of all subscriptions, in two requests however many there are."""
        client = self._opened()
        async with asyncio.timeout(self._settings.depth_seconds):
            whole = await client.get_topic_runtime_properties(topic)
            scheduled = _known(whole.scheduled_message_count)
            return {
                found.name: Depth(
                    active=_known(found.active_message_count),
                    dead_letter=_known(found.dead_letter_message_count),
                    scheduled=scheduled,
                )
                async for found in client.list_subscriptions_runtime_properties(topic)
            }


def _known(count: int | None) -> int:
    if count is None:
        raise ValueError("the answer lacks a count")
    return count
