"""The entities of one namespace: created, changed, listed and deleted by name."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, TypeVar

from fusebus.servicebus.engine.core import Core
from fusebus.servicebus.engine.entities import DEAD_LETTER_SUFFIX, SUBSCRIPTIONS, Entity, Queue, Subscription, Topic
from fusebus.servicebus.engine.errors import EntityDisabled, EntityExists, EntityNotFound, InvalidArgument
from fusebus.servicebus.engine.settings import (
    MAX_LOCK_SECONDS,
    QueueSettings,
    Rule,
    SubscriptionSettings,
    TopicSettings,
)

T = TypeVar("T")

MAX_ENTITY_NAME: Final = 260  # characters, the service's limit
MAX_SUBSCRIPTION_NAME: Final = 50
_ENTITY_NAME = re.compile(r"[A-Za-z0-9](?:[\w./~-]*[A-Za-z0-9_])?", re.ASCII)
_SUBSCRIPTION_NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?", re.ASCII)
_RULE_NAME = re.compile(r"\$?[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?", re.ASCII)
_DEFAULT_RULES: Final = (Rule(),)


class Namespace:
    """Names are case-insensitive and keep the spelling they were created with.

    `create_…` raises EntityExists, everything else EntityNotFound, and all InvalidArgument for a bad name or setting.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._by_path: dict[str, Entity] = {}
        self._queues: dict[str, Queue] = {}
        self._topics: dict[str, Topic] = {}

    # Look-up

    def find(self, path: str) -> Entity:
        """The entity behind a path, with or without slashes around it."""
        entity = self._by_path.get(path.strip("/").lower())
        if entity is None:
            raise EntityNotFound(f"The messaging entity '{path}' could not be found.")
        return entity

    def queue(self, name: str) -> Queue:
        return _existing(self._queues, name, "queue")

    def topic(self, name: str) -> Topic:
        return _existing(self._topics, name, "topic")

    def subscription(self, topic: str, name: str) -> Subscription:
        return _existing(self.topic(topic).subscriptions, name, "subscription", f"{topic}/")

    def rule(self, topic: str, subscription: str, name: str) -> Rule:
        return _existing(self.subscription(topic, subscription).rules, name, "rule", f"{topic}/{subscription}/")

    def queues(self) -> list[Queue]:
        """By name."""
        return [queue for _, queue in sorted(self._queues.items())]

    def topics(self) -> list[Topic]:
        """By name."""
        return [topic for _, topic in sorted(self._topics.items())]

    def subscriptions(self, topic: str) -> list[Subscription]:
        """By name."""
        return [subscription for _, subscription in sorted(self.topic(topic).subscriptions.items())]

    def rules(self, topic: str, subscription: str) -> list[Rule]:
        """By name."""
        return [rule for _, rule in sorted(self.subscription(topic, subscription).rules.items())]

    # Creation

    def create_queue(self, name: str, settings: QueueSettings | None = None) -> Queue:
        settings = settings or QueueSettings()
        self._check_new(name)
        _check(settings)
        queue = self._queues[name.lower()] = Queue(self._core, name, settings)
        self._register(queue, queue.dead_letters)
        return queue

    def create_topic(self, name: str, settings: TopicSettings | None = None) -> Topic:
        settings = settings or TopicSettings()
        self._check_new(name)
        _check(settings)
        topic = self._topics[name.lower()] = Topic(self._core, name, settings)
        self._register(topic)
        return topic

    def create_subscription(
        self,
        topic: str,
        name: str,
        settings: SubscriptionSettings | None = None,
        rules: Sequence[Rule] = _DEFAULT_RULES,
    ) -> Subscription:
        """Without `rules` it takes every message."""
        parent, settings = self.topic(topic), settings or SubscriptionSettings()
        _check_name(name, _SUBSCRIPTION_NAME, MAX_SUBSCRIPTION_NAME)
        _check(settings)
        for rule in rules:
            _check_name(rule.name, _RULE_NAME, MAX_SUBSCRIPTION_NAME)
        if name.lower() in parent.subscriptions:
            raise EntityExists(f"The subscription '{name}' of '{topic}' exists already.")
        now = self._core.now
        subscription = Subscription(self._core, parent, name, settings, [replace(r, created_at=now) for r in rules])
        parent.subscriptions[name.lower()] = subscription
        self._register(subscription, subscription.dead_letters)
        return subscription

    def create_rule(self, topic: str, subscription: str, rule: Rule) -> Rule:
        rules = self.subscription(topic, subscription).rules
        _check_name(rule.name, _RULE_NAME, MAX_SUBSCRIPTION_NAME)
        if rule.name.lower() in rules:
            raise EntityExists(f"The rule '{rule.name}' of '{topic}/{subscription}' exists already.")
        return rules.setdefault(rule.name.lower(), replace(rule, created_at=self._core.now))

    # Change

    def update_queue(self, name: str, settings: QueueSettings) -> Queue:
        queue = self.queue(name)
        _check_update(queue.settings, settings)
        queue.apply(settings)
        self._changed(queue)
        return queue

    def update_topic(self, name: str, settings: TopicSettings) -> Topic:
        topic = self.topic(name)
        _check_update(topic.settings, settings)
        topic.apply(settings)
        self._changed(topic)
        return topic

    def update_subscription(self, topic: str, name: str, settings: SubscriptionSettings) -> Subscription:
        subscription = self.subscription(topic, name)
        _check(settings)
        subscription.apply(settings)
        self._changed(subscription)
        return subscription

    def update_rule(self, topic: str, subscription: str, rule: Rule) -> Rule:
        old = self.rule(topic, subscription, rule.name)
        new = replace(rule, name=old.name, created_at=old.created_at)
        self.subscription(topic, subscription).rules[old.name.lower()] = new
        return new

    # Deletion, with all messages; receivers are told

    def delete_queue(self, name: str) -> None:
        queue = self.queue(name)
        del self._queues[name.lower()]
        self._forget(queue, queue.dead_letters)

    def delete_topic(self, name: str) -> None:
        topic = self.topic(name)
        for subscription in list(topic.subscriptions.values()):
            self.delete_subscription(name, subscription.name)
        del self._topics[name.lower()]
        self._forget(topic)

    def delete_subscription(self, topic: str, name: str) -> None:
        subscription = self.subscription(topic, name)
        del self.topic(topic).subscriptions[name.lower()]
        self._forget(subscription, subscription.dead_letters)

    def delete_rule(self, topic: str, subscription: str, name: str) -> None:
        self.rule(topic, subscription, name)
        del self.subscription(topic, subscription).rules[name.lower()]

    # Inside

    def _check_new(self, name: str) -> None:
        _check_name(name, _ENTITY_NAME, MAX_ENTITY_NAME)
        if SUBSCRIPTIONS.lower() in f"/{name.lower()}/" or "//" in name:
            raise InvalidArgument(f"'{name}' is not a name for a queue or topic.")
        if name.lower() in self._by_path:
            raise EntityExists(f"The messaging entity '{name}' exists already.")

    def _register(self, *entities: Entity) -> None:
        for entity in entities:
            self._by_path[entity.path.lower()] = entity

    def _forget(self, *entities: Entity) -> None:
        for entity in entities:
            del self._by_path[entity.path.lower()]
            entity.mailbox.purge()
            entity.mailbox.close(EntityNotFound(f"The messaging entity '{entity.path}' was deleted."))

    def _changed(self, entity: Entity) -> None:
        entity.updated_at = self._core.now
        if entity.mailbox.consumers and not entity.can_receive:
            entity.mailbox.close(EntityDisabled(f"The messaging entity '{entity.path}' was disabled."))


