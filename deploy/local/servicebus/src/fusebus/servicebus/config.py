"""The topology file: a JSON list of queues, topics, subscriptions and rules, made into entities at start.

    {"queues": [{"name": "orders", "lock_seconds": 30}],
     "topics": [{"name": "images", "duplicate_detection_seconds": 600, "ttl_seconds": 86400,
                 "subscriptions": [{"name": "detect", "lock_seconds": 60, "max_delivery_count": 20,
                                    "dead_letter_on_expiry": true, "ttl_seconds": 3600,
                                    "rules": [{"name": "kind", "correlation": {"job_kind": "detect"}},
                                              {"name": "mine", "sql": "only IS NULL OR only = 'detect'"}]}]}]}

Only names are required. A subscription without "rules" takes every message, one with an empty list none. A rule has
one of "correlation" (application properties, or `sys.` properties such as "sys.Label"), "sql", "true" and "false".
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from fusebus.servicebus.engine import (
    CorrelationFilter,
    Engine,
    EngineError,
    EntityExists,
    FalseFilter,
    Filter,
    QueueSettings,
    Rule,
    SqlFilter,
    SubscriptionSettings,
    TopicSettings,
    TrueFilter,
)
from fusebus.servicebus.engine.filters import CORRELATION_FIELDS
from fusebus.servicebus.engine.sql import SYSTEM_PROPERTIES

T = TypeVar("T")

_NUMBER: Final = (int, float)
_QUEUE_KEYS: Final = {
    "lock_seconds": _NUMBER,
    "max_delivery_count": int,
    "ttl_seconds": _NUMBER,
    "dead_letter_on_expiry": bool,
    "duplicate_detection_seconds": _NUMBER,
    "max_size_megabytes": int,
}
_TOPIC_KEYS: Final = {key: _QUEUE_KEYS[key] for key in _QUEUE_KEYS if key in TopicSettings.__dataclass_fields__}
_SUBSCRIPTION_KEYS: Final = {
    key: _QUEUE_KEYS[key] for key in _QUEUE_KEYS if key in SubscriptionSettings.__dataclass_fields__
}
_KINDS: Final = {
    _NUMBER: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a string",
    Mapping: "an object",
}


class ConfigError(Exception):
    """`where` is the place in the file, such as `topics[0].subscriptions[1].lock_seconds`."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}" if where else problem)
        self.where = where


@dataclass(frozen=True, slots=True)
class SubscriptionPlan:
    name: str
    settings: SubscriptionSettings
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class TopicPlan:
    name: str
    settings: TopicSettings
    subscriptions: tuple[SubscriptionPlan, ...]


@dataclass(frozen=True, slots=True)
class QueuePlan:
    name: str
    settings: QueueSettings


@dataclass(frozen=True, slots=True)
class Topology:
    queues: tuple[QueuePlan, ...] = ()
    topics: tuple[TopicPlan, ...] = ()


def load_topology(engine: Engine, source: Path | Mapping[str, Any], keep_existing: bool = False) -> None:
    """Create the entities of a topology file, or of its contents read already; raises ConfigError, OSError.

    With `keep_existing`, what there is already stays as it is, settings and rules included.
    """
    apply(parse(_read(source) if isinstance(source, Path) else source), engine, keep_existing)


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError("", f"not JSON: {error}") from error


def parse(document: Any) -> Topology:
    """Check a whole topology without creating anything; raises ConfigError."""
    top = _Object(document, "")
    queues = top.each("queues", _queue) or ()
    topics = top.each("topics", _topic) or ()
    top.end()
    return Topology(queues, topics)


def apply(topology: Topology, engine: Engine, keep_existing: bool = False) -> None:
    """Create what the topology names; raises ConfigError for what the engine refuses, such as a name twice."""
    namespace = engine.namespace
    for index, queue in enumerate(topology.queues):
        with _place(f"queues[{index}]", keep_existing):
            namespace.create_queue(queue.name, queue.settings)
    for index, topic in enumerate(topology.topics):
        with _place(f"topics[{index}]", keep_existing):
            namespace.create_topic(topic.name, topic.settings)
        for position, plan in enumerate(topic.subscriptions):
            with _place(f"topics[{index}].subscriptions[{position}]", keep_existing):
                namespace.create_subscription(topic.name, plan.name, plan.settings, plan.rules)


