"""What a configuration file asks for, whatever its format: entities as plans, and how an engine gets them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from fusebus.servicebus.engine import (
    AuthorizationRule,
    Engine,
    EngineError,
    EntityExists,
    Namespace,
    QueueSettings,
    Rule,
    SubscriptionSettings,
    TopicSettings,
)
from fusebus.servicebus.engine.entities import SUBSCRIPTIONS

Receiving = TypeVar("Receiving", QueueSettings, SubscriptionSettings)


class ConfigError(Exception):
    """`where` is the place in the file, such as `topics[0].subscriptions[1].lock_seconds`."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}" if where else problem)
        self.where = where


@dataclass(frozen=True, slots=True)
class QueuePlan:
    where: str
    name: str
    settings: QueueSettings


@dataclass(frozen=True, slots=True)
class SubscriptionPlan:
    where: str
    name: str
    settings: SubscriptionSettings
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class TopicPlan:
    where: str
    name: str
    settings: TopicSettings
    subscriptions: tuple[SubscriptionPlan, ...]


@dataclass(frozen=True, slots=True)
class Topology:
    """`authorization_rules` are keys for the whole namespace."""

    queues: tuple[QueuePlan, ...] = ()
    topics: tuple[TopicPlan, ...] = ()
    authorization_rules: tuple[AuthorizationRule, ...] = ()


@contextmanager
def place(where: str) -> Iterator[None]:
    """A refusal of the engine becomes a ConfigError that says where."""
    try:
        yield
    except EngineError as error:
        raise ConfigError(where, str(error)) from error


def apply(topology: Topology, engine: Engine, keep_existing: bool = False) -> None:
    """Create what the topology names; raises ConfigError for what the engine refuses, such as a name twice.

    With `keep_existing`, what there was before stays as it is, settings and rules included.
    """
    making = _Making(engine.namespace, keep_existing)
    for queue in topology.queues:
        making.queue(queue)
    for topic in topology.topics:
        making.topic(topic)
    making.forward()


class _Making:
    """Forwards come last, when every target is there."""

    def __init__(self, namespace: Namespace, keep_existing: bool) -> None:
        self._namespace = namespace
        self._keep_existing = keep_existing
        self._named: set[str] = set()  # in lower case
        self._forwards: list[tuple[str, Callable[[], object]]] = []

    def queue(self, plan: QueuePlan) -> None:
        namespace = self._namespace
        settings = _without_forwards(plan.settings)
        if self._create(plan.where, plan.name, lambda: namespace.create_queue(plan.name, settings)):
            self._later(plan, lambda: namespace.update_queue(plan.name, plan.settings))

    def topic(self, plan: TopicPlan) -> None:
        self._create(plan.where, plan.name, lambda: self._namespace.create_topic(plan.name, plan.settings))
        for subscription in plan.subscriptions:
            self._subscription(plan.name, subscription)

    def _subscription(self, topic: str, plan: SubscriptionPlan) -> None:
        namespace, settings = self._namespace, _without_forwards(plan.settings)
        path, rules = topic + SUBSCRIPTIONS + plan.name, plan.rules
        if self._create(plan.where, path, lambda: namespace.create_subscription(topic, plan.name, settings, rules)):
            self._later(plan, lambda: namespace.update_subscription(topic, plan.name, plan.settings))

    def forward(self) -> None:
        for where, update in self._forwards:
            with place(where):
                update()

    def _later(self, plan: QueuePlan | SubscriptionPlan, update: Callable[[], object]) -> None:
        if plan.settings.forward_to is not None or plan.settings.forward_dead_lettered_to is not None:
            self._forwards.append((plan.where, update))

    def _create(self, where: str, path: str, make: Callable[[], object]) -> bool:
        """False if it was there before the topology came and may stay; ConfigError if the topology has it twice."""
        twice = path.lower() in self._named
        self._named.add(path.lower())
        with place(where):
            try:
                make()
            except EntityExists:
                if twice or not self._keep_existing:
                    raise
                return False
        return True


def _without_forwards(settings: Receiving) -> Receiving:
    return replace(settings, forward_to=None, forward_dead_lettered_to=None)
