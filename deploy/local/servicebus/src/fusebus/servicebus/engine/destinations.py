"""What can be sent to: duplicates, schedules and limits, the same for queues and topics."""

from abc import ABC, abstractmethod
from typing import Final

from fusebus.servicebus.engine.duplicates import DuplicateWindow
from fusebus.servicebus.engine.entities import Entity
from fusebus.servicebus.engine.errors import EntityDisabled, QuotaExceeded
from fusebus.servicebus.engine.messages import Message
from fusebus.servicebus.engine.meters import Meter
from fusebus.servicebus.engine.records import Record
from fusebus.servicebus.engine.settings import QueueSettings, TopicSettings

_BYTES_PER_MEGABYTE: Final = 1024 * 1024
_BYTES_PER_KILOBYTE: Final = 1024


class Destination(Entity, ABC):
    """What queues and topics share: senders, duplicates and schedules."""

    accepts_messages = True
    settings: QueueSettings | TopicSettings
    meter: Meter
    duplicates: DuplicateWindow | None = None

    @property
    def can_send(self) -> bool:  # type: ignore[override]
        return self.settings.status.can_send

    def check_sendable(self, added_bytes: int) -> None:
        if not self.can_send:
            raise EntityDisabled(f"The messaging entity '{self.path}' is disabled for sending.")
        limit = self.settings.max_size_megabytes * _BYTES_PER_MEGABYTE
        if self.meter.bytes + added_bytes > limit:
            raise QuotaExceeded(f"The messaging entity '{self.path}' has reached its maximum size of {limit} bytes.")

    def max_message_bytes(self, otherwise: int) -> int:
        """The entity's own limit, or the tier's."""
        own = self.settings.max_message_kilobytes
        return otherwise if own is None else own * _BYTES_PER_KILOBYTE

    def accept(self, message: Message) -> int:
        """Take one message from a sender; returns its sequence number."""
        if self.duplicates is None:
            return self._arrive(message)
        key = self._key(message)
        if key is not None and (earlier := self._seen(key)):
            return earlier
        number = self._arrive(message)
        self._remember(key, number)
        return number

    def _arrive(self, message: Message) -> int:
        due = message.scheduled_enqueue_time
        if due is not None and due > self._core.now:
            return self.mailbox.schedule(message, due)
        return self.enqueue(message)

    def accept_forwarded(self, record: Record) -> None:
        self.accessed_at = self._core.now
        key = self._key(record.message)
        if key is None or not self._seen(key):
            record.enqueued_at = self._core.now
            self._remember(key, self._take_forwarded(record))

    @abstractmethod
    def enqueue(self, message: Message) -> int:
        """A new message, or a scheduled one whose time has come."""

    @abstractmethod
    def _take_forwarded(self, record: Record) -> int:
        """A message that another entity forwarded here; returns its sequence number."""

    def _key(self, message: Message) -> str | None:
        """What a duplicate has in common; in partitioned entities an id counts only within its partition."""
        if self.duplicates is None or message.message_id is None:
            return None
        if not self.settings.enable_partitioning:
            return message.message_id
        partition = message.session_id if message.partition_key is None else message.partition_key
        return f"{partition or ''}\0{message.message_id}"

    def _seen(self, key: str) -> int | None:
        assert self.duplicates is not None
        return self.duplicates.number_of(key, self._core.now)

    def _remember(self, key: str | None, number: int) -> None:
        if key is not None and self.duplicates is not None:
            self.duplicates.remember(key, number, self._core.now)

    def _watch_duplicates(self, seconds: float) -> None:
        if self.duplicates is None:
            self.duplicates = DuplicateWindow(self._core, self.id, seconds) if seconds else None
        else:
            self.duplicates.seconds = seconds
