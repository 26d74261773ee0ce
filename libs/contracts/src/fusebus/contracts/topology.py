"""Topics, subscriptions and rules as data: the one source for brokers, services, docs and Bicep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from fusebus.contracts.messages import (
    BlobCreated,
    BudgetCrossed,
    CloseRun,
    DuplicateFound,
    FleetChanged,
    ImageAccepted,
    ImageAnalysed,
    ImageFailed,
    ImageRejected,
    JobKind,
    Message,
    ModelChanged,
    ModelRefused,
    RunCheck,
    StorageEvents,
    UploadsHeld,
    WorkLate,
)

DAY = 86_400.0  # seconds


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A correlation filter: admits messages that have all of these application properties; empty admits all."""

    name: str
    properties: Mapping[str, str] = msgspec.field(default_factory=dict)

    def admits(self, properties: Mapping[str, object]) -> bool:
        """What Service Bus decides for a message with these application properties."""
        return all(properties.get(key) == value for key, value in self.properties.items())


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """One service's queue behind a topic."""

    name: str
    rules: tuple[Rule, ...] = (Rule(name="all"),)
    lock_seconds: float = 60.0
    """Peek-lock; the worker loop renews at half of it."""
    max_delivery_count: int = 50
    """High: a Spot node that vanishes is not the image's fault. Handler failures are counted in the message."""
    ttl_seconds: float = 14 * DAY
    dead_letter_on_expiry: bool = True


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """A topic with what travels on it and who reads it."""

    name: str
    carries: tuple[type[Message], ...]
    subscriptions: tuple[Subscription, ...]
    duplicate_detection_seconds: float = 600.0
    """Longer than any retry of the same send; a retry, replay or re-arming has another message id."""
    ttl_seconds: float = 14 * DAY


TOPICS: tuple[Topic, ...] = (
    Topic(name="uploads", carries=(BlobCreated, StorageEvents), subscriptions=(Subscription(name="ingest"),)),
    Topic(
        name="images",
        carries=(ImageAccepted,),
        subscriptions=tuple(
            Subscription(name=kind.value, rules=(Rule(name=kind.value, properties={"job_kind": kind.value}),))
            for kind in JobKind
        ),
    ),
    Topic(
        name="results",
        carries=(ImageAnalysed, ImageFailed, ImageRejected, DuplicateFound, RunCheck, CloseRun),
        subscriptions=(Subscription(name="notifier"),),
    ),
    Topic(
        name="fleet",
        carries=(FleetChanged, BudgetCrossed, WorkLate, ModelChanged, ModelRefused, UploadsHeld),
        subscriptions=(Subscription(name="notifier"),),
    ),
)

_BY_TYPE: dict[type[Message], Topic] = {message: topic for topic in TOPICS for message in topic.carries}
_BY_NAME: dict[str, Topic] = {topic.name: topic for topic in TOPICS}


def topic_of(message: Message) -> Topic:
    """Where a message is published. Raises KeyError for a type that no topic carries."""
    return _BY_TYPE[type(message)]


def subscription(topic: str, name: str) -> Subscription:
    """A subscription by its topic's and its own name. Raises KeyError where there is none."""
    return next((found for found in _BY_NAME[topic].subscriptions if found.name == name), None) or _missing(topic, name)


def _missing(topic: str, name: str) -> Subscription:
    raise KeyError(f"topic {topic} has no subscription {name}")


def retry_reaches_only_its_own(topic: Topic) -> bool:
    """Whether no two subscriptions of a topic admit the same message.

    A delayed retry is a copy sent to the topic again; where subscriptions were to overlap, each of their rules would
    have to test `only` as well. Rules that differ in the value of a common property can't overlap.
    """

    def disjoint(first: Rule, second: Rule) -> bool:
        common = first.properties.keys() & second.properties.keys()
        return any(first.properties[key] != second.properties[key] for key in common)

    return all(
        disjoint(rule, other)
        for index, one in enumerate(topic.subscriptions)
        for two in topic.subscriptions[index + 1 :]
        for rule in one.rules
        for other in two.rules
    )


def broker_configuration(lock_seconds: float | None = None) -> dict[str, Any]:
    """The topology as `fusebus-servicebus --config` reads it; `lock_seconds` replaces every lock duration."""

    def described(found: Subscription) -> dict[str, Any]:
        return {
            "name": found.name,
            "lock_seconds": lock_seconds or found.lock_seconds,
            "max_delivery_count": found.max_delivery_count,
            "ttl_seconds": found.ttl_seconds,
            "dead_letter_on_expiry": found.dead_letter_on_expiry,
            "rules": [
                {"name": rule.name, "correlation": dict(rule.properties)}
                if rule.properties
                else {"name": rule.name, "true": True}
                for rule in found.rules
            ],
        }

    return {
        "topics": [
            {
                "name": topic.name,
                "duplicate_detection_seconds": topic.duplicate_detection_seconds,
                "ttl_seconds": topic.ttl_seconds,
                "subscriptions": [described(found) for found in topic.subscriptions],
            }
            for topic in TOPICS
        ]
    }
