"""Rules as the API's descriptions, and back."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID
from xml.etree.ElementTree import Element

from fusebus.servicebus.admin.atom import INSTANCE, SCHEMA, description, element, escaped, tag, text_of, type_of
from fusebus.servicebus.admin.durations import format_duration, format_instant, parse_duration
from fusebus.servicebus.engine import (
    Action,
    CorrelationFilter,
    FalseFilter,
    Filter,
    InvalidArgument,
    Rule,
    SqlAction,
    SqlFilter,
    SqlSyntaxError,
    TrueFilter,
)

T = TypeVar("T")

_INTEGER_KINDS: Final = ("int", "long", "short", "byte", "unsignedInt", "unsignedLong", "unsignedShort", "unsignedByte")
_COMPATIBILITY_LEVEL: Final = 20
_MAX_INT32: Final = 2**31 - 1
_CORRELATION_ELEMENTS: Final = {
    "CorrelationId": "correlation_id",
    "MessageId": "message_id",
    "To": "to",
    "ReplyTo": "reply_to",
    "Label": "subject",
    "SessionId": "session_id",
    "ReplyToSessionId": "reply_to_session_id",
    "ContentType": "content_type",
}


def read_rule(found: Element, name: str) -> Rule:
    """Raises InvalidArgument that begins with the element's name."""
    given, action = found.find(tag("Filter")), found.find(tag("Action"))
    return Rule(
        name,
        TrueFilter() if given is None else _read_filter(given),
        action=None if action is None else _read_action(action),
    )


def _read_filter(found: Element) -> Filter:
    kind = type_of(found)
    if kind == "TrueFilter":
        return TrueFilter()
    if kind == "FalseFilter":
        return FalseFilter()
    if kind == "CorrelationFilter":
        system = {field: text_of(found, name) for name, field in _CORRELATION_ELEMENTS.items()}
        return CorrelationFilter(**system, properties=_read_values(found, "Properties"))
    if kind == "SqlFilter":
        return _parsed("Filter", SqlFilter, found)
    raise InvalidArgument(f"Filter: '{kind}' is not a kind of filter.")


def _read_action(found: Element) -> Action | None:
    kind = type_of(found)
    if kind in ("", "EmptyRuleAction"):
        return None
    if kind == "SqlRuleAction":
        return _parsed("Action", SqlAction, found)
    raise InvalidArgument(f"Action: '{kind}' is not a kind of action.")


def _parsed(where: str, make: Callable[[str, Mapping[str, Any]], T], found: Element) -> T:
    try:
        return make(text_of(found, "SqlExpression") or "", _read_values(found, "Parameters"))
    except SqlSyntaxError as error:
        raise InvalidArgument(f"{where}: SqlExpression: {error}") from error


def _read_values(found: Element, where: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for pair in found.iterfind(f"{tag(where)}/{tag('KeyValueOfstringanyType')}"):
        name, value = pair.findtext(tag("Key")), pair.find(tag("Value"))
        if not name or value is None:
            raise InvalidArgument(f"{where}: an entry has no Key or no Value.")
        values[name] = _read_value(f"{where}: '{name}'", value.text or "", type_of(value))
    return values


def _read_value(where: str, text: str, kind: str) -> Any:
    try:
        if kind in _INTEGER_KINDS:
            return _integer(text)
        if kind in ("double", "float", "decimal"):
            return float(text)
        if kind == "boolean":
            return text.strip().lower() in ("true", "1")
        if kind == "guid":
            return UUID(text)
        if kind == "dateTime":
            return datetime.fromisoformat(text)  # without a zone it stays so: it is given back as it came
        return timedelta(seconds=parse_duration(text)) if kind == "duration" else text
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(f"{where} is not a {kind}: {error}.") from error


def _integer(text: str) -> int:
    value = int(text)
    if not -(2**63) <= value < 2**64:
        raise ValueError("more than 64 bits")
    return value


def describe_rule(rule: Rule) -> str:
    return description(
        "RuleDescription",
        _filter(rule.filter),
        _action(rule.action),
        element("CreatedAt", format_instant(rule.created_at)),
        element("Name", rule.name),
    )


def _filter(found: Filter) -> str:
    if isinstance(found, CorrelationFilter):
        system = (element(name, getattr(found, field)) for name, field in _CORRELATION_ELEMENTS.items())
        inside = "".join(system) + _values("Properties", found.properties)
        return f'<Filter i:type="CorrelationFilter">{inside}</Filter>'
    if isinstance(found, SqlFilter):
        return f'<Filter i:type="SqlFilter">{_expression(found.expression, found.parameters)}</Filter>'
    kind, expression = ("FalseFilter", "1=0") if isinstance(found, FalseFilter) else ("TrueFilter", "1=1")
    return f'<Filter i:type="{kind}">{_expression(expression, {})}</Filter>'


def _action(found: Action | None) -> str:
    if not isinstance(found, SqlAction):
        return '<Action i:type="EmptyRuleAction"/>'
    return f'<Action i:type="SqlRuleAction">{_expression(found.expression, found.parameters)}</Action>'


def _expression(expression: str, parameters: Mapping[str, Any]) -> str:
    level = element("CompatibilityLevel", _COMPATIBILITY_LEVEL)
    return element("SqlExpression", expression) + level + _values("Parameters", parameters)


def _values(name: str, values: Mapping[str, Any]) -> str:
    pairs = "".join(_pair(key, value) for key, value in values.items())
    return f"<{name}>{pairs}</{name}>" if pairs else ""


def _pair(name: str, value: Any) -> str:
    kind, text = _typed(value)
    return (
        f"<KeyValueOfstringanyType>{element('Key', name)}"
        f'<Value xmlns:d6p1="{SCHEMA}" xmlns:i="{INSTANCE}" i:type="d6p1:{kind}">{escaped(text)}</Value>'
        f"</KeyValueOfstringanyType>"
    )


def _typed(value: Any) -> tuple[str, str]:
    if isinstance(value, bool):
        return "boolean", str(value).lower()
    if isinstance(value, int):
        return ("int" if abs(value) <= _MAX_INT32 else "long"), str(value)
    if isinstance(value, float):
        return "double", repr(value)
    if isinstance(value, datetime):
        return "dateTime", value.isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return "duration", format_duration(value.total_seconds())
    if isinstance(value, UUID):
        return "guid", str(value)
    return "string", str(value)
