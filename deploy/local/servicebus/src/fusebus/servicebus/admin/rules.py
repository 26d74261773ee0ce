"""Rules as the API's descriptions, and back."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from fusebus.servicebus.admin.atom import INSTANCE, SCHEMA, description, element, tag, text_of, type_of
from fusebus.servicebus.admin.durations import format_duration, format_instant, parse_duration
from fusebus.servicebus.engine import (
    CorrelationFilter,
    FalseFilter,
    Filter,
    InvalidArgument,
    Rule,
    SqlFilter,
    TrueFilter,
)

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


def read_rule(found: ElementTree.Element, name: str) -> Rule:
    """Raises InvalidArgument, also for actions and SQL parameters, which this broker cannot do."""
    action = found.find(tag("Action"))
    if action is not None and type_of(action) not in ("", "EmptyRuleAction") and text_of(action, "SqlExpression"):
        raise InvalidArgument("This broker does not support rule actions.")
    given = found.find(tag("Filter"))
    return Rule(name, TrueFilter() if given is None else _read_filter(given))


def _read_filter(found: ElementTree.Element) -> Filter:
    kind = type_of(found)
    if kind == "TrueFilter":
        return TrueFilter()
    if kind == "FalseFilter":
        return FalseFilter()
    if kind == "CorrelationFilter":
        system = {field: text_of(found, name) for name, field in _CORRELATION_ELEMENTS.items()}
        return CorrelationFilter(**system, properties=_read_properties(found))
    if kind == "SqlFilter":
        parameters = found.find(tag("Parameters"))
        if parameters is not None and len(parameters):
            raise InvalidArgument("This broker does not support parameters of SQL filters.")
        return SqlFilter(text_of(found, "SqlExpression") or "")
    raise InvalidArgument(f"'{kind}' is not a kind of filter.")


def _read_properties(found: ElementTree.Element) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for pair in found.iterfind(f"{tag('Properties')}/{tag('KeyValueOfstringanyType')}"):
        name, value = pair.findtext(tag("Key")), pair.find(tag("Value"))
        if not name or value is None:
            raise InvalidArgument("A property of the correlation filter has no name or no value.")
        properties[name] = _read_value(name, value.text or "", type_of(value))
    return properties


def _read_value(name: str, text: str, kind: str) -> Any:
    try:
        if kind in ("int", "long", "short", "byte"):
            return int(text)
        if kind in ("double", "float", "decimal"):
            return float(text)
        if kind == "boolean":
            return text.lower() in ("true", "1")
        if kind == "dateTime":
            moment = datetime.fromisoformat(text)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return timedelta(seconds=parse_duration(text)) if kind == "duration" else text
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(f"The property '{name}' is not a {kind}: {error}.") from error


def describe_rule(rule: Rule) -> str:
    return description(
        "RuleDescription",
        _filter(rule.filter),
        '<Action i:type="EmptyRuleAction"/>',
        element("CreatedAt", format_instant(rule.created_at)),
        element("Name", rule.name),
    )


def _filter(found: Filter) -> str:
    if isinstance(found, CorrelationFilter):
        system = (element(name, getattr(found, field)) for name, field in _CORRELATION_ELEMENTS.items())
        pairs = "".join(_property(name, value) for name, value in found.properties.items())
        inside = "".join(system) + (f"<Properties>{pairs}</Properties>" if pairs else "")
        return f'<Filter i:type="CorrelationFilter">{inside}</Filter>'
    kind = type(found).__name__
    expression = found.expression if isinstance(found, SqlFilter) else {"TrueFilter": "1=1", "FalseFilter": "1=0"}[kind]
    inside = element("SqlExpression", expression) + element("CompatibilityLevel", _COMPATIBILITY_LEVEL)
    return f'<Filter i:type="{kind}">{inside}</Filter>'


def _property(name: str, value: Any) -> str:
    kind, text = _typed(value)
    return (
        f"<KeyValueOfstringanyType>{element('Key', name)}"
        f'<Value xmlns:d6p1="{SCHEMA}" xmlns:i="{INSTANCE}" i:type="d6p1:{kind}">{escape(text)}</Value>'
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
        return "dateTime", format_instant(value.timestamp())
    if isinstance(value, timedelta):
        return "duration", format_duration(value.total_seconds())
    return "string", str(value)
