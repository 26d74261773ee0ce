"""Settings and counts of queues, topics and subscriptions as the API's descriptions, and back."""

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Final, TypeVar
from xml.etree import ElementTree

from fusebus.servicebus.admin.atom import COUNTS, description, element, tag, text_of
from fusebus.servicebus.admin.durations import FOREVER, format_duration, format_instant, parse_duration
from fusebus.servicebus.engine import (
    EntityStatus,
    InvalidArgument,
    Queue,
    QueueSettings,
    RuntimeCounts,
    Subscription,
    SubscriptionSettings,
    Topic,
    TopicSettings,
)
from fusebus.servicebus.engine.settings import DEFAULT_DUPLICATE_DETECTION_SECONDS

Settings = TypeVar("Settings", QueueSettings, TopicSettings, SubscriptionSettings)

MAX_MESSAGE_KILOBYTES: Final = 256  # the Standard tier's


def _flag(text: str) -> bool:
    if text.strip().lower() not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text.strip().lower() == "true"


_FIELDS: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "lock_seconds": ("LockDuration", parse_duration),
    "max_delivery_count": ("MaxDeliveryCount", int),
    "ttl_seconds": ("DefaultMessageTimeToLive", parse_duration),
    "dead_letter_on_expiry": ("DeadLetteringOnMessageExpiration", _flag),
    "max_size_megabytes": ("MaxSizeInMegabytes", int),
    "status": ("Status", EntityStatus),
    "user_metadata": ("UserMetadata", str),
}


def read_settings(found: ElementTree.Element, current: Settings) -> Settings:
    """`current` with what the description says; raises InvalidArgument, also for what this broker cannot do."""
    _refuse_unsupported(found)
    known = {field.name for field in fields(current)}
    changes = {
        name: value
        for name, (element_name, convert) in _FIELDS.items()
        if name in known and (value := _value(found, element_name, convert)) is not None
    }
    if not isinstance(current, SubscriptionSettings):
        changes["duplicate_detection_seconds"] = _duplicate_window(found, current.duplicate_detection_seconds)
    return replace(current, **changes)


def _value(found: ElementTree.Element, name: str, convert: Callable[[str], Any]) -> Any:
    text = text_of(found, name)
    try:
        return None if text is None else convert(text)
    except ValueError as error:
        raise InvalidArgument(f"{name}: {error}.") from error


def _duplicate_window(found: ElementTree.Element, current: float) -> float:
    wanted = _value(found, "RequiresDuplicateDetection", _flag)
    if not (bool(current) if wanted is None else wanted):
        return 0.0
    window = _value(found, "DuplicateDetectionHistoryTimeWindow", parse_duration)
    return float(window or current or DEFAULT_DUPLICATE_DETECTION_SECONDS)


def _refuse_unsupported(found: ElementTree.Element) -> None:
    asked = [name for name in ("ForwardTo", "ForwardDeadLetteredMessagesTo") if text_of(found, name)]
    if _value(found, "RequiresSession", _flag):
        asked.append("RequiresSession")
    if _value(found, "AutoDeleteOnIdle", parse_duration) not in (None, math.inf):
        asked.append("AutoDeleteOnIdle")
    authorization = found.find(tag("AuthorizationRules"))
    if authorization is not None and len(authorization):
        asked.append("AuthorizationRules")
    if asked:
        raise InvalidArgument(f"This broker does not support {' and '.join(asked)}.")


def describe_queue(queue: Queue) -> str:
    settings, counts = queue.settings, queue.counts()
    return description(
        "QueueDescription",
        element("LockDuration", format_duration(settings.lock_seconds)),
        element("MaxSizeInMegabytes", settings.max_size_megabytes),
        *_duplicates(settings.duplicate_detection_seconds),
        element("RequiresSession", False),
        element("DefaultMessageTimeToLive", format_duration(settings.ttl_seconds)),
        element("DeadLetteringOnMessageExpiration", settings.dead_letter_on_expiry),
        element("MaxDeliveryCount", settings.max_delivery_count),
        element("EnableBatchedOperations", True),
        element("SizeInBytes", counts.size_bytes),
        element("MessageCount", counts.total),
        element("IsAnonymousAccessible", False),
        "<AuthorizationRules/>",
        *_life(queue),
        element("SupportOrdering", True),
        _count_details(counts),
        *_constants(),
        element("MaxMessageSizeInKilobytes", MAX_MESSAGE_KILOBYTES),
    )


def describe_topic(topic: Topic) -> str:
    settings, counts = topic.settings, topic.counts()
    return description(
        "TopicDescription",
        element("DefaultMessageTimeToLive", format_duration(settings.ttl_seconds)),
        element("MaxSizeInMegabytes", settings.max_size_megabytes),
        *_duplicates(settings.duplicate_detection_seconds),
        element("EnableBatchedOperations", True),
        element("SizeInBytes", counts.size_bytes),
        element("FilteringMessagesBeforePublishing", False),
        element("IsAnonymousAccessible", False),
        "<AuthorizationRules/>",
        *_life(topic),
        element("SupportOrdering", True),
        _count_details(counts),
        element("SubscriptionCount", len(topic.subscriptions)),
        *_constants(),
        element("EnableSubscriptionPartitioning", False),
        element("MaxMessageSizeInKilobytes", MAX_MESSAGE_KILOBYTES),
    )


def describe_subscription(subscription: Subscription) -> str:
    settings, counts = subscription.settings, subscription.counts()
    return description(
        "SubscriptionDescription",
        element("LockDuration", format_duration(settings.lock_seconds)),
        element("RequiresSession", False),
        element("DefaultMessageTimeToLive", format_duration(settings.ttl_seconds)),
        element("DeadLetteringOnMessageExpiration", settings.dead_letter_on_expiry),
        element("DeadLetteringOnFilterEvaluationExceptions", False),
        element("MessageCount", counts.total),
        element("MaxDeliveryCount", settings.max_delivery_count),
        element("EnableBatchedOperations", True),
        *_life(subscription),
        _count_details(counts),
        element("AutoDeleteOnIdle", FOREVER),
        element("EntityAvailabilityStatus", "Available"),
    )


def _duplicates(seconds: float) -> tuple[str, str]:
    return (
        element("RequiresDuplicateDetection", bool(seconds)),
        element("DuplicateDetectionHistoryTimeWindow", format_duration(seconds or DEFAULT_DUPLICATE_DETECTION_SECONDS)),
    )


def _life(entity: Queue | Topic | Subscription) -> tuple[str, ...]:
    return (
        element("Status", entity.settings.status.value),
        element("UserMetadata", entity.settings.user_metadata),
        element("CreatedAt", format_instant(entity.created_at)),
        element("UpdatedAt", format_instant(entity.updated_at)),
        element("AccessedAt", format_instant(entity.accessed_at)),
    )


def _constants() -> tuple[str, ...]:
    """What never differs on this broker."""
    return (
        element("AutoDeleteOnIdle", FOREVER),
        element("EnablePartitioning", False),
        element("EntityAvailabilityStatus", "Available"),
        element("EnableExpress", False),
    )


def _count_details(counts: RuntimeCounts) -> str:
    """The service counts deferred messages among the active ones."""
    figures = {
        "ActiveMessageCount": counts.active + counts.deferred,
        "DeadLetterMessageCount": counts.dead_letter,
        "ScheduledMessageCount": counts.scheduled,
        "TransferMessageCount": 0,
        "TransferDeadLetterMessageCount": 0,
    }
    inside = "".join(f'<{name} xmlns="{COUNTS}">{figure}</{name}>' for name, figure in figures.items())
    return f"<CountDetails>{inside}</CountDetails>"
