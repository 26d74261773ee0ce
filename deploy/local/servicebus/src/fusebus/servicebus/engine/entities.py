"""Queues, topics, subscriptions and their dead-letter queues: what each may do and what it counts."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from fusebus.servicebus.engine.core import Core
from fusebus.servicebus.engine.duplicates import DuplicateWindow
from fusebus.servicebus.engine.errors import NotAllowed
from fusebus.servicebus.engine.mailbox import Mailbox, Record
from fusebus.servicebus.engine.messages import Message, MessageState
from fusebus.servicebus.engine.settings import QueueSettings, Rule, SubscriptionSettings, TopicSettings

DEAD_LETTER_SUFFIX = "/$DeadLetterQueue"
SUBSCRIPTIONS = "/Subscriptions/"


class EntityKind(Enum):
    QUEUE = "queue"
    TOPIC = "topic"
    SUBSCRIPTION = "subscription"
    DEAD_LETTER = "dead-letter"


@dataclass(frozen=True, slots=True)
class RuntimeCounts:
    """Messages by state; `active` includes locked ones, of which `deferred` has none."""

    active: int
    deferred: int
    scheduled: int
    dead_letter: int
    size_bytes: int

    @property
    def total(self) -> int:
        return self.active + self.deferred + self.scheduled + self.dead_letter


class Entity:
    """One addressable thing. `path` is as created; times are seconds since the epoch, UTC."""

    kind: EntityKind
    mailbox: Mailbox
    can_send = False
    can_receive = False
    """Whether kind and status allow it."""

    def __init__(self, core: Core, path: str) -> None:
        self.path = path
        self.created_at = self.updated_at = self.accessed_at = core.now
        self._core = core

    def counts(self) -> RuntimeCounts:
        box = self.mailbox
        buried = box.dead_letters
        return RuntimeCounts(
            active=box.count_by_state[MessageState.ACTIVE],
            deferred=box.count_by_state[MessageState.DEFERRED],
            scheduled=box.count_by_state[MessageState.SCHEDULED],
            dead_letter=sum(buried.count_by_state) if buried else 0,
            size_bytes=box.size_bytes + (buried.size_bytes if buried else 0),
        )

    def accept(self, message: Message) -> int:
        """Take one message from a sender; returns its sequence number."""
        raise NotAllowed(f"{self.path}: messages cannot be sent to a {self.kind.value}")


class DeadLetterQueue(Entity):
    kind = EntityKind.DEAD_LETTER
    can_receive = True

    def __init__(self, core: Core, owner: str, settings: QueueSettings | SubscriptionSettings) -> None:
        super().__init__(core, owner + DEAD_LETTER_SUFFIX)
        self.mailbox = Mailbox(core, self.path, settings)


class _Destination(Entity):
    """What queues and topics share: duplicates and schedules."""

    settings: QueueSettings | TopicSettings
    _duplicates: DuplicateWindow | None = None

    @property
    def can_send(self) -> bool:  # type: ignore[override]
        return self.settings.status.can_send

    def accept(self, message: Message) -> int:
        now = self._core.now
        watched = self._duplicates if message.message_id is not None else None
        if watched and (earlier := watched.number_of(message.message_id or "", now)):
            return earlier
        due = message.scheduled_enqueue_time
        number = self.mailbox.schedule(message, due) if due is not None and due > now else self.enqueue(message)
        if watched:
            watched.remember(message.message_id or "", number, now)
        return number

    def enqueue(self, message: Message) -> int:
        raise NotImplementedError

    def _watch_duplicates(self, seconds: float) -> None:
        if self._duplicates is None:
            self._duplicates = DuplicateWindow(seconds) if seconds else None
        else:
            self._duplicates.seconds = seconds


class Queue(_Destination):
    kind = EntityKind.QUEUE
    settings: QueueSettings

    def __init__(self, core: Core, name: str, settings: QueueSettings) -> None:
        super().__init__(core, name)
        self.dead_letters = DeadLetterQueue(core, name, settings)
        self.mailbox = Mailbox(core, name, settings, self.dead_letters.mailbox, self.enqueue)
        self.apply(settings)

    @property
    def can_receive(self) -> bool:  # type: ignore[override]
        return self.settings.status.can_receive

    def apply(self, settings: QueueSettings) -> None:
        self.settings = self.mailbox.settings = self.dead_letters.mailbox.settings = settings
        self._watch_duplicates(settings.duplicate_detection_seconds)

    def enqueue(self, message: Message) -> int:
        return self.mailbox.append(_record(message, self._core.now, self.settings.ttl_seconds))


class Topic(_Destination):
    """Its mailbox holds only what is scheduled; everything else goes straight to the subscriptions."""

    kind = EntityKind.TOPIC
    settings: TopicSettings

    def __init__(self, core: Core, name: str, settings: TopicSettings) -> None:
        super().__init__(core, name)
        self.subscriptions: dict[str, Subscription] = {}  # by name in lower case
        self.mailbox = Mailbox(core, name, QueueSettings(), None, self.enqueue)
        self.apply(settings)

    def apply(self, settings: TopicSettings) -> None:
        self.settings = settings
        self._watch_duplicates(settings.duplicate_detection_seconds)

    def enqueue(self, message: Message) -> int:
        number = self.mailbox.take_number()
        for subscription in self.subscriptions.values():
            if subscription.takes(message):
                subscription.enqueue(message, number, self.settings.ttl_seconds)
        return number

    def counts(self) -> RuntimeCounts:
        """Scheduled messages, and the size of everything that the subscriptions hold."""
        own = super().counts()
        held = sum(subscription.counts().size_bytes for subscription in self.subscriptions.values())
        return RuntimeCounts(0, 0, own.scheduled, 0, own.size_bytes + held)


class Subscription(Entity):
    kind = EntityKind.SUBSCRIPTION

    def __init__(
        self, core: Core, topic: Topic, name: str, settings: SubscriptionSettings, rules: Iterable[Rule]
    ) -> None:
        super().__init__(core, topic.path + SUBSCRIPTIONS + name)
        self.topic = topic
        self.name = name
        self.rules = {rule.name.lower(): rule for rule in rules}
        self.dead_letters = DeadLetterQueue(core, self.path, settings)
        self.mailbox = Mailbox(core, self.path, settings, self.dead_letters.mailbox)
        self.apply(settings)

    @property
    def can_receive(self) -> bool:  # type: ignore[override]
        return self.settings.status.can_receive

    def apply(self, settings: SubscriptionSettings) -> None:
        self.settings = self.mailbox.settings = self.dead_letters.mailbox.settings = settings

    def takes(self, message: Message) -> bool:
        """One copy, however many rules match: the service makes more only for rules with actions."""
        return self.settings.status.can_send and any(rule.filter.matches(message) for rule in self.rules.values())

    def enqueue(self, message: Message, topic_number: int, topic_ttl_seconds: float) -> None:
        record = _record(message, self._core.now, min(topic_ttl_seconds, self.settings.ttl_seconds))
        record.enqueued_sequence_number = topic_number
        self.mailbox.append(record)


def _record(message: Message, now: float, ttl_limit_seconds: float) -> Record:
    own = math.inf if message.ttl_seconds is None else message.ttl_seconds
    return Record(message, enqueued_at=now, expires_at=now + min(own, ttl_limit_seconds))
