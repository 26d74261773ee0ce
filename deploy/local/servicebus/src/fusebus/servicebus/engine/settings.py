"""Settings of queues, topics, subscriptions and rules; times in seconds."""

import math
from dataclasses import dataclass
from enum import Enum

from fusebus.servicebus.engine.actions import Action
from fusebus.servicebus.engine.filters import Filter, TrueFilter
from fusebus.servicebus.engine.rights import AuthorizationRule

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
    """`duplicate_detection_seconds` 0 means no duplicate detection; `ttl_seconds` inf means for ever.

    `forward_to` and `forward_dead_lettered_to` are paths of queues or topics. `auto_delete_on_idle_seconds` inf means
    never. `max_message_kilobytes` None means what the tier allows. Sessions, partitioning and whether duplicates are
    detected are chosen at creation. The engine only keeps what follows `user_metadata`; `duplicate_history_seconds` is
    the window that was asked for without asking for detection.
    """

    lock_seconds: float = DEFAULT_LOCK_SECONDS
    max_delivery_count: int = DEFAULT_MAX_DELIVERY_COUNT
    ttl_seconds: float = math.inf
    dead_letter_on_expiry: bool = False
    duplicate_detection_seconds: float = 0.0
    max_size_megabytes: int = DEFAULT_MAX_SIZE_MEGABYTES
    requires_session: bool = False
    forward_to: str | None = None
    forward_dead_lettered_to: str | None = None
    auto_delete_on_idle_seconds: float = math.inf
    enable_partitioning: bool = False
    max_message_kilobytes: int | None = None
    status: EntityStatus = EntityStatus.ACTIVE
    user_metadata: str | None = None
    enable_batched_operations: bool = True
    enable_express: bool = False
    duplicate_history_seconds: float = DEFAULT_DUPLICATE_DETECTION_SECONDS
    authorization_rules: tuple[AuthorizationRule, ...] = ()


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """As a queue's, without what belongs to the subscriptions."""

    ttl_seconds: float = math.inf
    duplicate_detection_seconds: float = 0.0
    max_size_megabytes: int = DEFAULT_MAX_SIZE_MEGABYTES
    auto_delete_on_idle_seconds: float = math.inf
    enable_partitioning: bool = False
    max_message_kilobytes: int | None = None
    status: EntityStatus = EntityStatus.ACTIVE
    user_metadata: str | None = None
    enable_batched_operations: bool = True
    enable_express: bool = False
    duplicate_history_seconds: float = DEFAULT_DUPLICATE_DETECTION_SECONDS
    support_ordering: bool = True
    filtering_messages_before_publishing: bool = False
    authorization_rules: tuple[AuthorizationRule, ...] = ()


@dataclass(frozen=True, slots=True)
class SubscriptionSettings:
    """As a queue's, without what belongs to the topic."""

    lock_seconds: float = DEFAULT_LOCK_SECONDS
    max_delivery_count: int = DEFAULT_MAX_DELIVERY_COUNT
    ttl_seconds: float = math.inf
    dead_letter_on_expiry: bool = False
    dead_letter_on_filter_error: bool = True
    """A message whose filter or action fails is dead-lettered rather than dropped."""
    requires_session: bool = False
    forward_to: str | None = None
    forward_dead_lettered_to: str | None = None
    auto_delete_on_idle_seconds: float = math.inf
    status: EntityStatus = EntityStatus.ACTIVE
    user_metadata: str | None = None
    enable_batched_operations: bool = True


@dataclass(frozen=True, slots=True)
class Rule:
    """A subscription takes a message when any of its rules matches it.

    Those that match without an action make one copy together; each with an action makes a copy of its own.
    """

    name: str = DEFAULT_RULE_NAME
    filter: Filter = _EVERYTHING
    created_at: float = 0.0
    action: Action | None = None
