"""From a handler's outcome to what is published and how the message is settled: pure decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from fusebus.bus.backoff import backoff
from fusebus.bus.settings import ConsumerSettings
from fusebus.contracts.envelope import Envelope, fresh
from fusebus.contracts.outcomes import Abandon, Aside, Done, Outcome, Outgoing, Reject, Retry
from fusebus.contracts.topology import topic_of
from fusebus.host import redact

MAX_DEAD_LETTER_TEXT = 4096  # characters; Service Bus refuses longer reasons and descriptions
HANDLER_FAILED = "handler_failed"


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """One message on its way to a topic."""

    envelope: Envelope
    topic: str
    enqueue_at: datetime | None = None


@dataclass(frozen=True)
class Complete:
    """It is done."""


@dataclass(frozen=True)
class DeadLetter:
    """Nobody will ever handle it."""

    reason: str
    description: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", self.reason[:MAX_DEAD_LETTER_TEXT])
        object.__setattr__(self, "description", self.description[:MAX_DEAD_LETTER_TEXT])


@dataclass(frozen=True)
class GiveBack:
    """Another delivery shall handle it."""

    reason: str


Settlement = Complete | DeadLetter | GiveBack


@dataclass(frozen=True, kw_only=True)
class Plan:
    """First publish, then settle."""

    parcels: tuple[Parcel, ...] = ()
    settlement: Settlement
    retried: bool = False


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the message came from."""

    topic: str
    subscription: str

    @property
    def name(self) -> str:
        """`topic/subscription`."""
        return f"{self.topic}/{self.subscription}"


def plan(outcome: Outcome, envelope: Envelope, source: Source, settings: ConsumerSettings, now: datetime) -> Plan:
    """What follows from an outcome. Raises KeyError for a message that no topic carries."""
    match outcome:
        case Done():
            return Plan(parcels=parcels_of(outcome.publish), settlement=Complete())
        case Reject():
            settlement = DeadLetter(outcome.reason, outcome.description)
            return Plan(parcels=parcels_of(outcome.publish), settlement=settlement)
        case Abandon():
            return Plan(settlement=GiveBack(outcome.reason))
        case Aside():
            copy = msgspec.structs.replace(envelope, upload_lane=outcome.lane, only=None)
            return Plan(parcels=(Parcel(envelope=copy, topic=source.topic),), settlement=Complete())
        case Retry():
            return _retry(outcome, envelope.attempt >= settings.max_passing_attempts, envelope, source, now)
    raise TypeError(f"a handler returned {type(outcome).__name__}, expected is an Outcome")


def plan_failure(
    error: BaseException,
    envelope: Envelope,
    source: Source,
    settings: ConsumerSettings,
    now: datetime,
    jitter: float | None = None,
) -> Plan:
    """What follows from an exception of the handler: a retry that waits longer each time, in the end a dead letter."""
    # Counted apart from retries that a handler asked for: an outage waited out must not spend the attempts of a fault.
    failed = msgspec.structs.replace(envelope, failures=envelope.failures + 1)
    delay = backoff(failed.failures, settings.retry_seconds, settings.retry_most_seconds, jitter)
    retry = Retry(delay=delay, reason=HANDLER_FAILED, description=redact(f"{type(error).__name__}: {error}"))
    return _retry(retry, failed.failures >= settings.max_attempts, failed, source, now)


def _retry(retry: Retry, gives_up: bool, envelope: Envelope, source: Source, now: datetime) -> Plan:
    if gives_up:
        last = f"; last: {retry.description}" if retry.description else ""
        return Plan(settlement=DeadLetter(retry.reason, f"gave up after {envelope.attempt} attempts{last}"))
    # A copy, because Service Bus can't delay a message that is already there. Its attempt is part of its message id:
    # duplicate detection lets it through, yet swallows the second copy that a crash before the settling would make.
    # It names its subscription, so that no other subscription of the topic handles it again.
    copy = msgspec.structs.replace(envelope, attempt=envelope.attempt + 1, only=source.subscription)
    parcel = Parcel(envelope=copy, topic=source.topic, enqueue_at=now + timedelta(seconds=max(0.0, retry.delay)))
    return Plan(parcels=(parcel,), settlement=Complete(), retried=True)


def parcels_of(outgoing: Sequence[Outgoing]) -> tuple[Parcel, ...]:
    """Each message with the topic that carries its type. Raises KeyError where none does."""
    return tuple(
        Parcel(
            envelope=fresh(one.message, one.replay),
            topic=topic_of(one.message).name,
            enqueue_at=one.enqueue_at,
        )
        for one in outgoing
    )
