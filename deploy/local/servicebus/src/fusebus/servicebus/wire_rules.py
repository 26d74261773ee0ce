"""Rules as `$management` speaks of them: maps in requests, described lists in answers."""

from __future__ import annotations

from typing import Any, Final

from fusebus.servicebus.amqp.sections import timestamp
from fusebus.servicebus.amqp.types import Described, Int, ULong
from fusebus.servicebus.engine.actions import Action, SqlAction
from fusebus.servicebus.engine.errors import InvalidArgument
from fusebus.servicebus.engine.filters import CorrelationFilter, FalseFilter, Filter, SqlFilter, TrueFilter
from fusebus.servicebus.engine.settings import Rule
from fusebus.servicebus.wire_messages import plain_properties

RULE: Final = ULong(0x13700000004)
NO_ACTION, SQL_ACTION = ULong(0x13700000005), ULong(0x13700000006)
# Filters have one digit less than their kin: so the service numbers them.
SQL_FILTER, TRUE_FILTER, FALSE_FILTER = ULong(0x1370000006), ULong(0x1370000007), ULong(0x1370000008)
CORRELATION_FILTER: Final = ULong(0x1370000009)
LANGUAGE_LEVEL: Final = Int(20)  # of SQL expressions, the only one there is
_CORRELATION: Final = {  # names in requests, in the order in which answers list them
    "correlation-id": "correlation_id",
    "message-id": "message_id",
    "to": "to",
    "reply-to": "reply_to",
    "label": "subject",
    "session-id": "session_id",
    "reply-to-session-id": "reply_to_session_id",
    "content-type": "content_type",
}


def rule_of(name: str, description: dict[Any, Any]) -> Rule:
    """The rule that add-rule asks for; raises InvalidArgument."""
    return Rule(name, _filter(description), action=_action(description.get("sql-rule-action")))


def _filter(description: dict[Any, Any]) -> Filter:
    sql, correlation = description.get("sql-filter"), description.get("correlation-filter")
    if isinstance(sql, dict):
        return SqlFilter(_expression(sql))
    if isinstance(correlation, dict):
        return _correlation(correlation)
    if "true-filter" in description:
        return TrueFilter()
    if "false-filter" in description:
        return FalseFilter()
    raise InvalidArgument("rule-description has neither a sql-filter nor a correlation-filter.")


def _correlation(given: dict[Any, Any]) -> CorrelationFilter:
    fields = {own: str(given[name]) for name, own in _CORRELATION.items() if given.get(name) is not None}
    properties = given.get("properties") or {}
    if not isinstance(properties, dict):
        raise InvalidArgument("A correlation filter's properties must be a map.")
    return CorrelationFilter(**fields, properties=plain_properties(properties))


def _action(given: Any) -> Action | None:
    if not isinstance(given, dict) or not given.get("expression"):
        return None
    return SqlAction(_expression(given))


def _expression(given: dict[Any, Any]) -> str:
    expression = given.get("expression")
    if not isinstance(expression, str):
        raise InvalidArgument("An SQL expression must be a string.")
    return expression


def described(rule: Rule) -> Described:
    """The rule as enumerate-rules lists it."""
    return Described(
        RULE, [_described_filter(rule.filter), _described_action(rule.action), rule.name, timestamp(rule.created_at)]
    )


def _described_filter(given: Filter) -> Described:
    if isinstance(given, SqlFilter):
        return Described(SQL_FILTER, [given.expression, LANGUAGE_LEVEL])
    if isinstance(given, CorrelationFilter):
        fields = [getattr(given, own) for own in _CORRELATION.values()]
        return Described(CORRELATION_FILTER, [*fields, dict(given.properties)])
    return Described(FALSE_FILTER if isinstance(given, FalseFilter) else TRUE_FILTER, [])


def _described_action(action: Action | None) -> Described:
    if isinstance(action, SqlAction):
        return Described(SQL_ACTION, [action.expression, LANGUAGE_LEVEL])
    return Described(NO_ACTION, [])
