"""The config.json of Microsoft's Service Bus emulator: the same entities, with its names, durations and defaults."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from fusebus.servicebus.admin.durations import parse_duration
from fusebus.servicebus.admin.fields import FIELDS
from fusebus.servicebus.engine import (
    Action,
    CorrelationFilter,
    Filter,
    QueueSettings,
    Rule,
    SqlAction,
    SqlFilter,
    SubscriptionSettings,
    TopicSettings,
)
from fusebus.servicebus.json_objects import JsonObject
from fusebus.servicebus.topology import ConfigError, QueuePlan, SubscriptionPlan, TopicPlan, Topology, place

logger = logging.getLogger(__name__)

# What the emulator's schema says that it takes for what is left out.
_TTL_SECONDS: Final = 3600.0
_DUPLICATE_SECONDS: Final = 20.0
_RECEIVING: Final[dict[str, Any]] = {"ttl_seconds": _TTL_SECONDS, "lock_seconds": 60.0, "max_delivery_count": 3}
_CORRELATION: Final = {
    "ContentType": "content_type",
    "CorrelationId": "correlation_id",
    "Label": "subject",
    "MessageId": "message_id",
    "ReplyTo": "reply_to",
    "ReplyToSessionId": "reply_to_session_id",
    "SessionId": "session_id",
    "To": "to",
}


def is_emulators(document: Any) -> bool:
    return isinstance(document, Mapping) and "UserConfig" in document


def parse(document: Mapping[str, Any]) -> Topology:
    """Raises ConfigError; its `where` is the place in the file, such as `UserConfig.Namespaces[0].Queues[2].Name`."""
    user = JsonObject(document, "").inner("UserConfig")
    assert user is not None
    namespaces = user.each("Namespaces", _namespace) or ()
    if len(namespaces) != 1:
        raise ConfigError(user.place("Namespaces"), f"must have one namespace, not {len(namespaces)}")
    return namespaces[0]


def _namespace(item: JsonObject) -> Topology:
    queues = item.each("Queues", _queue) or ()
    topics = item.each("Topics", _topic) or ()
    item.rest()  # its name means nothing here: a broker has one namespace
    return Topology(queues, topics)


def _queue(item: JsonObject) -> QueuePlan:
    found = QueueSettings(**{**_RECEIVING, **_settings(item, QueueSettings)})
    return QueuePlan(item.where, item.need("Name"), found)


def _topic(item: JsonObject) -> TopicPlan:
    found = TopicSettings(**{"ttl_seconds": _TTL_SECONDS, **_settings(item, TopicSettings)})
    return TopicPlan(item.where, item.need("Name"), found, item.each("Subscriptions", _subscription) or ())


def _subscription(item: JsonObject) -> SubscriptionPlan:
    found = SubscriptionSettings(**{**_RECEIVING, **_settings(item, SubscriptionSettings)})
    rules = item.each("Rules", _rule) or (Rule(),)
    return SubscriptionPlan(item.where, item.need("Name"), found, rules)


def _settings(item: JsonObject, kind: type[Any]) -> dict[str, Any]:
    """An entity's Properties as settings of that kind."""
    properties = item.inner("Properties")
    if properties is None:
        return {}
    found: dict[str, Any] = {}
    if "duplicate_detection_seconds" in kind.__dataclass_fields__:
        found["duplicate_detection_seconds"] = _duplicates(properties)
    for name, value in properties.rest().items():
        field = FIELDS.get(name)
        if field is None or field.attribute not in kind.__dataclass_fields__:
            logger.warning("%s is not a setting of this broker", properties.place(name))
        elif value != "":  # the emulator's own files say so for what is not set
            found[field.attribute] = _value(value, properties.place(name), name)
    return found


def _duplicates(properties: JsonObject) -> float:
    required = properties.take("RequiresDuplicateDetection", bool)
    window = properties.take("DuplicateDetectionHistoryTimeWindow", str)
    if not required:
        return 0.0
    try:
        return parse_duration(window) if window else _DUPLICATE_SECONDS
    except ValueError as error:
        raise ConfigError(properties.place("DuplicateDetectionHistoryTimeWindow"), str(error)) from error


def _value(value: Any, where: str, name: str) -> Any:
    if not isinstance(value, str | bool | int):
        raise ConfigError(where, f"must be a string, a whole number, true or false, not {str(value)[:40]!r}")
    try:
        return FIELDS[name].read(str(value))
    except ValueError as error:
        raise ConfigError(where, str(error)) from error


def _rule(item: JsonObject) -> Rule:
    name, properties = item.need("Name"), item.inner("Properties")
    if properties is None:
        raise ConfigError(item.place("Properties"), "is missing")
    made = Rule(name, _filter(properties), action=_action(properties))
    properties.rest()  # the other kind of filter may be there, too
    return made


def _filter(properties: JsonObject) -> Filter:
    kind = properties.need("FilterType")
    if kind in ("Correlation", "CorrelationFilter"):
        return _correlation(_inner(properties, "CorrelationFilter"))
    if kind in ("Sql", "SqlFilter"):
        given = _inner(properties, "SqlFilter")
        with place(given.place("SqlExpression")):
            return SqlFilter(given.need("SqlExpression"))
    raise ConfigError(properties.place("FilterType"), f"must be Correlation or Sql, not {kind!r}")


def _inner(properties: JsonObject, key: str) -> JsonObject:
    found = properties.inner(key)
    if found is None:
        raise ConfigError(properties.place(key), "is missing")
    return found


def _correlation(given: JsonObject) -> CorrelationFilter:
    fields = {field: given.take(name, str) for name, field in _CORRELATION.items()}
    own = given.inner("Properties")
    given.end()
    properties = {} if own is None else own.rest()
    for name, value in properties.items():
        if own is not None and not isinstance(value, str | bool | int | float):
            raise ConfigError(own.place(name), "must be a string, a number, true or false")
    return CorrelationFilter(**fields, properties=properties)


def _action(properties: JsonObject) -> Action | None:
    given = properties.inner("Action")
    expression = None if given is None else given.take("SqlExpression", str)
    if given is None or not expression:
        return None
    with place(given.place("SqlExpression")):
        return SqlAction(expression)
