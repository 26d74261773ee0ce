"""A topic."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fusebus.servicebus.engine.core import Core
from fusebus.servicebus.engine.destinations import Destination
from fusebus.servicebus.engine.entities import Entity, EntityKind, RuntimeCounts
from fusebus.servicebus.engine.mailbox import Mailbox
from fusebus.servicebus.engine.messages import Message, MessageState
from fusebus.servicebus.engine.meters import Meter
from fusebus.servicebus.engine.records import Record
from fusebus.servicebus.engine.settings import QueueSettings, TopicSettings

if TYPE_CHECKING:
    from fusebus.servicebus.engine.subscription import Subscription


class Topic(Destination):
    """Its mailbox holds only what is scheduled; everything else goes straight to the subscriptions."""

    kind = EntityKind.TOPIC
    settings: TopicSettings

    def __init__(self, core: Core, number: int, name: str, settings: TopicSettings) -> None:
        super().__init__(core, number, name)
        self.subscriptions: dict[str, Subscription] = {}  # by name in lower case
        self.meter = Meter(core.meter)
        self.mailbox = Mailbox(core, number, name, QueueSettings(), self.meter)
        self.mailbox.on_due = self.enqueue
        self.apply(settings)

    def apply(self, settings: TopicSettings) -> None:
        self.settings = settings
        self._watch_duplicates(settings.duplicate_detection_seconds)

    def enqueue(self, message: Message) -> int:
        return self._spread(Record(message, self._core.now))

    def _take_forwarded(self, record: Record) -> int:
        return self._spread(record)

    def _spread(self, original: Record) -> int:
        number = self.mailbox.take_number()
        original.enqueued_sequence_number = original.enqueued_sequence_number or original.sequence_number or number
        original.sequence_number = number  # for rules that ask
        for subscription in self.subscriptions.values():
            subscription.copy(original, self.settings.ttl_seconds)
        return number

    def watched(self) -> tuple[Entity, ...]:
        """It is in use as long as a subscription is."""
        return (self, *(part for subscription in self.subscriptions.values() for part in subscription.parts()))

    def forward_targets(self) -> Iterator[str]:
        for subscription in self.subscriptions.values():
            yield from subscription.forward_targets()

    def counts(self) -> RuntimeCounts:
        """Scheduled messages, and the size of everything that the subscriptions hold."""
        return RuntimeCounts(0, 0, self.mailbox.count_by_state[MessageState.SCHEDULED], 0, self.meter.bytes)
