"""Where an expression's properties are: the system's in a message's fields or in the topic's record, the sender's
in their mapping."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fusebus.servicebus.engine.arrivals import ArrivedMessage
from fusebus.servicebus.engine.messages import Message, MessageState
from fusebus.servicebus.engine.records import Record

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


def _ends_at(record: Record) -> datetime | None:
    """By its own time to live: the entities' limits are looked at later."""
    own = record.message.ttl_seconds
    return None if own is None or record.dead_letter_source is not None else _instant(record.enqueued_at + own)


_COMPUTED: Final[dict[str, Callable[[Message], Any]]] = {
    "deliverycount": lambda message: 0,  # rules are asked before anything is delivered
    "forcepersistence": lambda message: False,  # the default; AMQP has no field to set it
    "partitionkey": lambda message: message.session_id if message.partition_key is None else message.partition_key,
    "scheduledenqueuetime": lambda message: _instant(message.scheduled_enqueue_time),
    "size": lambda message: len(message.raw),
    "state": lambda message: int(MessageState.ACTIVE),  # rules are asked when it has become that
    "timetolive": lambda message: _span(message.ttl_seconds),
    # What a message gets only when it is delivered, or in transactions, which are not there.
    **dict.fromkeys(("lockeduntil", "locktoken", "transactionpartitionkey", "viapartitionkey"), lambda message: None),
}
_OF_RECORD: Final[dict[str, Callable[[Record], Any]]] = {
    "deadlettersource": lambda record: record.dead_letter_source,
    "enqueuedsequencenumber": lambda record: record.enqueued_sequence_number,
    "enqueuedtime": lambda record: _instant(record.enqueued_at),
    "expiresat": _ends_at,
    "sequencenumber": lambda record: record.sequence_number,
}
_TIMES: Final = frozenset({"enqueuedtime", "expiresat", "lockeduntil", "scheduledenqueuetime"})
"""Older SDKs write Utc after these."""


@dataclass(frozen=True, slots=True)
class Property:
    """`name` as written; `system` says in which of the two scopes."""

    name: str
    system: bool

    @property
    def is_known(self) -> bool:
        """Only system properties can be unknown by name."""
        name = self._system_name
        return not self.system or name in SYSTEM_PROPERTIES or name in _COMPUTED or name in _OF_RECORD

    @property
    def asks_arrival(self) -> bool:
        """Whether only an ArrivedMessage has it."""
        return self.system and self._system_name in _OF_RECORD

    @property
    def _system_name(self) -> str:
        name = self.name.lower()
        short = name.removesuffix("utc")
        return short if short in _TIMES else name

    def reader(self) -> Callable[[Message], Any]:
        """Its value, None if it is missing. `is_known` must be true."""
        name = self.name
        if not self.system:
            return lambda message: user_value(message.application_properties, name)
        known = self._system_name
        if (of_record := _OF_RECORD.get(known)) is not None:
            return lambda message: _of_record(message, of_record)
        if (computed := _COMPUTED.get(known)) is not None:
            return computed
        field = SYSTEM_PROPERTIES[known]
        return lambda message: getattr(message, field)

    def finder(self) -> Callable[[Message], bool]:
        """Whether the message has it, even without a value."""
        if self.system:
            read = self.reader()
            return lambda message: read(message) is not None
        return lambda message: user_key(message.application_properties, self.name) is not None


def _of_record(message: Message, read: Callable[[Record], Any]) -> Any:
    record = message.record if isinstance(message, ArrivedMessage) else None
    return None if record is None else read(record)


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
