"""The API's settings one by one: the element's name, the engine's, and how a value is written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypeVar
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from fusebus.servicebus.admin.atom import element, tag, text_of
from fusebus.servicebus.admin.authorization import read_rules
from fusebus.servicebus.admin.durations import format_duration, parse_duration
from fusebus.servicebus.engine import EntityStatus, InvalidArgument, QueueSettings, SubscriptionSettings, TopicSettings
from fusebus.servicebus.sas import entity_path
from fusebus.servicebus.tier import Tier

Settings = TypeVar("Settings", QueueSettings, TopicSettings, SubscriptionSettings)

MIN_AUTO_DELETE_SECONDS: Final = 300.0
MAX_DUPLICATE_DETECTION_SECONDS: Final = 7 * 86_400.0
MAX_DELIVERY_COUNT: Final = 2000
MAX_METADATA_CHARACTERS: Final = 1024
_MEGABYTES_STEP: Final = 1024
_MAX_MEGABYTES: Final = {Tier.PREMIUM: 80 * 1024}
_DEFAULT_MAX_MEGABYTES: Final = 5 * 1024
_NOT_IN_BASIC: Final = {
    "requires_session": "RequiresSession",
    "duplicate_detection_seconds": "RequiresDuplicateDetection",
    "forward_to": "ForwardTo",
    "forward_dead_lettered_to": "ForwardDeadLetteredMessagesTo",
}
_MAX_MESSAGE_KILOBYTES: Final = 102_400  # of the premium tier


def flag(text: str) -> bool:
    """Raises ValueError."""
    if text.strip().lower() not in ("true", "false"):
        raise ValueError(f"{text[:40]!r} is neither true nor false")
    return text.strip().lower() == "true"


def whole(text: str) -> int:
    """Raises ValueError."""
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        raise ValueError(f"{text[:40]!r} is not a whole number from 0")
    return int(digits)


def _status(text: str) -> EntityStatus:
    for status in EntityStatus:
        if status.value.lower() == text.strip().lower():
            return status
    raise ValueError(f"{text[:40]!r} is none of {', '.join(status.value for status in EntityStatus)}")


def path_of(address: str) -> str:
    """The entity's path in an address such as `sb://localhost:5672/orders`, or in a bare path."""
    return unquote(entity_path(address.strip())).strip("/ ")


def _delivery_count(text: str) -> int:
    count = whole(text)
    if not 1 <= count <= MAX_DELIVERY_COUNT:
        raise ValueError(f"{count} is not between 1 and {MAX_DELIVERY_COUNT}")
    return count


def _metadata(text: str) -> str:
    if len(text) > MAX_METADATA_CHARACTERS:
        raise ValueError(f"longer than {MAX_METADATA_CHARACTERS} characters")
    return text


@dataclass(frozen=True, slots=True)
class Field:
    """`read` raises ValueError; `write` gives None for what is left out."""

    attribute: str
    read: Callable[[str], Any]
    write: Callable[[Any], object] = lambda value: value
    cleared_by_absence: bool = False
    """A description without it takes the value away: there is no other way to say so."""


FIELDS: Final[dict[str, Field]] = {
    "LockDuration": Field("lock_seconds", parse_duration, format_duration),
    "MaxSizeInMegabytes": Field("max_size_megabytes", whole),
    "RequiresSession": Field("requires_session", flag),
    "DefaultMessageTimeToLive": Field("ttl_seconds", parse_duration, format_duration),
    "DeadLetteringOnMessageExpiration": Field("dead_letter_on_expiry", flag),
    "DeadLetteringOnFilterEvaluationExceptions": Field("dead_letter_on_filter_error", flag),
    "MaxDeliveryCount": Field("max_delivery_count", _delivery_count),
    "EnableBatchedOperations": Field("enable_batched_operations", flag),
    "FilteringMessagesBeforePublishing": Field("filtering_messages_before_publishing", flag),
    "Status": Field("status", _status, lambda status: status.value),
    "ForwardTo": Field("forward_to", path_of, cleared_by_absence=True),
    "UserMetadata": Field("user_metadata", _metadata, cleared_by_absence=True),
    "SupportOrdering": Field("support_ordering", flag),
    "AutoDeleteOnIdle": Field("auto_delete_on_idle_seconds", parse_duration, format_duration),
    "EnablePartitioning": Field("enable_partitioning", flag),
    "EnableExpress": Field("enable_express", flag),
    "ForwardDeadLetteredMessagesTo": Field("forward_dead_lettered_to", path_of, cleared_by_absence=True),
    "MaxMessageSizeInKilobytes": Field("max_message_kilobytes", whole),
}


