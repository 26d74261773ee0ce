"""What goes into the engine (Message) and what a receiver sees of it (Delivery)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

EMPTY: Mapping[str, Any] = MappingProxyType({})


class ReceiveMode(Enum):
    """How a delivery leaves the entity."""

    PEEK_LOCK = "peek-lock"
    RECEIVE_AND_DELETE = "receive-and-delete"


class MessageState(IntEnum):
    """The values of `x-opt-message-state`."""

    ACTIVE = 0
    DEFERRED = 1
    SCHEDULED = 2


@dataclass(slots=True)
class Message:
    """One message as its sender gave it; shared, never copied, by all subscriptions that receive it.

    Never change one: it is not frozen only because that makes it three times as slow to build.

    `raw` is opaque to the engine: the encoded bare message, returned as it came. The other fields are what the
    front decoded from it (plain str, int, float, bool, bytes, UUID, datetime values), for filters and rules of
    the entity. `annotations` are the sender's own message annotations, without those that the broker sets.
    """

    raw: bytes
    message_id: str | None = None
    correlation_id: str | None = None
    subject: str | None = None
    to: str | None = None
    reply_to: str | None = None
    reply_to_session_id: str | None = None
    session_id: str | None = None
    content_type: str | None = None
    partition_key: str | None = None
    ttl_seconds: float | None = None
    """Time to live in seconds; the entity's own limit applies if it is smaller. None: the entity's."""
    scheduled_enqueue_time: float | None = None
    """Seconds since the epoch, UTC; at or before now means at once."""
    application_properties: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    annotations: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    outer: Any = None
    """What else its sender put around `raw`, as opaque to the engine; nearly always None: nothing."""


@dataclass(slots=True)
class Delivery:
    """A message as a receiver or a browser sees it at this instant. Times: seconds since the epoch, UTC.

    Never change one; it is not frozen for the same reason as Message.
    """

    message: Message
    sequence_number: int
    enqueued_sequence_number: int
    """The number that the message first got, if it came from elsewhere (a topic, a forward, a death); else 0."""
    enqueued_at: float
    """For a scheduled message not yet due: when it will be enqueued."""
    expires_at: float
    """`math.inf` if never."""
    delivery_count: int
    """Failed deliveries so far: 0 at the first."""
    state: MessageState
    modified_properties: Mapping[str, Any]
    """Application properties set since it was sent (dead-letter reason, properties to modify); they win."""
    dead_letter_source: str | None
    """Path of the entity that dead-lettered it, also after it was forwarded; else None."""
    lock_token: UUID | None
    """None when peeked or received destructively."""
    locked_until: float | None
