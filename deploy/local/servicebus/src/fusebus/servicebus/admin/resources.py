"""The API's three kinds of collection: queues and topics, subscriptions of a topic, rules of a subscription."""

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote
from xml.etree import ElementTree

from fusebus.servicebus.admin.atom import Entry, tag
from fusebus.servicebus.admin.descriptions import describe_queue, describe_subscription, describe_topic, read_settings
from fusebus.servicebus.admin.rules import describe_rule, read_rule
from fusebus.servicebus.engine import (
    EntityNotFound,
    InvalidArgument,
    Namespace,
    Queue,
    QueueSettings,
    Rule,
    Subscription,
    SubscriptionSettings,
    Topic,
    TopicSettings,
)
from fusebus.servicebus.engine.settings import DEFAULT_RULE_NAME


class Collection(Protocol):
    """Named things that can be read, written and deleted; all raise the engine's errors."""

    @property
    def title(self) -> str: ...

    def entries(self) -> list[Entry]:
        """All, by name."""

    def get(self, name: str) -> Entry: ...

    def create(self, name: str, found: ElementTree.Element) -> Entry: ...

    def update(self, name: str, found: ElementTree.Element) -> Entry: ...

    def delete(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Entities:
    """Queues and topics share one space of names; a listing is of one kind."""

    namespace: Namespace
    title: str = ""

    def entries(self) -> list[Entry]:
        if self.title == "Queues":
            return [_entity_entry(queue) for queue in self.namespace.queues()]
        return [_entity_entry(topic) for topic in self.namespace.topics()]

    def get(self, name: str) -> Entry:
        found = self.namespace.find(name)
        if not isinstance(found, Queue | Topic):
            raise EntityNotFound(f"'{name}' is not a queue or topic.")
        return _entity_entry(found)

    def create(self, name: str, found: ElementTree.Element) -> Entry:
        if _is_queue(found):
            return _entity_entry(self.namespace.create_queue(name, read_settings(found, QueueSettings())))
        return _entity_entry(self.namespace.create_topic(name, read_settings(found, TopicSettings())))

    def update(self, name: str, found: ElementTree.Element) -> Entry:
        if _is_queue(found):
            queue_settings = read_settings(found, self.namespace.queue(name).settings)
            return _entity_entry(self.namespace.update_queue(name, queue_settings))
        topic_settings = read_settings(found, self.namespace.topic(name).settings)
        return _entity_entry(self.namespace.update_topic(name, topic_settings))

    def delete(self, name: str) -> None:
        if isinstance(self.namespace.find(name), Queue):
            self.namespace.delete_queue(name)
        else:
            self.namespace.delete_topic(name)


@dataclass(frozen=True, slots=True)
class Subscriptions:
    namespace: Namespace
    topic: str
    title: str = "Subscriptions"

    def entries(self) -> list[Entry]:
        return [_subscription_entry(found) for found in self.namespace.subscriptions(self.topic)]

    def get(self, name: str) -> Entry:
        return _subscription_entry(self.namespace.subscription(self.topic, name))

    def create(self, name: str, found: ElementTree.Element) -> Entry:
        _expect(found, "SubscriptionDescription")
        settings = read_settings(found, SubscriptionSettings())
        given = found.find(tag("DefaultRuleDescription"))
        rule = Rule() if given is None else read_rule(given, given.findtext(tag("Name")) or DEFAULT_RULE_NAME)
        return _subscription_entry(self.namespace.create_subscription(self.topic, name, settings, (rule,)))

    def update(self, name: str, found: ElementTree.Element) -> Entry:
        _expect(found, "SubscriptionDescription")
        settings = read_settings(found, self.namespace.subscription(self.topic, name).settings)
        return _subscription_entry(self.namespace.update_subscription(self.topic, name, settings))

    def delete(self, name: str) -> None:
        self.namespace.delete_subscription(self.topic, name)


@dataclass(frozen=True, slots=True)
class Rules:
    namespace: Namespace
    topic: str
    subscription: str
    title: str = "Rules"

    def entries(self) -> list[Entry]:
        return [self._entry(rule) for rule in self.namespace.rules(self.topic, self.subscription)]

    def get(self, name: str) -> Entry:
        return self._entry(self.namespace.rule(self.topic, self.subscription, name))

    def create(self, name: str, found: ElementTree.Element) -> Entry:
        _expect(found, "RuleDescription")
        return self._entry(self.namespace.create_rule(self.topic, self.subscription, read_rule(found, name)))

    def update(self, name: str, found: ElementTree.Element) -> Entry:
        _expect(found, "RuleDescription")
        return self._entry(self.namespace.update_rule(self.topic, self.subscription, read_rule(found, name)))

    def delete(self, name: str) -> None:
        self.namespace.delete_rule(self.topic, self.subscription, name)

    def _entry(self, rule: Rule) -> Entry:
        subscription = self.namespace.subscription(self.topic, self.subscription)
        path = f"{subscription.path}/Rules/{rule.name}"
        return Entry(path, rule.name, rule.created_at, rule.created_at, describe_rule(rule))


@dataclass(frozen=True, slots=True)
class Target:
    """What a request's path means; `entity` is the path that the sender must be allowed to manage."""

    entity: str
    collection: Collection | None
    name: str | None
    """None: the collection itself. Without a collection: the namespace."""


def find_target(raw_path: str, namespace: Namespace) -> Target:
    """Raises EntityNotFound for a path that means nothing. Names may have slashes, encoded or not."""
    parts = [unquote(part) for part in raw_path.partition("?")[0].strip("/").split("/")]
    lower = [part.lower() for part in parts]
    if lower == ["$namespaceinfo"]:
        return Target("", None, None)
    if lower[0] == "$resources" and lower[1:] in (["queues"], ["topics"]):
        return Target("", Entities(namespace, lower[1].capitalize()), None)
    if "subscriptions" not in lower[1:]:
        return Target("/".join(parts), Entities(namespace), "/".join(parts))
    at = lower.index("subscriptions", 1)
    return _below_topic("/".join(parts[:at]), parts[at + 1 :], namespace)


def _below_topic(topic: str, rest: list[str], namespace: Namespace) -> Target:
    if len(rest) <= 1:
        return Target(topic, Subscriptions(namespace, topic), rest[0] if rest else None)
    if rest[1].lower() == "rules" and len(rest) <= 3:
        return Target(topic, Rules(namespace, topic, rest[0]), rest[2] if rest[2:] else None)
    raise EntityNotFound(f"'{topic}/subscriptions/{'/'.join(rest)}' is not an address of this service.")


def _entity_entry(found: Queue | Topic) -> Entry:
    content = describe_queue(found) if isinstance(found, Queue) else describe_topic(found)
    return Entry(found.path, found.path, found.created_at, found.updated_at, content)


def _subscription_entry(found: Subscription) -> Entry:
    return Entry(found.path, found.name, found.created_at, found.updated_at, describe_subscription(found))


def _is_queue(found: ElementTree.Element) -> bool:
    if found.tag not in (tag("QueueDescription"), tag("TopicDescription")):
        raise InvalidArgument("The request body describes neither a queue nor a topic.")
    return found.tag == tag("QueueDescription")


def _expect(found: ElementTree.Element, name: str) -> None:
    if found.tag != tag(name):
        raise InvalidArgument(f"The request body is not a {name}.")
