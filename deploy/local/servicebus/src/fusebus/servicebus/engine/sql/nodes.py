"""What expressions compute, as functions of a message: values, and predicates with SQL's third truth value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fusebus.servicebus.engine.errors import FilterError
from fusebus.servicebus.engine.messages import Message
from fusebus.servicebus.engine.sql.like import like, matcher
from fusebus.servicebus.engine.sql.properties import Property, property_of
from fusebus.servicebus.engine.sql.values import arithmetic, negative, ordered, positive, same

Value = Callable[[Message], Any]
Predicate = Callable[[Message], bool | None]
"""True, False, or None for SQL's unknown."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that needs no message."""

    value: Any

    def __call__(self, message: Message) -> Any:
        return self.value


def read(found: Property) -> Value:
    return found.reader()


def exists(found: Property) -> Predicate:
    return found.finder()


def named_property(name: Value) -> Value:
    """The function property(name)."""

    def value(message: Message) -> Any:
        text = name(message)
        if text is None:
            return None
        if not isinstance(text, str):
            raise FilterError("the name of a property must be a string")
        found = property_of(text)
        if not found.is_known:
            raise FilterError(f"there is no system property {found.name!r}")
        return found.reader()(message)

    return value


def chain(first: Value, rest: Sequence[tuple[str, Value]]) -> Value:
    """Operators of one rank, from left to right: a loop, so that a long sum needs no deep stack."""

    def value(message: Message) -> Any:
        result = first(message)
        for operator, operand in rest:
            result = arithmetic(operator, result, operand(message))
        return result

    return value


def signed(sign: str, operand: Value) -> Value:
    if isinstance(operand, Constant):
        return Constant((negative if sign == "-" else positive)(operand.value))
    return (lambda message: negative(operand(message))) if sign == "-" else (lambda message: positive(operand(message)))


def all_of(parts: Sequence[Predicate]) -> Predicate:
    """AND: False if any part is, else unknown if any part is."""

    def conjunction(message: Message) -> bool | None:
        result: bool | None = True
        for part in parts:
            value = part(message)
            if value is False:
                return False
            if value is None:
                result = None
        return result

    return conjunction


def any_of(parts: Sequence[Predicate]) -> Predicate:
    """OR: True if any part is, else unknown if any part is."""

    def disjunction(message: Message) -> bool | None:
        result: bool | None = False
        for part in parts:
            value = part(message)
            if value is True:
                return True
            if value is None:
                result = None
        return result

    return disjunction


def negation(inner: Predicate, negated: bool = True) -> Predicate:
    """NOT, if wanted; unknown stays unknown."""
    if not negated:
        return inner

    def opposite(message: Message) -> bool | None:
        value = inner(message)
        return None if value is None else not value

    return opposite


def is_null(operand: Value) -> Predicate:
    return lambda message: operand(message) is None


def compare(operator: str, left: Value, right: Value) -> Predicate:
    def comparison(message: Message) -> bool | None:
        first, second = left(message), right(message)
        if first is None or second is None:
            return None
        if operator == "=":
            return same(first, second)
        if operator in ("<>", "!="):
            return not same(first, second)
        return ordered(operator, first, second)

    return comparison


def is_one_of(left: Value, choices: Sequence[Value]) -> Predicate:
    """IN: unknown only if the left side is."""

    def membership(message: Message) -> bool | None:
        value = left(message)
        if value is None:
            return None
        return any((other := choice(message)) is not None and same(value, other) for choice in choices)

    return membership


def is_like(left: Value, pattern: Value, escape: Value | None) -> Predicate:
    """Unknown if any operand is unknown or no string. A constant pattern is checked now; raises FilterError."""
    if isinstance(pattern, Constant) and isinstance(pattern.value, str) and (escape is None or _is_text(escape)):
        matcher(pattern.value, escape.value if isinstance(escape, Constant) else None)

    def similarity(message: Message) -> bool | None:
        text, wanted = left(message), pattern(message)
        mark = None if escape is None else escape(message)
        if not isinstance(text, str) or not isinstance(wanted, str) or (escape and not isinstance(mark, str)):
            return None
        return like(text, wanted, mark)

    return similarity


def _is_text(value: Value) -> bool:
    return isinstance(value, Constant) and isinstance(value.value, str)