def dead_letter_path(path: str) -> str:
    """Of a queue or subscription path."""
    return path + DEAD_LETTER_SUFFIX


def subscription_path(topic: str, name: str) -> str:
    return topic + SUBSCRIPTIONS + name


def _existing(found: dict[str, T], name: str, what: str, parent: str = "") -> T:
    if (entity := found.get(name.lower())) is None:
        raise EntityNotFound(f"The {what} '{parent}{name}' could not be found.")
    return entity


def _check_name(name: str, pattern: re.Pattern[str], longest: int) -> None:
    if len(name) > longest or not pattern.fullmatch(name):
        raise InvalidArgument(
            f"'{name}' is not a name: up to {longest} letters, digits, '.', '-' and '_',"
            " the first a letter or digit, the last too or '_'."
        )


def _check(settings: QueueSettings | TopicSettings | SubscriptionSettings) -> None:
    if settings.ttl_seconds <= 0:
        raise InvalidArgument(f"The time to live must be above 0 s, not {settings.ttl_seconds:g}.")
    if not isinstance(settings, TopicSettings):
        if not 0 < settings.lock_seconds <= MAX_LOCK_SECONDS:
            raise InvalidArgument(
                f"The lock duration must be above 0 and at most {MAX_LOCK_SECONDS:g} s, not {settings.lock_seconds:g}."
            )
        if settings.max_delivery_count < 1:
            raise InvalidArgument(f"The delivery limit must be at least 1, not {settings.max_delivery_count}.")
    if not isinstance(settings, SubscriptionSettings) and settings.duplicate_detection_seconds < 0:
        raise InvalidArgument(f"The duplicate window must not be negative: {settings.duplicate_detection_seconds:g} s.")


def _check_update(old: QueueSettings | TopicSettings, new: QueueSettings | TopicSettings) -> None:
    _check(new)
    if bool(old.duplicate_detection_seconds) != bool(new.duplicate_detection_seconds):
        raise InvalidArgument("Duplicate detection can be chosen only when the entity is created.")
