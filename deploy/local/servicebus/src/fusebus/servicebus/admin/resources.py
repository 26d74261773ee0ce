"""The API's three kinds of collection: queues and topics, subscriptions of a topic, rules of a subscription."""

from dataclasses import dataclass
from typing import Protocol, TypeVar
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from fusebus.servicebus.admin.atom import Entry, tag
from fusebus.servicebus.admin.descriptions import Site, describe_queue, describe_subscription, describe_topic
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
from fusebus.servicebus.tier import Tier

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries in the order of their names; `more` follow."""

    entries: list[Entry]
    more: bool


class Collection(Protocol):
    """Named things that can be read, written and deleted; all raise the engine's errors."""

    @property
    def title(self) -> str: ...

    def page(self, skip: int, top: int) -> Page: ...

    def get(self, name: str) -> Entry: ...

    def create(self, name: str, found: Element) -> Entry: ...

    def update(self, name: str, found: Element) -> Entry: ...

    def delete(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Entities:
    """Queues and topics share one space of names; a listing is of one kind."""

    namespace: Namespace
    site: Site
    title: str = ""

    def page(self, skip: int, top: int) -> Page:
        found = self.namespace.queues() if self.title == "Queues" else self.namespace.topics()
        return Page([self._entry(entity) for entity in found[skip : skip + top]], skip + top < len(found))

    def get(self, name: str) -> Entry:
        return self._entry(self._find(name))

    def create(self, name: str, found: Element) -> Entry:
        if _is_queue(found):
            return self._entry(self.namespace.create_queue(name, self.site.read(found, QueueSettings())))
        if self.site.tier is Tier.BASIC:
            raise InvalidArgument("TopicDescription: the Basic tier has no topics.")
        return self._entry(self.namespace.create_topic(name, self.site.read(found, TopicSettings())))

    def update(self, name: str, found: Element) -> Entry:
        if _is_queue(found):
            queue_settings = self.site.read(found, self.namespace.queue(name).settings)
            return self._entry(self.namespace.update_queue(name, queue_settings))
        topic_settings = self.site.read(found, self.namespace.topic(name).settings)
        return self._entry(self.namespace.update_topic(name, topic_settings))

    def delete(self, name: str) -> None:
        if isinstance(self._find(name), Queue):
            self.namespace.delete_queue(name)
        else:
            self.namespace.delete_topic(name)

    def _find(self, name: str) -> Queue | Topic:
        found = self.namespace.find(name)
        if not isinstance(found, Queue | Topic):
            raise EntityNotFound(f"'{name}' is not a queue or topic.")
        return found

    def _entry(self, found: Queue | Topic) -> Entry:
        content = describe_queue(found, self.site) if isinstance(found, Queue) else describe_topic(found, self.site)
        return Entry(found.path, found.path, found.created_at, found.updated_at, content)


@dataclass(frozen=True, slots=True)
class Subscriptions:
    namespace: Namespace
    site: Site
    topic: str
    title: str = "Subscriptions"

    def page(self, skip: int, top: int) -> Page:
        found = self.namespace.subscriptions(self.topic)
        return Page([self._entry(entity) for entity in found[skip : skip + top]], skip + top < len(found))

    def get(self, name: str) -> Entry:
        return self._entry(self.namespace.subscription(self.topic, name))

    def create(self, name: str, found: Element) -> Entry:
        _expect(found, "SubscriptionDescription")
        settings = self.site.read(found, SubscriptionSettings())
        given = found.find(tag("DefaultRuleDescription"))
        rule = Rule() if given is None else read_rule(given, given.findtext(tag("Name")) or DEFAULT_RULE_NAME)
        return self._entry(self.namespace.create_subscription(self.topic, name, settings, (rule,)))

    def update(self, name: str, found: Element) -> Entry:
        _expect(found, "SubscriptionDescription")
        settings = self.site.read(found, self.namespace.subscription(self.topic, name).settings)
        return self._entry(self.namespace.update_subscription(self.topic, name, settings))

    def delete(self, name: str) -> None:
        self.namespace.delete_subscription(self.topic, name)

    def _entry(self, found: Subscription) -> Entry:
        content = describe_subscription(found, self.site)
        return Entry(found.path, found.name, found.created_at, found.updated_at, content)


@dataclass(frozen=True, slots=True)
class Rules:
    namespace: Namespace
    topic: str
    subscription: str
    title: str = "Rules"

    def page(self, skip: int, top: int) -> Page:
        found = self.namespace.rules(self.topic, self.subscription)
        return Page([self._entry(rule) for rule in found[skip : skip + top]], skip + top < len(found))

    def get(self, name: str) -> Entry:
        return self._entry(self.namespace.rule(self.topic, self.subscription, name))

    def create(self, name: str, found: Element) -> Entry:
        _expect(found, "RuleDescription")
        return self._entry(self.namespace.create_rule(self.topic, self.subscription, read_rule(found, name)))

    def update(self, name: str, found: Element) -> Entry:
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
    """What a request's path means; the sender must be allowed to manage `entity`, or just this `address`."""

    address: str
    """The path itself, decoded: the JavaScript SDK makes a token for every single one."""
    entity: str
    """The queue or topic; empty for the namespace."""
    collection: Collection | None
    name: str | None
    """None: the collection itself. Without a collection: the namespace."""


def find_target(raw_path: str, namespace: Namespace, site: Site) -> Target:
    """Raises EntityNotFound for a path that means nothing. Names may have slashes, encoded or not."""
    parts = [unquote(part) for part in raw_path.partition("?")[0].strip("/").split("/")]
    lower = [part.lower() for part in parts]
    address = "/".join(parts)
    if lower == ["$namespaceinfo"]:
        return Target(address, "", None, None)
    if lower[0] == "$resources" and lower[1:] in (["queues"], ["topics"]):
        return Target(address, "", Entities(namespace, site, lower[1].capitalize()), None)
    if "subscriptions" not in lower[1:]:
        return Target(address, address, Entities(namespace, site), address)
    topic = "/".join(parts[: lower.index("subscriptions", 1)])
    collection, name = _below_topic(topic, parts[lower.index("subscriptions", 1) + 1 :], namespace, site)
    return Target(address, topic, collection, name)


def _below_topic(topic: str, rest: list[str], namespace: Namespace, site: Site) -> tuple[Collection, str | None]:
    if len(rest) <= 1:
        return Subscriptions(namespace, site, topic), rest[0] if rest else None
    if rest[1].lower() == "rules" and len(rest) <= 3:
        return Rules(namespace, topic, rest[0]), rest[2] if rest[2:] else None
    raise EntityNotFound(f"'{topic}/subscriptions/{'/'.join(rest)}' is not an address of this service.")


def _is_queue(found: Element) -> bool:
    if found.tag not in (tag("QueueDescription"), tag("TopicDescription")):
        raise InvalidArgument("The request body describes neither a queue nor a topic.")
    return found.tag == tag("QueueDescription")


def _expect(found: Element, name: str) -> None:
    if found.tag != tag(name):
        raise InvalidArgument(f"The request body is not a {name}.")
