"""What a handler returns: what to publish and how to settle. The worker loop in fusebus.bus acts on it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from fusebus.contracts.messages import Message


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """One message to publish; its topic follows from its type (see topology)."""

    message: Message
    enqueue_at: datetime | None = None
    """When the topic shall make it visible (Service Bus scheduled enqueue time); None: at once."""


class Done(msgspec.Struct, frozen=True):
    """Publish, then complete the message."""

    publish: Sequence[Outgoing] = ()


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """The handler failed for a passing reason: a scheduled copy comes back after `delay` with its attempt counted.

    After the consumer's limit of attempts the message is dead-lettered with `reason` instead.
    """

    delay: float
    """Seconds."""
    reason: str


class Reject(msgspec.Struct, frozen=True, kw_only=True):
    """Publish, then dead-letter: nobody will ever be able to handle this message."""

    reason: str
    description: str
    publish: Sequence[Outgoing] = ()


class Abandon(msgspec.Struct, frozen=True, kw_only=True):
    """Give the message back at once, unchanged and uncounted: this process stops, another one continues."""

    reason: str


Outcome = Done | Retry | Reject | Abandon


def done(*messages: Message) -> Done:
    """The ordinary outcome: publish these now and complete."""
    return Done(tuple(Outgoing(message=message) for message in messages))
