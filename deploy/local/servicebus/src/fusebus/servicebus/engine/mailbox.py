"""The messages of one queue, subscription or dead-letter queue, from enqueueing to settlement."""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any
from uuid import UUID

from fusebus.servicebus.engine.backlog import Backlog
from fusebus.servicebus.engine.consumer import Consumer
from fusebus.servicebus.engine.core import Core
from fusebus.servicebus.engine.deadlines import Deadlines
from fusebus.servicebus.engine.errors import EngineError, MessageLockLost, MessageNotFound, NotAllowed
from fusebus.servicebus.engine.messages import Delivery, Message, MessageState, ReceiveMode
from fusebus.servicebus.engine.meters import Meter
from fusebus.servicebus.engine.records import Record, dead_letter_reason
from fusebus.servicebus.engine.settings import QueueSettings, SubscriptionSettings
from fusebus.servicebus.engine.shelf import MAX_STALE, Shelf


class Mailbox(Shelf):
    """A shelf from which messages are handed out; scheduled messages get a new number when due.

    A dead-letter queue is a mailbox without `dead_letters`: nothing expires there and nothing is given up.
    """

    has_sessions = False
    dead_letters: "Mailbox | None" = None
    on_due: Callable[[Message], int] | None = None
    """Enqueues a scheduled message whose time has come."""
    forward: Callable[[Record], None] | None = None
    """Takes what would become ready here to another entity."""

    def __init__(
        self, core: Core, number: int, path: str, settings: QueueSettings | SubscriptionSettings, meter: Meter
    ) -> None:
        super().__init__(core, number, path, meter)
        self.settings = settings
        self.consumers: dict[Consumer, None] = {}  # in the order of attachment, so that runs repeat
        self.left_at = core.now
        """When a consumer left last."""
        self.touched = False
        self._ready = Backlog()
        self._locks: dict[int, Record] = {}  # by the token's number, which is quicker to hash than the token
        self._lock_ends = Deadlines(core, self._ends_at, self._lock_expired)
        self._lives = Deadlines(core, self._lives_until, self._life_ends)
        self._line: deque[Consumer] = deque()

    @property
    def is_used(self) -> bool:
        """Whether somebody receives from it."""
        return bool(self.consumers)

    def is_locked(self, token: UUID) -> bool:
        return token.int in self._locks

    # Arrival

    def append(self, record: Record) -> int:
        """Enqueue at the end; the record gets its number here and keeps an earlier one as the original."""
        if self.forward is not None:
            return self._pass_on(record)
        number = self._insert(record)
        if record.expires_at < math.inf:
            self._lives.add(record.expires_at, number)
        self._make_ready(record)
        return number

    def schedule(self, message: Message, due: float) -> int:
        number = self._insert(Record(message, enqueued_at=due, state=MessageState.SCHEDULED))
        self._lives.add(due, number)
        return number

    def cancel_scheduled(self, numbers: Sequence[int]) -> None:
        for record in self._find(numbers, MessageState.SCHEDULED):
            self._remove(record)

    def restore(self, record: Record) -> bool:
        """Take a record back as it was stored; False if its number is not the highest yet."""
        number = record.sequence_number
        if self._order and number <= self._order[-1]:
            return False
        self.last_number = max(self.last_number, number)
        self._add(record, number)
        scheduled = record.state is MessageState.SCHEDULED
        ends = record.enqueued_at if scheduled else record.expires_at
        if ends < math.inf:
            self._lives.add(ends, number)
        if record.state is MessageState.ACTIVE:
            self._make_ready(record)
        return True

    def forward_backlog(self) -> None:
        """Everything that is ready goes where `forward` takes it."""
        if self.forward is not None:
            for record in [found for found in self._records.values() if _is_ready(found)]:
                self._remove(record)
                self.forward(record)

    def _pass_on(self, record: Record) -> int:
        assert self.forward is not None
        number = self.take_number()
        record.enqueued_sequence_number = record.enqueued_sequence_number or record.sequence_number or number
        record.sequence_number = number
        self.forward(record)
        return number

    def _make_ready(self, record: Record) -> None:
        self._ready.add(record.sequence_number)
        self._core.touch(self)

    # Departure

    def dispatch(self) -> None:
        """Hand ready messages to the waiting consumers, one each in turn."""
        line = self._line
        while line:
            consumer = line[0]
            if consumer.credit > 0:
                record = self._next_ready()
                if record is None:
                    return
                line.rotate(-1)
                consumer.credit -= 1
                consumer.on_delivery(self._hand_over(record, consumer.mode))
            else:
                line.popleft()
                consumer.in_line = False

    def wait(self, consumer: Consumer) -> None:
        """The consumer may have credit now."""
        if consumer.attached and consumer.credit > 0:
            if not consumer.in_line:
                consumer.in_line = True
                self._line.append(consumer)
            self._core.touch(self)

    def leave(self, consumer: Consumer) -> None:
        """The consumer has no credit any more; it stays in line until that is noticed, or many do."""
        self.consumers.pop(consumer, None)
        self._core.set_time()  # the last call of the engine may be long ago
        self.left_at = self._core.now
        if len(self._line) > 2 * len(self.consumers) + MAX_STALE:
            self._line = deque(found for found in self._line if found.attached)

    def receive(self, count: int, mode: ReceiveMode) -> list[Delivery]:
        received: list[Delivery] = []
        while len(received) < count and (record := self._next_ready()):
            received.append(self._hand_over(record, mode))
        return received

    def receive_deferred(self, numbers: Sequence[int], mode: ReceiveMode, session_id: str | None) -> list[Delivery]:
        records = self._find(numbers, MessageState.DEFERRED)
        if locked := [record.sequence_number for record in records if record.lock_token]:
            raise MessageNotFound(f"{self.path}: deferred messages {locked} are locked by another receiver")
        return [self._hand_over(record, mode) for record in records]

    def delete_ready(self, count: int, before: float, session_id: str | None = None) -> int:
        """The first `count` messages that nobody holds and that were enqueued before that instant."""
        found = (record for record in self._from(0, session_id) if _is_ready(record) and record.enqueued_at < before)
        records = list(islice(found, max(0, count)))
        for record in records:
            self._remove(record)
        return len(records)

    def _next_ready(self) -> Record | None:
        while (number := self._ready.take()) is not None:
            if record := self._records.get(number):
                return record
        return None

    def _hand_over(self, record: Record, mode: ReceiveMode) -> Delivery:
        if mode is ReceiveMode.RECEIVE_AND_DELETE:
            self._remove(record)
        else:
            record.lock_token = token = self._core.new_token()
            self._locks[token.int] = record
            self._hold(record)
        return record.delivery()

    def _hold(self, record: Record) -> float:
        assert record.lock_token is not None
        record.locked_until = until = self._core.now + self.settings.lock_seconds
        self._lock_ends.sweep(len(self._locks))
        self._lock_ends.add(until, record.lock_token.int)
        return until

    # Settlement

    def complete(self, token: UUID) -> None:
        self._remove(self._unlock(token))

    def abandon(self, token: UUID, properties: Mapping[str, Any] | None) -> None:
        record = self._unlock(token)
        record.modify(properties)
        self._failed(record)

    def release(self, token: UUID) -> None:
        self._put_back(self._unlock(token))

    def defer(self, token: UUID, properties: Mapping[str, Any] | None) -> None:
        record = self._unlock(token)
        record.modify(properties)
        record.delivery_count += 1
        self.count_by_state[record.state] -= 1
        record.state = MessageState.DEFERRED
        self.count_by_state[record.state] += 1
        self._keep(record)
        self._put_back(record)

    def dead_letter(self, token: UUID, properties: Mapping[str, Any]) -> None:
        if self.dead_letters is None:
            raise NotAllowed(f"{self.path}: a dead letter cannot be dead-lettered again")
        self._bury(self._unlock(token), properties)

    def renew(self, token: UUID) -> float:
        return self._hold(self._locked(token))

    def _locked(self, token: UUID) -> Record:
        record = self._locks.get(token.int)
        if record is None:
            raise self._lock_lost(token)
        return record

    def _lock_lost(self, token: UUID) -> EngineError:
        return MessageLockLost(
            f"{self.path}: the lock {token} is not held: it expired, or the message was settled already"
        )

    def _unlock(self, token: UUID) -> Record:
        record = self._locks.get(token.int)
        if record is None:
            raise self._lock_lost(token)
        self._forget_lock(record)
        return record

    def _forget_lock(self, record: Record) -> None:
        if record.lock_token is not None:
            del self._locks[record.lock_token.int]
            record.lock_token = record.locked_until = None

    def _ends_at(self, key: int, due: float) -> bool:
        record = self._locks.get(key)
        return record is not None and record.locked_until == due

    def _lock_expired(self, key: int) -> None:
        record = self._locks[key]
        self._forget_lock(record)
        self._failed(record)

    def _failed(self, record: Record) -> None:
        record.delivery_count += 1
        limit = self.settings.max_delivery_count
        if self.dead_letters is not None and record.delivery_count >= limit:
            said = f"Message could not be consumed after {limit} delivery attempts."
            self._bury(record, dead_letter_reason("MaxDeliveryCountExceeded", said))
        else:
            self._keep(record)
            self._put_back(record)

    def _put_back(self, record: Record) -> None:
        """An unlocked record takes its old place again; a deferred one is not ready but still there."""
        if record.expires_at <= self._core.now:
            self._expire(record)
        elif record.state is not MessageState.ACTIVE:
            return
        elif self.forward is not None:
            self._remove(record)
            self.forward(record)
        else:
            self._make_ready(record)

    def _lives_until(self, key: int, due: float) -> bool:
        record = self._records.get(key)
        if record is None:
            return False
        return (record.enqueued_at if record.state is MessageState.SCHEDULED else record.expires_at) == due

    def _life_ends(self, key: int) -> None:
        record = self._records[key]
        if record.state is MessageState.SCHEDULED:
            self._remove(record)
            if self.on_due:
                self.on_due(record.message)
        elif record.lock_token is None:  # else it is decided when the lock ends
            self._expire(record)

    def _expire(self, record: Record) -> None:
        if self.dead_letters is not None and self.settings.dead_letter_on_expiry:
            said = "The message expired and was dead lettered."
            self._bury(record, dead_letter_reason("TTLExpiredException", said))
        else:
            self._remove(record)

    def _bury(self, record: Record, properties: Mapping[str, Any]) -> None:
        self._remove(record)
        self.bury_new(record, properties)

    def bury_new(self, record: Record, properties: Mapping[str, Any]) -> None:
        """Into the dead letters with a record that is in no mailbox."""
        assert self.dead_letters is not None
        record.modify(properties)
        record.expires_at = math.inf
        record.state = MessageState.ACTIVE
        record.dead_letter_source = self.path
        self.dead_letters.append(record)

    # The whole

    def _sweep(self) -> None:
        super()._sweep()
        self._ready.sweep(self._records, self.count_by_state[MessageState.ACTIVE])
        self._lives.sweep(len(self._records))

    def purge(self) -> int:
        self._ready = Backlog()
        self._locks = {}
        self._lock_ends.clear()
        self._lives.clear()
        return super().purge()

    def close(self, error: EngineError) -> None:
        """Detach every consumer and tell it why."""
        for consumer in list(self.consumers):
            consumer.detach()
            if consumer.on_closed:
                consumer.on_closed(error)


def _is_ready(record: Record) -> bool:
    return record.lock_token is None and record.state is MessageState.ACTIVE
