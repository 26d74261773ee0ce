"""What a rule does to its copy of a message: properties set and removed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from fusebus.servicebus.engine.arrivals import arrived
from fusebus.servicebus.engine.errors import FilterError
from fusebus.servicebus.engine.messages import EMPTY, Message
from fusebus.servicebus.engine.records import Record
from fusebus.servicebus.engine.sql import SYSTEM_PROPERTIES, Statement, parse_action
from fusebus.servicebus.engine.sql.properties import Property, user_key
from fusebus.servicebus.engine.sql.values import MAX_TEXT_CHARACTERS, text


@dataclass(frozen=True, slots=True)
class Changes:
    """What becomes different: fields of the message by their names (None: cleared), application properties."""

    system: Mapping[str, str | None] = field(default_factory=lambda: EMPTY)
    properties: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    removed: frozenset[str] = frozenset()
    """Application properties that are no more."""


class Action(Protocol):
    """Pure, but for newid()."""

    def changes(self, message: Message, record: Record | None = None) -> Changes:
        """Raises FilterError when the expression cannot be evaluated for this message; `record` as for filters."""


@dataclass(frozen=True, slots=True)
class SqlAction:
    """Statements of the language in sql/; raises SqlSyntaxError when made."""

    expression: str
    parameters: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    _statements: tuple[Statement, ...] = field(init=False, repr=False, compare=False)
    _asks_arrival: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        statements, asks_arrival = parse_action(self.expression, self.parameters)
        object.__setattr__(self, "_statements", statements)
        object.__setattr__(self, "_asks_arrival", asks_arrival)

    def changes(self, message: Message, record: Record | None = None) -> Changes:
        if self._asks_arrival:
            message = arrived(message, record)
        try:
            changed = message
            for statement in self._statements:
                changed = _done(statement, changed)
        except FilterError as error:
            raise FilterError(f"{error} in the action {self.expression!r}") from error
        return _difference(message, changed)


def apply_changes(message: Message, changes: Changes) -> Message:
    """The message with the changes in its fields; `raw` stays what it was."""
    kept = {key: value for key, value in message.application_properties.items() if key not in changes.removed}
    fields: dict[str, Any] = dict(changes.system)
    return replace(message, application_properties={**kept, **changes.properties}, **fields)


def _done(statement: Statement, message: Message) -> Message:
    """Every statement sees what those before it did."""
    value = None if statement.value is None else statement.value(message)
    if statement.target.system:
        return _with_system(message, statement.target, value)
    properties = dict(message.application_properties)
    key = user_key(properties, statement.target.name)
    if statement.value is None:
        properties.pop(key or "", None)
    else:
        properties[key or statement.target.name] = _converted(value, properties.get(key or ""))
    return replace(message, application_properties=properties)


def _with_system(message: Message, target: Property, value: Any) -> Message:
    said = None if value is None else text(value)
    if said is not None and len(said) > MAX_TEXT_CHARACTERS:
        raise FilterError(f"a text longer than {MAX_TEXT_CHARACTERS} characters")
    fields: dict[str, Any] = {SYSTEM_PROPERTIES[target.name.lower()]: said}
    return replace(message, **fields)


def _converted(value: Any, old: Any) -> Any:
    """A property keeps its type where C# converts by itself: an integer to a double."""
    keeps_double = isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool)
    return float(value) if keeps_double else value


def _difference(before: Message, after: Message) -> Changes:
    old, new = before.application_properties, after.application_properties
    fields = set(SYSTEM_PROPERTIES.values())
    return Changes(
        {name: getattr(after, name) for name in sorted(fields) if getattr(after, name) != getattr(before, name)},
        {key: value for key, value in new.items() if key not in old or old[key] is not value},
        frozenset(key for key in old if key not in new),
    )
