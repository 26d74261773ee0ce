"""Where an expression's properties are in a message: the system's in its fields, the sender's in their mapping."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fusebus.servicebus.engine.messages import Message

SYSTEM_PROPERTIES: Final[dict[str, str]] = {
    "contenttype": "content_type",
    "correlationid": "correlation_id",
    "label": "subject",
    "messageid": "message_id",
    "partitionkey": "partition_key",
    "replyto": "reply_to",
    "replytosessionid": "reply_to_session_id",
    "sessionid": "session_id",
    "subject": "subject",
    "to": "to",
}
"""By name in lower case: the message's field. These can also be set."""

_MISSING: Final = object()


def _instant(seconds: float | None) -> datetime | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _span(seconds: float | None) -> timedelta | None:
    try:
        return None if seconds is None else timedelta(seconds=seconds)
    except OverflowError:
        return None


_COMPUTED: Final[dict[str, Callable[[Message], Any]]] = {
    "deliverycount": lambda message: 0,  # rules are asked before anything is delivered
    "scheduledenqueuetimeutc": lambda message: _instant(message.scheduled_enqueue_time),
    "size": lambda message: len(message.raw),
    "timetolive": lambda message: _span(message.ttl_seconds),
}


@dataclass(frozen=True, slots=True)
class Property:
    """`name` as written; `system` says in which of the two scopes."""

    name: str
    system: bool

    @property
    def is_known(self) -> bool:
        """Only system properties can be unknown by name."""
        name = self.name.lower()
        return not self.system or name in SYSTEM_PROPERTIES or name in _COMPUTED

    def reader(self) -> Callable[[Message], Any]:
        """Its value, None if it is missing. `is_known` must be true."""
        name = self.name
        if not self.system:
            return lambda message: user_value(message.application_properties, name)
        if (field := SYSTEM_PROPERTIES.get(name.lower())) is not None:
            return lambda message: getattr(message, field)
        return _COMPUTED[name.lower()]

    def finder(self) -> Callable[[Message], bool]:
        """Whether the message has it, even without a value."""
        if self.system:
            read = self.reader()
            return lambda message: read(message) is not None
        return lambda message: user_key(message.application_properties, self.name) is not None


def user_value(properties: Mapping[str, Any], name: str) -> Any:
    """Of a property whose name is written in upper or lower case; an exact match wins."""
    value = properties.get(name, _MISSING)
    if value is not _MISSING:
        return value
    key = user_key(properties, name)
    return None if key is None else properties[key]


def user_key(properties: Mapping[str, Any], name: str) -> str | None:
    """The name as the message spells it, None if it has none such."""
    if name in properties:
        return name
    wanted = name.lower()
    return next((key for key in properties if key.lower() == wanted), None)


def property_of(text: str) -> Property:
    """Of a name with or without a scope, as the function property() takes it."""
    scope, dot, name = text.partition(".")
    if dot and scope.lower() in ("sys", "user"):
        return Property(name, scope.lower() == "sys")
    return Property(text, False)
