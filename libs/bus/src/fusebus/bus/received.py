"""A received message in our words: the one place that reads the SDK's bytes, annotations and body types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.amqp import AmqpMessageBodyType

from fusebus.contracts.envelope import MAX_ARRAY_BYTES, MAX_BODY_BYTES, Envelope, Poison, envelope


@dataclass(frozen=True, kw_only=True, eq=False)
class Received:
    """One locked (or peeked) message."""

    sequence: int
    message_id: str
    properties: Mapping[str, object]
    session: str | None
    delivery_count: int
    enqueued_at: datetime | None
    locked_until: datetime
    raw: ServiceBusReceivedMessage
    """What the SDK needs to renew and settle; it never leaves this package."""

    def envelope(self) -> Envelope:
        """The decoded message with its counters. Raises Poison."""
        return envelope(self.body(MAX_ARRAY_BYTES), self.properties, self.session)

    def body(self, most: int = MAX_BODY_BYTES) -> bytes:
        """The bytes; at most one byte more than `most`, which is enough to see that it is too large. Raises Poison."""
        if self.raw.body_type != AmqpMessageBodyType.DATA:
            raise Poison("undecodable", f"the body is AMQP {self.raw.body_type.value}, expected is data")
        found = bytearray()
        for part in self.raw.body:
            found += part[: most + 1 - len(found)]
            if len(found) > most:
                break
        return bytes(found)


def received(raw: ServiceBusReceivedMessage, session_locked_until: datetime | None = None) -> Received:
    """Read what the SDK delivered; a session's messages have no locks but the session's."""
    return Received(
        sequence=raw.sequence_number or 0,
        message_id=raw.message_id or "",
        properties={_text(key): _value(value) for key, value in (raw.application_properties or {}).items()},
        session=raw.session_id,
        delivery_count=raw.delivery_count or 0,
        enqueued_at=_aware(raw.enqueued_time_utc),
        # A message without a lock (peeked) can't be started, so its lock has always just ended.
        locked_until=_aware(session_locked_until or raw.locked_until_utc) or datetime.now(UTC),
        raw=raw,
    )


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _value(value: object) -> object:
    return _text(value) if isinstance(value, bytes) else value


def _aware(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
