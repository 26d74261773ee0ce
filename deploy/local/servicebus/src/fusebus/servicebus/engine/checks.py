"""Which names and settings the service takes; every refusal is InvalidArgument and starts with the API's element."""

import math
import re
from typing import Final

from fusebus.servicebus.engine.errors import InvalidArgument
from fusebus.servicebus.engine.settings import (
    MAX_LOCK_SECONDS,
    QueueSettings,
    SubscriptionSettings,
    TopicSettings,
)

AnySettings = QueueSettings | TopicSettings | SubscriptionSettings

MAX_ENTITY_NAME: Final = 260  # characters, the service's limit
MAX_SUBSCRIPTION_NAME: Final = 50
_ENTITY_NAME = re.compile(r"[A-Za-z0-9](?:[\w./~-]*[A-Za-z0-9_])?", re.ASCII)
_SUBSCRIPTION_NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?", re.ASCII)
_RULE_NAME = re.compile(r"\$?[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?", re.ASCII)


def check_entity_name(name: str) -> None:
    _check_name(name, _ENTITY_NAME, MAX_ENTITY_NAME)
    if "/subscriptions/" in f"/{name.lower()}/" or "//" in name:
        raise InvalidArgument(f"'{name}' is not a name for a queue or topic.")


def check_subscription_name(name: str) -> None:
    _check_name(name, _SUBSCRIPTION_NAME, MAX_SUBSCRIPTION_NAME)


def check_rule_name(name: str) -> None:
    _check_name(name, _RULE_NAME, MAX_SUBSCRIPTION_NAME)


def _check_name(name: str, pattern: re.Pattern[str], longest: int) -> None:
    if len(name) > longest or not pattern.fullmatch(name):
        raise InvalidArgument(
            f"'{name}' is not a name: up to {longest} letters, digits, '.', '-' and '_',"
            " the first a letter or digit, the last too or '_'."
        )


def check_settings(settings: AnySettings) -> None:
    _check_above_zero("DefaultMessageTimeToLive", settings.ttl_seconds, math.inf)
    _check_above_zero("AutoDeleteOnIdle", settings.auto_delete_on_idle_seconds, math.inf)
    if not isinstance(settings, TopicSettings):
        _check_above_zero("LockDuration", settings.lock_seconds, MAX_LOCK_SECONDS)
        if settings.max_delivery_count < 1:
            raise InvalidArgument(f"MaxDeliveryCount: must be at least 1, not {settings.max_delivery_count}.")
    if not isinstance(settings, SubscriptionSettings):
        _check_sizes(settings)


def _check_above_zero(element: str, seconds: float, limit: float) -> None:
    if not 0 < seconds <= limit:
        most = "" if limit == math.inf else f" and at most {limit:g} s"
        raise InvalidArgument(f"{element}: must be above 0{most}, not {seconds:g} s.")


def _check_sizes(settings: QueueSettings | TopicSettings) -> None:
    window = settings.duplicate_detection_seconds
    if not 0 <= window < math.inf:
        raise InvalidArgument(f"DuplicateDetectionHistoryTimeWindow: must be 0 or a time, not {window:g} s.")
    if settings.max_size_megabytes < 1:
        raise InvalidArgument(f"MaxSizeInMegabytes: must be at least 1, not {settings.max_size_megabytes}.")
    if settings.max_message_kilobytes is not None and settings.max_message_kilobytes < 1:
        raise InvalidArgument(f"MaxMessageSizeInKilobytes: must be at least 1, not {settings.max_message_kilobytes}.")


def check_change(old: AnySettings, new: AnySettings) -> None:
    """Also what can be chosen only when the entity is created."""
    check_settings(new)
    fixed = {
        "RequiresDuplicateDetection": [bool(getattr(item, "duplicate_detection_seconds", 0)) for item in (old, new)],
        "RequiresSession": [getattr(item, "requires_session", False) for item in (old, new)],
        "EnablePartitioning": [getattr(item, "enable_partitioning", False) for item in (old, new)],
    }
    for element, (before, after) in fixed.items():
        if before != after:
            raise InvalidArgument(f"{element}: can be chosen only when the entity is created.")
