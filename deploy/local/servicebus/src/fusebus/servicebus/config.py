"""The configuration file: a JSON list of queues, topics, subscriptions and rules, made into entities at start.

    {"queues": [{"name": "orders", "lock_seconds": 30, "forward_dead_lettered_to": "images"}],
     "topics": [{"name": "images", "duplicate_detection_seconds": 600, "ttl_seconds": 86400,
                 "subscriptions": [{"name": "detect", "lock_seconds": 60, "max_delivery_count": 20,
                                    "dead_letter_on_expiry": true, "ttl_seconds": 3600,
                                    "rules": [{"name": "kind", "correlation": {"job_kind": "detect"}},
                                              {"name": "mine", "sql": "only IS NULL OR only = @who",
                                               "parameters": {"@who": "detect"}, "action": "SET seen = TRUE"}]}]}],
     "authorization_rules": [{"name": "sender", "rights": ["Send"], "primary_key": "..."}]}

Only names are required. A subscription without "rules" takes every message, one with an empty list none. A rule has
one of "correlation" (application properties, or `sys.` properties such as "sys.Label"), "sql", "true" and "false".
Authorization rules can stand at the top, for the whole namespace, and in queues and topics.

A file with "UserConfig" is one of Microsoft's emulator (see emulator_config.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from fusebus.servicebus import emulator_config
from fusebus.servicebus.admin.authorization import new_key, read_rights
from fusebus.servicebus.engine import (
    Action,
    AuthorizationRule,
    CorrelationFilter,
    Engine,
    EntityStatus,
    FalseFilter,
    Filter,
    QueueSettings,
    Rule,
    SqlAction,
    SqlFilter,
    SubscriptionSettings,
    TopicSettings,
    TrueFilter,
)
from fusebus.servicebus.engine.filters import CORRELATION_FIELDS
from fusebus.servicebus.engine.sql import SYSTEM_PROPERTIES
from fusebus.servicebus.json_objects import NUMBER, JsonObject
from fusebus.servicebus.topology import ConfigError, QueuePlan, SubscriptionPlan, TopicPlan, Topology, apply, place

__all__ = ["ConfigError", "Topology", "load_topology", "parse"]

_KEYS: Final = {
    "lock_seconds": NUMBER,
    "max_delivery_count": int,
    "ttl_seconds": NUMBER,
    "dead_letter_on_expiry": bool,
    "dead_letter_on_filter_error": bool,
    "duplicate_detection_seconds": NUMBER,
    "max_size_megabytes": int,
    "max_message_kilobytes": int,
    "requires_session": bool,
    "forward_to": str,
    "forward_dead_lettered_to": str,
    "auto_delete_on_idle_seconds": NUMBER,
    "enable_partitioning": bool,
    "user_metadata": str,
}


def load_topology(engine: Engine, source: Path | Mapping[str, Any], keep_existing: bool = False) -> Topology:
    """Create the entities of a file, or of its contents read already; raises ConfigError, OSError.

    With `keep_existing`, what there is already stays as it is, settings and rules included.
    """
    topology = parse(_read(source) if isinstance(source, Path) else source)
    apply(topology, engine, keep_existing)
    return topology


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ConfigError("", f"not JSON: {error}") from error


def parse(document: Any) -> Topology:
    """Check a whole file, of either format, without creating anything; raises ConfigError."""
    if emulator_config.is_emulators(document):
        return emulator_config.parse(document)
    top = JsonObject(document, "")
    queues = top.each("queues", _queue) or ()
    topics = top.each("topics", _topic) or ()
    rules = top.each("authorization_rules", _authorization_rule) or ()
    top.end()
    return Topology(queues, topics, rules)


def _settings(item: JsonObject, kind: type[Any]) -> dict[str, Any]:
    known = kind.__dataclass_fields__
    found = {key: value for key in _KEYS if key in known and (value := item.take(key, _KEYS[key])) is not None}
    status = item.take("status", str)
    if status is not None:
        found["status"] = _status(status, item.place("status"))
    if "authorization_rules" in known:
        found["authorization_rules"] = item.each("authorization_rules", _authorization_rule) or ()
    return found


def _status(text: str, where: str) -> EntityStatus:
    try:
        return EntityStatus(text)
    except ValueError as error:
        choices = ", ".join(status.value for status in EntityStatus)
        raise ConfigError(where, f"must be one of {choices}, not {text!r}") from error


def _queue(item: JsonObject) -> QueuePlan:
    return QueuePlan(item.where, item.need("name"), QueueSettings(**_settings(item, QueueSettings)))


def _topic(item: JsonObject) -> TopicPlan:
    name, settings = item.need("name"), TopicSettings(**_settings(item, TopicSettings))
    return TopicPlan(item.where, name, settings, item.each("subscriptions", _subscription) or ())


def _subscription(item: JsonObject) -> SubscriptionPlan:
    settings = SubscriptionSettings(**_settings(item, SubscriptionSettings))
    rules = item.each("rules", _rule)
    return SubscriptionPlan(item.where, item.need("name"), settings, (Rule(),) if rules is None else rules)


def _authorization_rule(item: JsonObject) -> AuthorizationRule:
    name, where = item.need("name"), item.place("rights")
    rights = item.rest()
    primary, secondary = rights.pop("primary_key", None), rights.pop("secondary_key", None)
    given = rights.pop("rights", None)
    for key in rights:
        raise ConfigError(item.place(key), "is not a known setting")
    if not isinstance(given, list) or not all(isinstance(right, str) for right in given):
        raise ConfigError(where, 'must be a list of "Send", "Listen" and "Manage"')
    for key, value in (("primary_key", primary), ("secondary_key", secondary or primary)):
        if not (isinstance(value, str) and value):
            raise ConfigError(item.place(key), "must be a string")
    with place(where):
        return AuthorizationRule(name, read_rights(name, given), str(primary), secondary or new_key())


def _rule(item: JsonObject) -> Rule:
    name = item.need("name")
    parameters = _parameters(item)
    found = [made for key, make in _FILTERS.items() if (made := make(item, key, parameters)) is not None]
    if len(found) != 1:
        raise ConfigError(item.where, f"must have one of {', '.join(_FILTERS)}")
    return Rule(name, found[0], action=_action(item, parameters))


def _parameters(item: JsonObject) -> dict[str, Any]:
    given = item.take("parameters", Mapping) or {}
    return {name: _plain(value, f"{item.place('parameters')}.{name}") for name, value in given.items()}


def _plain(value: Any, where: str) -> Any:
    if not isinstance(value, str | bool | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise ConfigError(where, "must be a string, a number, true or false")
    return value


def _action(item: JsonObject, parameters: Mapping[str, Any]) -> Action | None:
    expression = item.take("action", str)
    if expression is None:
        return None
    with place(item.place("action")):
        return SqlAction(expression, parameters)


def _sql(item: JsonObject, key: str, parameters: Mapping[str, Any]) -> Filter | None:
    expression = item.take(key, str)
    if expression is None:
        return None
    with place(item.place(key)):
        return SqlFilter(expression, parameters)


def _correlation(item: JsonObject, key: str, _: Mapping[str, Any]) -> Filter | None:
    wanted = item.take(key, Mapping)
    if wanted is None:
        return None
    system: dict[str, str] = {}
    properties: dict[str, Any] = {}
    for name, value in wanted.items():
        where = f"{item.place(key)}.{name}"
        if name.lower().startswith("sys."):
            system[_system_field(name, where)] = str(_plain(value, where))
        else:
            properties[name] = _plain(value, where)
    return CorrelationFilter(**system, properties=properties)


def _system_field(name: str, where: str) -> str:
    field = SYSTEM_PROPERTIES.get(name[len("sys.") :].lower())
    if field not in CORRELATION_FIELDS:
        raise ConfigError(where, "is not a system property that a correlation filter can ask for")
    return str(field)


def _constant(made: Filter) -> Callable[[JsonObject, str, Mapping[str, Any]], Filter | None]:
    def make(item: JsonObject, key: str, _: Mapping[str, Any]) -> Filter | None:
        chosen = item.take(key, bool)
        if chosen is False:
            raise ConfigError(item.place(key), "can only be true")
        return made if chosen else None

    return make


_FILTERS: Final[dict[str, Callable[[JsonObject, str, Mapping[str, Any]], Filter | None]]] = {
    "correlation": _correlation,
    "sql": _sql,
    "true": _constant(TrueFilter()),
    "false": _constant(FalseFilter()),
}
