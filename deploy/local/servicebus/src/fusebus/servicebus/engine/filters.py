"""What a rule asks of a message: correlation filters, SQL filters, everything or nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from fusebus.servicebus.engine.arrivals import arrived
from fusebus.servicebus.engine.errors import FilterError
from fusebus.servicebus.engine.messages import EMPTY, Message
from fusebus.servicebus.engine.records import Record
from fusebus.servicebus.engine.sql import Predicate, parse_filter, same


class Filter(Protocol):
    """Pure: the same message always gives the same answer (but for newid() in an expression)."""

    def matches(self, message: Message, record: Record | None = None) -> bool:
        """Whether the rule takes the message; raises FilterError when it cannot be evaluated for this one.

        `record` is the topic's; without it, what only that tells is unknown.
        """


@dataclass(frozen=True, slots=True)
class TrueFilter:
    """Every message."""

    def matches(self, message: Message, record: Record | None = None) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class FalseFilter:
    """No message."""

    def matches(self, message: Message, record: Record | None = None) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class SqlFilter:
    """An expression of the language in sql/; raises SqlSyntaxError when made."""

    expression: str
    parameters: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    _predicate: Predicate = field(init=False, repr=False, compare=False)
    _asks_arrival: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        predicate, asks_arrival = parse_filter(self.expression, self.parameters)
        object.__setattr__(self, "_predicate", predicate)
        object.__setattr__(self, "_asks_arrival", asks_arrival)

    def matches(self, message: Message, record: Record | None = None) -> bool:
        if self._asks_arrival:
            message = arrived(message, record)
        try:
            return self._predicate(message) is True
        except FilterError as error:
            raise FilterError(f"{error} in the filter {self.expression!r}") from error


CORRELATION_FIELDS: Final = (
    "correlation_id",
    "message_id",
    "to",
    "reply_to",
    "subject",
    "session_id",
    "reply_to_session_id",
    "content_type",
)


@dataclass(frozen=True, slots=True)
class CorrelationFilter:
    """All fields that are set, and all properties, must be equal to the message's; case matters."""

    correlation_id: str | None = None
    message_id: str | None = None
    to: str | None = None
    reply_to: str | None = None
    subject: str | None = None
    session_id: str | None = None
    reply_to_session_id: str | None = None
    content_type: str | None = None
    properties: Mapping[str, Any] = field(default_factory=lambda: EMPTY)

    def matches(self, message: Message, record: Record | None = None) -> bool:
        wanted = ((name, getattr(self, name)) for name in CORRELATION_FIELDS)
        if any(value is not None and getattr(message, name) != value for name, value in wanted):
            return False
        found = message.application_properties
        return all(name in found and same(found[name], value) for name, value in self.properties.items())
