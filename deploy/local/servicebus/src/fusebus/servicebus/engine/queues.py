"""A queue."""

from fusebus.servicebus.engine.core import Core
from fusebus.servicebus.engine.destinations import Destination
from fusebus.servicebus.engine.entities import EntityKind
from fusebus.servicebus.engine.holders import Holder
from fusebus.servicebus.engine.messages import Message
from fusebus.servicebus.engine.meters import Meter
from fusebus.servicebus.engine.records import Record, expiry, forwarded_expiry
from fusebus.servicebus.engine.settings import QueueSettings


class Queue(Holder, Destination):
    kind = EntityKind.QUEUE
    settings: QueueSettings

    def __init__(self, core: Core, number: int, name: str, settings: QueueSettings) -> None:
        super().__init__(core, number, name, settings, Meter(core.meter))
        self.mailbox.on_due = self.enqueue
        self.apply(settings)

    def apply(self, settings: QueueSettings) -> None:
        self.settings = settings
        self._apply(settings)
        self._watch_duplicates(settings.duplicate_detection_seconds)

    def enqueue(self, message: Message) -> int:
        now = self._core.now
        return self.mailbox.append(Record(message, now, expiry(message, now, self.settings.ttl_seconds)))

    def _take_forwarded(self, record: Record) -> int:
        record.expires_at = forwarded_expiry(record, self.settings.ttl_seconds)
        return self.take(record)
