"""The entities of one namespace: created, changed, listed and deleted by name."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from fusebus.servicebus.engine.checks import (
    check_change,
    check_entity_name,
    check_rule_name,
    check_settings,
    check_subscription_name,
)
from fusebus.servicebus.engine.core import Core
from fusebus.servicebus.engine.entities import SUBSCRIPTIONS, Entity
from fusebus.servicebus.engine.errors import EntityDisabled, EntityExists, EntityNotFound, NotAllowed
from fusebus.servicebus.engine.forwarding import check_target
from fusebus.servicebus.engine.idle import IdleWatch
from fusebus.servicebus.engine.journal import IDS_PER_ENTITY, EntityImage
from fusebus.servicebus.engine.mailbox import Mailbox
from fusebus.servicebus.engine.queues import Queue
from fusebus.servicebus.engine.settings import QueueSettings, Rule, SubscriptionSettings, TopicSettings
from fusebus.servicebus.engine.subscription import Subscription
from fusebus.servicebus.engine.topic import Topic

T = TypeVar("T")
Owner = Queue | Topic | Subscription
AnyOwner = TypeVar("AnyOwner", Queue, Topic, Subscription, Queue | Topic | Subscription)

_DEFAULT_RULES: Final = (Rule(),)


class Namespace:
    """Names are case-insensitive and keep the spelling they were created with.

    `create_…` raises EntityExists, everything else EntityNotFound, and all InvalidArgument for a bad name or setting.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._by_path: dict[str, Entity] = {}  # in lower case
        self._as_created: dict[str, Entity] = {}
        self._mailboxes: dict[int, Mailbox] = {}
        self._queues: dict[str, Queue] = {}
        self._topics: dict[str, Topic] = {}
        self._watches: dict[int, IdleWatch] = {}  # by entity id
        self._last_id = 0
        core.find = self.find

    # Look-up

    def find(self, path: str) -> Entity:
        """The entity behind a path, with or without slashes around it."""
        entity = self._as_created.get(path) or self._by_path.get(path.strip("/").lower())
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

    def mailbox(self, number: int) -> Mailbox | None:
        """By the journal's number."""
        return self._mailboxes.get(number)

    def last_numbers(self) -> dict[int, int]:
        """The last sequence number of each mailbox, by the journal's number."""
        return {number: mailbox.last_number for number, mailbox in self._mailboxes.items()}

    @property
    def is_empty(self) -> bool:
        return not self._by_path

    # Creation

    def create_queue(self, name: str, settings: QueueSettings | None = None) -> Queue:
        settings = settings or QueueSettings()
        self._check_new(name)
        self._check_settings(name, settings)
        return self._saved(self.add_queue(self._new_id(), name, settings))

    def create_topic(self, name: str, settings: TopicSettings | None = None) -> Topic:
        settings = settings or TopicSettings()
        self._check_new(name)
        check_settings(settings)
        return self._saved(self.add_topic(self._new_id(), name, settings))

    def create_subscription(
        self,
        topic: str,
        name: str,
        settings: SubscriptionSettings | None = None,
        rules: Sequence[Rule] = _DEFAULT_RULES,
    ) -> Subscription:
        """Without `rules` it takes every message."""
        parent, settings = self.topic(topic), settings or SubscriptionSettings()
        check_subscription_name(name)
        self._check_settings(subscription_path(parent.path, name), settings, parent.path)
        for rule in rules:
            check_rule_name(rule.name)
        if name.lower() in parent.subscriptions:
            raise EntityExists(f"The subscription '{name}' of '{topic}' exists already.")
        dated = [replace(rule, created_at=self._core.now) for rule in rules]
        subscription = self._saved(self.add_subscription(self._new_id(), parent, name, settings, dated))
        for rule in dated:
            self._rule_saved(subscription, rule)
        return subscription

    def create_rule(self, topic: str, subscription: str, rule: Rule) -> Rule:
        owner = self.subscription(topic, subscription)
        check_rule_name(rule.name)
        if rule.name.lower() in owner.rules:
            raise EntityExists(f"The rule '{rule.name}' of '{topic}/{subscription}' exists already.")
        return self._rule_saved(owner, replace(rule, created_at=self._core.now))

    # Creation without questions: of what was checked, or is restored

    def add_queue(self, number: int, name: str, settings: QueueSettings) -> Queue:
        queue = self._queues[name.lower()] = Queue(self._core, number, name, settings)
        self._register(queue, IdleWatch(self._core, queue, lambda: self.delete_queue(name)))
        return queue

    def add_topic(self, number: int, name: str, settings: TopicSettings) -> Topic:
        topic = self._topics[name.lower()] = Topic(self._core, number, name, settings)
        self._register(topic, IdleWatch(self._core, topic, lambda: self.delete_topic(name)))
        return topic

    def add_subscription(
        self, number: int, topic: Topic, name: str, settings: SubscriptionSettings, rules: Iterable[Rule]
    ) -> Subscription:
        subscription = Subscription(self._core, number, topic, name, settings, rules)
        topic.subscriptions[name.lower()] = subscription
        watch = IdleWatch(self._core, subscription, lambda: self.delete_subscription(topic.path, name))
        self._register(subscription, watch)
        return subscription

    # Change

    def update_queue(self, name: str, settings: QueueSettings) -> Queue:
        queue = self.queue(name)
        check_change(queue.settings, settings)
        self._check_settings(queue.path, settings)
        queue.apply(settings)
        self._changed(queue)
        queue.forward_backlog()
        self._core.pump()
        return queue

    def update_topic(self, name: str, settings: TopicSettings) -> Topic:
        topic = self.topic(name)
        check_change(topic.settings, settings)
        topic.apply(settings)
        self._changed(topic)
        return topic

    def update_subscription(self, topic: str, name: str, settings: SubscriptionSettings) -> Subscription:
        subscription = self.subscription(topic, name)
        check_change(subscription.settings, settings)
        self._check_settings(subscription.path, settings, subscription.topic.path)
        subscription.apply(settings)
        self._changed(subscription)
        subscription.forward_backlog()
        self._core.pump()
        return subscription

    def update_rule(self, topic: str, subscription: str, rule: Rule) -> Rule:
        old = self.rule(topic, subscription, rule.name)
        new = replace(rule, name=old.name, created_at=old.created_at)
        return self._rule_saved(self.subscription(topic, subscription), new)

    # Deletion, with all messages; receivers are told

    def delete_queue(self, name: str) -> None:
        queue = self.queue(name)
        del self._queues[name.lower()]
        self._forget(queue)

    def delete_topic(self, name: str) -> None:
        topic = self.topic(name)
        for subscription in list(topic.subscriptions.values()):
            self.delete_subscription(name, subscription.name)
        del self._topics[name.lower()]
        self._forget(topic)

    def delete_subscription(self, topic: str, name: str) -> None:
        subscription = self.subscription(topic, name)
        del self.topic(topic).subscriptions[name.lower()]
        self._forget(subscription)

    def delete_rule(self, topic: str, subscription: str, name: str) -> None:
        rule, owner = self.rule(topic, subscription, name), self.subscription(topic, subscription)
        del owner.rules[name.lower()]
        owner.accessed_at = self._core.now
        if self._core.journal is not None:
            self._core.journal.rule_deleted(owner.id, rule.name)

    # Inside

    def _new_id(self) -> int:
        return self._last_id + IDS_PER_ENTITY

    def _check_new(self, name: str) -> None:
        check_entity_name(name)
        if name.lower() in self._by_path:
            raise EntityExists(f"The messaging entity '{name}' exists already.")

    def _check_settings(
        self, path: str, settings: QueueSettings | SubscriptionSettings, source: str | None = None
    ) -> None:
        """`source`: where the messages come from that are forwarded, if it is not the entity itself."""
        check_settings(settings)
        check_target(source or path, settings.forward_to, self.find, "ForwardTo", through_chain=True)
        dead_target, element = settings.forward_dead_lettered_to, "ForwardDeadLetteredMessagesTo"
        check_target(source or path, dead_target, self.find, element, through_chain=False)

    def _register(self, owner: Owner, watch: IdleWatch) -> None:
        self._last_id = max(self._last_id, owner.id)
        for entity in owner.parts():
            self._by_path[entity.path.lower()] = self._as_created[entity.path] = entity
            self._mailboxes[entity.id] = entity.mailbox
        self._watches[owner.id] = watch
        watch.start()

    def _forget(self, owner: Owner) -> None:
        self._watches.pop(owner.id).stop()
        for entity in owner.parts():
            del self._by_path[entity.path.lower()], self._as_created[entity.path], self._mailboxes[entity.id]
            entity.mailbox.purge()
        if self._core.journal is not None:
            self._core.journal.entity_deleted(owner.id)
        for entity in owner.parts():
            entity.mailbox.close(EntityNotFound(f"The messaging entity '{entity.path}' was deleted."))

    def _changed(self, owner: Owner) -> None:
        owner.updated_at = self._core.now
        self._saved(owner)
        self._watches[owner.id].start()
        for entity in owner.parts():
            if entity.mailbox.is_used and not entity.can_receive:
                entity.mailbox.close(EntityDisabled(f"The messaging entity '{entity.path}' was disabled."))
            elif entity.mailbox.is_used and entity.mailbox.forward is not None:
                entity.mailbox.close(NotAllowed(f"The messaging entity '{entity.path}' forwards its messages now."))

    def _saved(self, owner: AnyOwner) -> AnyOwner:
        if self._core.journal is not None:
            image = EntityImage(owner.id, owner.path, owner.settings, owner.created_at, owner.updated_at)
            self._core.journal.entity_saved(image)
        return owner

    def _rule_saved(self, owner: Subscription, rule: Rule) -> Rule:
        owner.rules[rule.name.lower()] = rule
        owner.accessed_at = self._core.now
        if self._core.journal is not None:
            self._core.journal.rule_saved(owner.id, rule)
        return rule


def subscription_path(topic: str, name: str) -> str:
    return topic + SUBSCRIPTIONS + name


def _existing(found: dict[str, T], name: str, what: str, parent: str = "") -> T:
    if (entity := found.get(name.lower())) is None:
        # The JavaScript SDK knows a missing entity by this wording.
        raise EntityNotFound(f"The messaging entity '{parent}{name}' could not be found: there is no such {what}.")
    return entity
