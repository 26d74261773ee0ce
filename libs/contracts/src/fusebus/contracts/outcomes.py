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
    replay: int = 0
    """Set where the same was sent before and this one shall not be taken for its repeat."""


class Done(msgspec.Struct, frozen=True):
    """Publish, then complete the message."""

    publish: Sequence[Outgoing] = ()


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """Something did not answer, which is no fault of the message: a scheduled copy comes back after `delay`.

    Its attempt is counted. After the consumer's limit for that (hours, where an exception's is minutes) the message is
    dead-lettered with `reason` and `description` instead.
    """

    delay: float
    """Seconds."""
    reason: str
    """A short code."""
    description: str = ""


class Reject(msgspec.Struct, frozen=True, kw_only=True):
    """Publish, then dead-letter: nobody will ever be able to handle this message."""

    reason: str
    description: str
    publish: Sequence[Outgoing] = ()


class Abandon(msgspec.Struct, frozen=True, kw_only=True):
    """Give the message back at once, unchanged and uncounted: this process stops, another one continues."""

    reason: str


class Aside(msgspec.Struct, frozen=True, kw_only=True):
    """Only of topic `uploads`: let it go on in another lane (see topology), unchanged and uncounted."""

    lane: str
    reason: str


Outcome = Done | Retry | Reject | Abandon | Aside


LONGEST_RETRY_SECONDS = 300.0
MOST_DOUBLINGS = 32  # no wait doubles more often, and 2**1100 is no float any more


def retry(reason: str, description: object, *, attempt: int, first_seconds: float) -> Retry:
    """Later and later: after `first_seconds`, doubled with each `attempt` (1 = first) up to LONGEST_RETRY_SECONDS."""
    delay = min(first_seconds * 2.0 ** min(attempt - 1, MOST_DOUBLINGS), LONGEST_RETRY_SECONDS)
    return Retry(delay=delay, reason=reason, description=str(description))


def done(*messages: Message) -> Done:
    """The ordinary outcome: publish these now and complete."""
    return Done(tuple(Outgoing(message=message) for message in messages))
