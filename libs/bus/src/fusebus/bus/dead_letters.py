"""Reads dead letters without taking them: they stay for people."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver

from fusebus.bus.connection import Connection, close_quietly
from fusebus.bus.errors import BusError
from fusebus.bus.received import received
from fusebus.bus.settings import BusSettings
from fusebus.contracts.envelope import MAX_BODY_BYTES, Envelope, Poison

PEEK_ATTEMPTS = 2  # a link that was idle for ten minutes is gone, which only the next request notices

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """One message in a dead-letter queue, as seen by a peek."""

    sequence: int
    """Its place in the subscription; pass the highest one as `after_sequence` to go on."""
    message_id: str
    reason: str
    description: str
    enqueued_at: datetime | None
    delivery_count: int
    properties: Mapping[str, object]
    body: bytes
    """Cut after MAX_BODY_BYTES + 1."""
    envelope: Envelope | None
    """None where the body can't be decoded; `properties` may still say which upload it was."""


class Peek:
    """One subscription's messages, or its dead letters, seen over one long-lived link and left where they are."""

    def __init__(
        self,
        connection: Connection,
        topic: str,
        subscription: str,
        settings: BusSettings,
        sub_queue: Literal["deadletter"] | None = "deadletter",
    ) -> None:
        self._connection = connection
        self._sub_queue = sub_queue
        self._topic = topic
        self._subscription = subscription
        self._settings = settings
        self._guard = asyncio.Lock()  # the SDK's objects are not coroutine-safe
        self._client: ServiceBusClient | None = None
        self._receiver: ServiceBusReceiver | None = None

    async def after(self, sequence: int) -> list[DeadLetter]:
        """At most `peek_messages` dead letters with a higher sequence number, oldest first. Raises BusError."""
        async with self._guard:
            for attempt in range(1, PEEK_ATTEMPTS + 1):
                try:
                    async with asyncio.timeout(self._settings.peek_seconds):
                        found = await self._peek(sequence, self._settings.peek_messages)
                        return [_dead_letter(message) for message in found]
                except Exception as error:
                    await self.close()
                    if attempt == PEEK_ATTEMPTS:
                        raise BusError(f"dead letters of {self._topic}/{self._subscription}: {error}") from error
            return []

    async def oldest(self) -> datetime | None:
        """When the message at the head was enqueued; None where there is none. Raises BusError."""
        async with self._guard:
            try:
                async with asyncio.timeout(self._settings.peek_seconds):
                    return next((received(message).enqueued_at for message in await self._peek(0, 1)), None)
            except Exception as error:
                await self.close()
                raise BusError(f"the head of {self._topic}/{self._subscription}: {error}") from error

    async def close(self) -> None:
        """Close the link; a peek would open it again."""
        receiver, client = self._receiver, self._client
        self._receiver = self._client = None
        await close_quietly(receiver, self._settings.close_seconds)
        await close_quietly(client, self._settings.close_seconds)

    async def _peek(self, sequence: int, most: int) -> list[ServiceBusReceivedMessage]:
        if self._receiver is None:
            self._client = self._connection.client()
            self._receiver = self._connection.receiver(self._client, self._topic, self._subscription, self._sub_queue)
            await self._receiver.__aenter__()
        return await self._receiver.peek_messages(max_message_count=most, sequence_number=sequence + 1)


def _dead_letter(raw: ServiceBusReceivedMessage) -> DeadLetter:
    message = received(raw)
    envelope: Envelope | None = None
    body = b""
    try:
        body = message.body(MAX_BODY_BYTES)
        envelope = message.envelope()
    except Poison as poison:
        log.debug("dead letter %d can't be decoded: %s", message.sequence, poison)
    return DeadLetter(
        sequence=message.sequence,
        message_id=message.message_id,
        reason=raw.dead_letter_reason or "",
        description=raw.dead_letter_error_description or "",
        enqueued_at=message.enqueued_at,
        delivery_count=message.delivery_count,
        properties=message.properties,
        body=body,
        envelope=envelope,
    )
