"""Sends messages to the topics that carry them: batched, guarded, repeated with patience."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusSender
from azure.servicebus.exceptions import (
    MessageSizeExceededError,
    MessagingEntityNotFoundError,
    ServiceBusServerBusyError,
)

from fusebus.bus import measures
from fusebus.bus.backoff import backoff
from fusebus.bus.connection import Closer, Connection
from fusebus.bus.errors import PublishFailed
from fusebus.bus.lately import Lately, placed
from fusebus.bus.settings import BusSettings
from fusebus.bus.settlement import Parcel, parcels_of
from fusebus.bus.tracing import Sending
from fusebus.contracts.envelope import encode
from fusebus.contracts.outcomes import Outgoing

log = logging.getLogger(__name__)

Fence = Callable[[], None]
"""Called before each send; raises where it must not happen any more."""


class Publisher:
    """One long-lived sender for each topic; safe to share between coroutines.

    A supplier's uploads go to lanes by how many of them were sent lately (see topology).
    """

    def __init__(self, connection: Connection, settings: BusSettings) -> None:
        self._sent = Lately()
        self._connection = connection
        self._settings = settings
        self._senders: dict[str, _TopicSender] = {}

    async def publish(self, outgoing: Sequence[Outgoing]) -> None:
        """Send all; messages of one topic keep their order. Raises PublishFailed, ValueError where one is too large.

        Publishing the same again is safe: a repeat has the same message id and duplicate detection drops it.
        """
        await self.send(parcels_of(outgoing))

    async def send(self, parcels: Sequence[Parcel], fence: Fence = lambda: None) -> None:
        """Send prepared parcels (a delayed retry, a replay), as `publish` does; `fence` is asked before each send."""
        if not parcels:
            return
        # All are encoded before the first is sent: one that is too large leaves nothing half published.
        bodies = [encode(parcel.envelope.message) for parcel in parcels]
        parcels = placed(parcels, self._sent)
        for topic in sorted({parcel.topic for parcel in parcels}):
            mine = [(parcel, body) for parcel, body in zip(parcels, bodies, strict=True) if parcel.topic == topic]
            with (
                Sending(topic, [parcel for parcel, _ in mine]) as sending,
                measures.operation("send", topic, messages=len(mine)),
            ):
                made = zip(mine, sending.traceparents(), strict=True)
                messages = [_message(parcel, body, traceparent) for (parcel, body), traceparent in made]
                await self._sender(topic).send(messages, fence)

    async def connect(self, topic: str) -> None:
        """Open the link to a topic, which the first message would else wait for. A failure is left to that message."""
        await self._sender(topic).connect()

    async def close(self) -> None:
        """Close all senders."""
        await asyncio.gather(*(sender.close() for sender in self._senders.values()))
        self._senders.clear()

    def _sender(self, topic: str) -> _TopicSender:
        if topic not in self._senders:
            self._senders[topic] = _TopicSender(self._connection, topic, self._settings)
        return self._senders[topic]


def _message(parcel: Parcel, body: bytes, traceparent: str | None) -> ServiceBusMessage:
    envelope = msgspec.structs.replace(parcel.envelope, traceparent=traceparent or parcel.envelope.traceparent)
    properties: dict[Any, Any] = dict(envelope.properties())  # the SDK's type is wider and invariant
    message = ServiceBusMessage(
        body,
        message_id=envelope.message_id,
        session_id=envelope.session,
        content_type="application/json",
        subject=type(envelope.message).__name__,
        application_properties=properties,
    )
    if parcel.enqueue_at is not None:
        message.scheduled_enqueue_time_utc = parcel.enqueue_at
    return message


class _TopicSender:
    """The SDK's sender is not coroutine-safe: one send at a time. An idle one is detached and opens itself again."""

    def __init__(self, connection: Connection, topic: str, settings: BusSettings) -> None:
        self._connection = connection
        self._topic = topic
        self._settings = settings
        self._guard = asyncio.Lock()
        self._client: ServiceBusClient | None = None
        self._sender: ServiceBusSender | None = None
        self._closer = Closer(settings.close_seconds)

    async def send(self, messages: Sequence[ServiceBusMessage], fence: Fence) -> None:
        """Send all in order, in as few batches as fit. Raises PublishFailed."""
        async with self._guard:
            failures = 0
            while messages:
                fence()
                try:
                    async with asyncio.timeout(self._settings.send_seconds):
                        sent = await self._send_batch(messages)
                except asyncio.CancelledError:
                    self._drop()  # in the middle of a send: the next one takes a new link
                    raise
                except Exception as error:
                    failures += 1
                    await self._after_failure(error, failures)
                else:
                    failures = 0
                    messages = messages[sent:]

    async def connect(self) -> None:
        """Open the link if it is not."""
        async with self._guard:
            try:
                async with asyncio.timeout(self._settings.send_seconds):
                    await self._opened()
            except Exception as error:
                log.info("the link to %s could not be opened yet: %r", self._topic, error)
                self._drop()
            except asyncio.CancelledError:
                self._drop()
                raise

    async def close(self) -> None:
        """Close the link; a send would open it again."""
        self._drop()
        await self._closer.finish()

    async def _send_batch(self, messages: Sequence[ServiceBusMessage]) -> int:
        sender = await self._opened()
        batch = await sender.create_message_batch(max_size_in_bytes=self._settings.batch_bytes)
        count = 0
        for message in messages[: self._settings.batch_messages]:
            try:
                batch.add_message(message)
            except MessageSizeExceededError:
                if count == 0:
                    raise
                break
            count += 1
        await sender.send_messages(batch)
        return count

    async def _after_failure(self, error: Exception, failures: int) -> None:
        hopeless = isinstance(error, MessageSizeExceededError | MessagingEntityNotFoundError)
        if hopeless or failures >= self._settings.send_attempts:
            self._drop()
            raise PublishFailed(f"topic {self._topic}, {failures} tries: {error!r}") from error
        wait = backoff(failures, self._settings.send_backoff_seconds, self._settings.send_backoff_most_seconds)
        log.info("sending to %s failed %d times, again in %.1f s: %r", self._topic, failures, wait, error)
        if not isinstance(error, ServiceBusServerBusyError):
            # Whatever else it was, the link's state is unknown (a send may even hang in it): take a new one.
            self._drop()
        await asyncio.sleep(wait)

    def _drop(self) -> None:
        if self._sender is not None:
            self._closer.close_later(self._sender, self._client)
        self._sender = self._client = None

    async def _opened(self) -> ServiceBusSender:
        if self._sender is None:
            self._client = self._connection.client()
            self._sender = self._connection.sender(self._client, self._topic)
            await self._sender.__aenter__()
        return self._sender