def read_settings(found: Element, current: Settings, tier: Tier, now: float) -> Settings:
    """`current` with what the description says; raises InvalidArgument that begins with the element's name.

    `now`: seconds since the epoch, for what has a date of its own.
    """
    known = {field.name for field in fields(current)}
    changes: dict[str, Any] = {}
    for name, field in FIELDS.items():
        text = text_of(found, name) if field.attribute in known else None
        if text is not None:
            changes[field.attribute] = _read(name, text, field.read)
        elif field.cleared_by_absence and field.attribute in known:
            changes[field.attribute] = None
    if not isinstance(current, SubscriptionSettings):
        changes |= _duplicates(found, current)
        rules = found.find(tag("AuthorizationRules"))
        if rules is not None:
            changes["authorization_rules"] = read_rules(rules, current.authorization_rules, now)
    new = {name: value for name, value in changes.items() if value != getattr(current, name)}
    _check_limits(new, tier)  # what is only written back may be what a configuration file allowed itself
    changed = replace(current, **new)
    if not isinstance(changed, SubscriptionSettings) and changed.enable_express and changed.duplicate_detection_seconds:
        raise InvalidArgument("EnableExpress: not together with RequiresDuplicateDetection.")
    return changed


def _read(name: str, text: str, convert: Callable[[str], Any]) -> Any:
    try:
        return convert(text)
    except ValueError as error:
        raise InvalidArgument(f"{name}: {error}.") from error


def _duplicates(found: Element, current: QueueSettings | TopicSettings) -> dict[str, float]:
    """Two elements for the API; for the engine one setting, 0 for none, and one that it only keeps."""
    wanted = text_of(found, "RequiresDuplicateDetection")
    name = "DuplicateDetectionHistoryTimeWindow"
    text = text_of(found, name)
    window = current.duplicate_history_seconds if text is None else _read(name, text, parse_duration)
    if not 0 < window <= MAX_DUPLICATE_DETECTION_SECONDS:
        raise InvalidArgument(f"{name}: {text} is not above 0 and at most P7D.")
    detects = bool(current.duplicate_detection_seconds)
    if wanted is not None:
        detects = _read("RequiresDuplicateDetection", wanted, flag)
    if detects and text is None:
        window = current.duplicate_detection_seconds or window
    return {"duplicate_detection_seconds": window if detects else 0.0, "duplicate_history_seconds": window}


def _check_limits(changes: Mapping[str, Any], tier: Tier) -> None:
    for attribute, name in _NOT_IN_BASIC.items():
        if tier is Tier.BASIC and changes.get(attribute):
            raise InvalidArgument(f"{name}: not in the Basic tier.")
    idle = changes.get("auto_delete_on_idle_seconds", MIN_AUTO_DELETE_SECONDS)
    if idle < MIN_AUTO_DELETE_SECONDS:
        raise InvalidArgument(f"AutoDeleteOnIdle: {format_duration(idle)} is less than five minutes.")
    megabytes, most = changes.get("max_size_megabytes"), _MAX_MEGABYTES.get(tier, _DEFAULT_MAX_MEGABYTES)
    if megabytes is not None and (megabytes % _MEGABYTES_STEP or not 0 < megabytes <= most):
        raise InvalidArgument(f"MaxSizeInMegabytes: {megabytes} is not a multiple of 1024 up to {most}.")
    kilobytes, usual = changes.get("max_message_kilobytes"), tier.max_message_bytes // 1024
    largest = _MAX_MESSAGE_KILOBYTES if tier is Tier.PREMIUM else usual
    if kilobytes is not None and not usual <= kilobytes <= largest:
        raise InvalidArgument(f"MaxMessageSizeInKilobytes: the {tier.value} tier allows {usual} to {largest}.")


def setting(settings: QueueSettings | TopicSettings | SubscriptionSettings, name: str) -> str:
    """One element; nothing for a setting without a value."""
    field = FIELDS[name]
    value = getattr(settings, field.attribute)
    return "" if value is None else element(name, field.write(value))


def duplicates(settings: QueueSettings | TopicSettings) -> tuple[str, str]:
    seconds = settings.duplicate_detection_seconds
    return (
        element("RequiresDuplicateDetection", bool(seconds)),
        element(
            "DuplicateDetectionHistoryTimeWindow",
            format_duration(seconds or settings.duplicate_history_seconds),
        ),
    )
