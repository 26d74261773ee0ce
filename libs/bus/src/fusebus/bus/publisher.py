"""Sends messages to the topics that carry them: batched, guarded, repeated with patience."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from azure.servicebus import ServiceBusMessage

from fusebus.bus import measures
from fusebus.bus.connection import Connection
from fusebus.bus.lately import Lately, placed
from fusebus.bus.sender import Fence, TopicSender
from fusebus.bus.settings import BusSettings
from fusebus.bus.settlement import Parcel, parcels_of
from fusebus.bus.tracing import Sending
from fusebus.contracts.envelope import encode
from fusebus.contracts.outcomes import Outgoing


class Publisher:
    """One long-lived sender for each topic; safe to share between coroutines.

    A supplier's uploads go to lanes by how many of them were sent lately (see topology).
    """

    def __init__(self, connection: Connection, settings: BusSettings) -> None:
        self._sent = Lately()
        self._connection = connection
        self._settings = settings
        self._senders: dict[str, TopicSender] = {}

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

    def _sender(self, topic: str) -> TopicSender:
        if topic not in self._senders:
            self._senders[topic] = TopicSender(self._connection, topic, self._settings)
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
