"""Settings of queues, topics, subscriptions and rules; times in seconds."""

import math
from dataclasses import dataclass
from enum import Enum

from fusebus.servicebus.engine.filters import Filter, TrueFilter

DEFAULT_LOCK_SECONDS = 60.0
MAX_LOCK_SECONDS = 300.0
DEFAULT_MAX_DELIVERY_COUNT = 10
DEFAULT_DUPLICATE_DETECTION_SECONDS = 600.0
DEFAULT_MAX_SIZE_MEGABYTES = 1024
DEFAULT_RULE_NAME = "$Default"
_EVERYTHING = TrueFilter()


class EntityStatus(Enum):
    """Which directions are open; the values are those of the administration API."""

    ACTIVE = "Active"
    DISABLED = "Disabled"
    SEND_DISABLED = "SendDisabled"
    RECEIVE_DISABLED = "ReceiveDisabled"

    @property
    def can_send(self) -> bool:
        return self in (EntityStatus.ACTIVE, EntityStatus.RECEIVE_DISABLED)

    @property
    def can_receive(self) -> bool:
        return self in (EntityStatus.ACTIVE, EntityStatus.SEND_DISABLED)


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """`duplicate_detection_seconds` 0 means no duplicate detection; `ttl_seconds` inf means for ever."""

    lock_seconds: float = DEFAULT_LOCK_SECONDS
    max_delivery_count: int = DEFAULT_MAX_DELIVERY_COUNT
    ttl_seconds: float = math.inf
    dead_letter_on_expiry: bool = False
    duplicate_detection_seconds: float = 0.0
    max_size_megabytes: int = DEFAULT_MAX_SIZE_MEGABYTES
    status: EntityStatus = EntityStatus.ACTIVE
    user_metadata: str | None = None


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """`duplicate_detection_seconds` 0 means no duplicate detection; `ttl_seconds` inf means for ever."""

    ttl_seconds: float = math.inf
    duplicate_detection_seconds: float = 0.0
    max_size_megabytes: int = DEFAULT_MAX_SIZE_MEGABYTES
    status: EntityStatus = EntityStatus.ACTIVE
    user_metadata: str | None = None


@dataclass(frozen=True, slots=True)
class SubscriptionSettings:
    """As a queue's, without what belongs to the topic."""

    lock_seconds: float = DEFAULT_LOCK_SECONDS
    max_delivery_count: int = DEFAULT_MAX_DELIVERY_COUNT
    ttl_seconds: float = math.inf
    dead_letter_on_expiry: bool = False
    status: EntityStatus = EntityStatus.ACTIVE
    user_metadata: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """A subscription takes a message when any of its rules matches it."""

    name: str = DEFAULT_RULE_NAME
    filter: Filter = _EVERYTHING
    created_at: float = 0.0