@contextmanager
def _place(where: str, keep_existing: bool = False) -> Iterator[None]:
    """A refusal of the engine becomes a ConfigError that says where."""
    try:
        yield
    except EngineError as error:
        if keep_existing and isinstance(error, EntityExists):
            return
        raise ConfigError(where, str(error)) from error


class _Object:
    """A JSON object of which every key must be asked for; null counts as absent."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise ConfigError(where, f"must be an object, not {str(value)[:40]!r}")
        self.where = where
        self._left = {key: item for key, item in value.items() if item is not None}

    def place(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key

    def take(self, key: str, kind: Any) -> Any:
        value = self._left.pop(key, None)
        if value is None:
            return None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(self.place(key), f"must be {_KINDS[kind]}, not {str(value)[:40]!r}")
        return value

    def name(self) -> str:
        name = self.take("name", str)
        if not name:
            raise ConfigError(self.place("name"), "is missing")
        return str(name)

    def settings(self, keys: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key in keys if (value := self.take(key, keys[key])) is not None}

    def each(self, key: str, make: Callable[["_Object"], T]) -> tuple[T, ...] | None:
        values = self._left.pop(key, None)
        if values is None:
            return None
        if not isinstance(values, list):
            raise ConfigError(self.place(key), "must be a list")
        return tuple(self._made(values, self.place(key), make))

    def end(self) -> None:
        for key in self._left:
            raise ConfigError(self.place(key), "is not a known setting")

    @staticmethod
    def _made(values: list[Any], where: str, make: Callable[["_Object"], T]) -> Iterator[T]:
        for index, value in enumerate(values):
            item = _Object(value, f"{where}[{index}]")
            yield make(item)
            item.end()


def _queue(item: _Object) -> QueuePlan:
    return QueuePlan(item.name(), QueueSettings(**item.settings(_QUEUE_KEYS)))


def _topic(item: _Object) -> TopicPlan:
    settings = TopicSettings(**item.settings(_TOPIC_KEYS))
    return TopicPlan(item.name(), settings, item.each("subscriptions", _subscription) or ())


def _subscription(item: _Object) -> SubscriptionPlan:
    settings = SubscriptionSettings(**item.settings(_SUBSCRIPTION_KEYS))
    rules = item.each("rules", _rule)
    return SubscriptionPlan(item.name(), settings, (Rule(),) if rules is None else rules)


def _rule(item: _Object) -> Rule:
    name = item.name()
    found = [made for key, make in _FILTERS.items() if (made := make(item, key)) is not None]
    if len(found) != 1:
        raise ConfigError(item.where, f"must have one of {', '.join(_FILTERS)}")
    return Rule(name, found[0])


def _sql(item: _Object, key: str) -> Filter | None:
    expression = item.take(key, str)
    if expression is None:
        return None
    with _place(item.place(key)):
        return SqlFilter(expression)


def _correlation(item: _Object, key: str) -> Filter | None:
    wanted = item.take(key, Mapping)
    if wanted is None:
        return None
    system: dict[str, str] = {}
    properties: dict[str, Any] = {}
    for name, value in wanted.items():
        where = f"{item.place(key)}.{name}"
        if not isinstance(value, str | bool | int | float) or (isinstance(value, float) and not math.isfinite(value)):
            raise ConfigError(where, "must be a string, a number, true or false")
        if name.lower().startswith("sys."):
            system[_system_field(name, where)] = str(value)
        else:
            properties[name] = value
    return CorrelationFilter(**system, properties=properties)


def _system_field(name: str, where: str) -> str:
    field = SYSTEM_PROPERTIES.get(name[len("sys.") :].lower())
    if field not in CORRELATION_FIELDS:
        raise ConfigError(where, "is not a system property that a correlation filter can ask for")
    return str(field)


def _constant(made: Filter) -> Callable[[_Object, str], Filter | None]:
    def make(item: _Object, key: str) -> Filter | None:
        chosen = item.take(key, bool)
        if chosen is False:
            raise ConfigError(item.place(key), "can only be true")
        return made if chosen else None

    return make


_FILTERS: Final[dict[str, Callable[[_Object, str], Filter | None]]] = {
    "correlation": _correlation,
    "sql": _sql,
    "true": _constant(TrueFilter()),
    "false": _constant(FalseFilter()),
}
