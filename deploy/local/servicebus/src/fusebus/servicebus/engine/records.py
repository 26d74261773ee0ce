"""A message's life in one mailbox: what the engine keeps of it beyond what its sender gave."""

import math
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from fusebus.servicebus.engine.messages import EMPTY, Delivery, Message, MessageState


class Record:
    """One queued message. Written out by hand: a million of them must be small and quick to make.

    Durable are `message`, `enqueued_at`, `expires_at`, `sequence_number`, `enqueued_sequence_number`,
    `delivery_count`, `state`, `modified`, `dead_letter_source` and `hops`; the rest is forgotten at a restart.
    Times are seconds since the epoch, UTC.
    """

    __slots__ = (
        "dead_letter_source",
        "delivery_count",
        "enqueued_at",
        "enqueued_sequence_number",
        "expires_at",
        "hops",
        "journal_place",
        "lock_token",
        "locked_until",
        "message",
        "modified",
        "sequence_number",
        "state",
    )

    def __init__(
        self,
        message: Message,
        enqueued_at: float,
        expires_at: float = math.inf,
        sequence_number: int = 0,
        enqueued_sequence_number: int = 0,
        delivery_count: int = 0,
        state: MessageState = MessageState.ACTIVE,
        modified: Mapping[str, Any] = EMPTY,
        dead_letter_source: str | None = None,
        hops: int = 0,
    ) -> None:
        self.message = message
        self.enqueued_at = enqueued_at
        """Of a scheduled message: when it will be."""
        self.expires_at = expires_at
        self.sequence_number = sequence_number
        self.enqueued_sequence_number = enqueued_sequence_number
        """The number that it first got, if that was elsewhere; else 0."""
        self.delivery_count = delivery_count
        self.state = state
        self.modified = modified
        """Application properties set since it was sent."""
        self.dead_letter_source = dead_letter_source
        self.hops = hops
        """How often it was forwarded."""
        self.journal_place = 0
        """For the journal's own use."""
        self.lock_token: UUID | None = None
        self.locked_until: float | None = None

    @property
    def session_id(self) -> str:
        """In a mailbox with sessions, where every message has one."""
        return self.message.session_id or ""

    def modify(self, properties: Mapping[str, Any] | None) -> None:
        """Set application properties."""
        if properties:
            self.modified = {**self.modified, **properties}

    def delivery(self) -> Delivery:
        """What a receiver sees of it now."""
        return Delivery(
            self.message,
            self.sequence_number,
            self.enqueued_sequence_number,
            self.enqueued_at,
            self.expires_at,
            self.delivery_count,
            self.state,
            self.modified,
            self.dead_letter_source,
            self.lock_token,
            self.locked_until,
        )


def dead_letter_reason(reason: str, description: str) -> dict[str, str]:
    """The application properties that say why."""
    return {"DeadLetterReason": reason, "DeadLetterErrorDescription": description}


def expiry(message: Message, now: float, limit_seconds: float) -> float:
    """When a message that is enqueued now expires, in an entity where nothing lives longer than that."""
    own = message.ttl_seconds
    return now + (limit_seconds if own is None or limit_seconds < own else own)


def forwarded_expiry(record: Record, limit_seconds: float) -> float:
    """As `expiry`, for what comes from another entity; a dead letter's own time to live is over and counts no more."""
    if record.dead_letter_source is not None:
        return record.enqueued_at + limit_seconds
    return expiry(record.message, record.enqueued_at, limit_seconds)
