"""The messages of one queue, subscription or dead-letter queue, from enqueueing to settlement."""

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any, Final
from uuid import UUID

from fusebus.servicebus.engine.consumer import Consumer
from fusebus.servicebus.engine.core import Core
from fusebus.servicebus.engine.errors import EngineError, MessageLockLost, MessageNotFound, NotAllowed
from fusebus.servicebus.engine.messages import EMPTY, Delivery, Message, MessageState, ReceiveMode
from fusebus.servicebus.engine.settings import QueueSettings, SubscriptionSettings
from fusebus.servicebus.engine.timers import Timer

MAX_STALE: Final = 64  # entries of removed messages an index may keep beyond the number of live ones


@dataclass(slots=True, eq=False)
class Record:
    """A message's life in one mailbox."""

    message: Message
    enqueued_at: float
    expires_at: float = math.inf
    sequence_number: int = 0
    enqueued_sequence_number: int = 0
    delivery_count: int = 0
    state: MessageState = MessageState.ACTIVE
    modified: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    dead_letter_source: str | None = None
    lock_token: UUID | None = None
    locked_until: float | None = None
    lock_timer: Timer | None = None
    life_timer: Timer | None = None
    """Expiry, or for a scheduled message its activation."""

    def delivery(self) -> Delivery:
        return Delivery(
            self.message,
            self.sequence_number,
            self.enqueued_sequence_number,
            self.enqueued_at,
            self.expires_at,
            self.delivery_count,
            self.state,
            self.modified,
            self.dead_letter_source,
            self.lock_token,
            self.locked_until,
        )


class Mailbox:
    """Numbers grow, so the order of the numbers is the order of arrival; scheduled messages get a new one when due.

    A dead-letter queue is a mailbox without `dead_letters`: nothing expires there and nothing is given up.
    """

    def __init__(
        self,
        core: Core,
        path: str,
        settings: QueueSettings | SubscriptionSettings,
        dead_letters: "Mailbox | None" = None,
        on_due: Callable[[Message], int] | None = None,
    ) -> None:
        """`on_due` enqueues a scheduled message whose time has come."""
        self.path = path
        self.settings = settings
        self.dead_letters = dead_letters
        self.consumers: dict[Consumer, None] = {}  # in the order of attachment, so that runs repeat
        self.touched = False
        self.size_bytes = 0
        self.count_by_state = [0, 0, 0]  # indexed by MessageState
        self._core = core
        self._on_due = on_due
        self._last_number = 0
        self._records: dict[int, Record] = {}
        self._order: list[int] = []  # every number in `_records`, ascending; stale ones among them
        self._ready: list[int] = []  # heap of what can be delivered now; stale ones among them
        self._locks: dict[UUID, Record] = {}
        self._line: deque[Consumer] = deque()

    # Arrival

    def take_number(self) -> int:
        self._last_number += 1
        return self._last_number

    def append(self, record: Record) -> int:
        """Enqueue at the end; the record gets its number here and keeps an earlier one as the original."""
        number = self._insert(record)
        if record.expires_at < math.inf:
            record.life_timer = self._core.timers.add(record.expires_at, self._expire, record)
        heappush(self._ready, number)
        self._core.touch(self)
        return number

    def schedule(self, message: Message, due: float) -> int:
        record = Record(message, enqueued_at=due, state=MessageState.SCHEDULED)
        record.life_timer = self._core.timers.add(due, self._activate, record)
        return self._insert(record)

    def cancel_scheduled(self, numbers: Sequence[int]) -> None:
        for record in self._find(numbers, MessageState.SCHEDULED):
            self._remove(record)

    def _activate(self, record: Record) -> None:
        self._remove(record)
        if self._on_due:
            self._on_due(record.message)

    def _insert(self, record: Record) -> int:
        record.sequence_number = number = self.take_number()
        record.enqueued_sequence_number = record.enqueued_sequence_number or number
        self._records[number] = record
        self._order.append(number)
        self.count_by_state[record.state] += 1
        self.size_bytes += len(record.message.raw)
        return number

    # Departure

    def dispatch(self) -> None:
        """Hand ready messages to the waiting consumers, one each in turn."""
        while self._line:
            consumer = self._line[0]
            if consumer.credit > 0:
                record = self._next_ready()
                if record is None:
                    return
                self._line.rotate(-1)
                consumer.credit -= 1
                consumer.on_delivery(self._hand_over(record, consumer.mode))
            else:
                self._line.popleft()
                consumer.in_line = False

    def wait(self, consumer: Consumer) -> None:
        """The consumer may have credit now."""
        if consumer.attached and consumer.credit > 0:
            if not consumer.in_line:
                consumer.in_line = True
                self._line.append(consumer)
            self._core.touch(self)

    def leave(self, consumer: Consumer) -> None:
        self.consumers.pop(consumer, None)
        if consumer.in_line:
            consumer.in_line = False
            self._line.remove(consumer)

    def receive(self, count: int, mode: ReceiveMode) -> list[Delivery]:
        received: list[Delivery] = []
        while len(received) < count and (record := self._next_ready()):
            received.append(self._hand_over(record, mode))
        return received

    def receive_deferred(self, numbers: Sequence[int], mode: ReceiveMode) -> list[Delivery]:
        records = self._find(numbers, MessageState.DEFERRED)
        if locked := [record.sequence_number for record in records if record.lock_token]:
            raise MessageNotFound(f"{self.path}: deferred messages {locked} are locked by another receiver")
        return [self._hand_over(record, mode) for record in records]

    def peek(self, from_number: int, count: int) -> list[Delivery]:
        seen: list[Delivery] = []
        for index in range(bisect_left(self._order, from_number), len(self._order)):
            if len(seen) >= count:
                break
            if record := self._records.get(self._order[index]):
                seen.append(record.delivery())
        return seen

    def _next_ready(self) -> Record | None:
        while self._ready:
            if record := self._records.get(heappop(self._ready)):
                return record
        return None

    def _hand_over(self, record: Record, mode: ReceiveMode) -> Delivery:
        if mode is ReceiveMode.RECEIVE_AND_DELETE:
            self._remove(record)
        else:
            record.lock_token = token = self._core.new_token()
            self._locks[token] = record
            self._hold(record)
        return record.delivery()

    def _hold(self, record: Record) -> float:
        until = self._core.now + self.settings.lock_seconds
        self._core.timers.cancel(record.lock_timer)
        record.locked_until = until
        record.lock_timer = self._core.timers.add(until, self._lock_expired, record)
        return until

    # Settlement

    def complete(self, token: UUID) -> None:
        self._remove(self._unlock(token))

    def abandon(self, token: UUID, properties: Mapping[str, Any] | None) -> None:
        record = self._unlock(token)
        _modify(record, properties)
        self._failed(record)

    def release(self, token: UUID) -> None:
        self._put_back(self._unlock(token))

    def defer(self, token: UUID, properties: Mapping[str, Any] | None) -> None:
        record = self._unlock(token)
        _modify(record, properties)
        record.delivery_count += 1
        self.count_by_state[record.state] -= 1
        record.state = MessageState.DEFERRED
        self.count_by_state[record.state] += 1
        self._put_back(record)

    def dead_letter(self, token: UUID, properties: Mapping[str, Any]) -> None:
        if self.dead_letters is None:
            raise NotAllowed(f"{self.path}: a dead letter cannot be dead-lettered again")
        self._bury(self._unlock(token), properties)

    def renew(self, token: UUID) -> float:
        return self._hold(self._locked(token))

    def _locked(self, token: UUID) -> Record:
        record = self._locks.get(token)
        if record is None:
            raise MessageLockLost(
                f"{self.path}: the lock {token} is not held: it expired, or the message was settled already"
            )
        return record

    def _unlock(self, token: UUID) -> Record:
        record = self._locked(token)
        self._forget_lock(record)
        return record

    def _forget_lock(self, record: Record) -> None:
        if record.lock_token is not None:
            del self._locks[record.lock_token]
            self._core.timers.cancel(record.lock_timer)
            record.lock_token = record.locked_until = record.lock_timer = None

    def _lock_expired(self, record: Record) -> None:
        self._forget_lock(record)
        self._failed(record)

    def _failed(self, record: Record) -> None:
        record.delivery_count += 1
        limit = self.settings.max_delivery_count
        if self.dead_letters is not None and record.delivery_count >= limit:
            self._bury(
                record,
                _reason("MaxDeliveryCountExceeded", f"Message could not be consumed after {limit} delivery attempts."),
            )
        else:
            self._put_back(record)

    def _put_back(self, record: Record) -> None:
        """An unlocked record takes its old place again; a deferred one is not ready but still there."""
        if record.expires_at <= self._core.now:
            self._expire(record)
        elif record.state is MessageState.ACTIVE:
            heappush(self._ready, record.sequence_number)
            self._core.touch(self)

    def _expire(self, record: Record) -> None:
        if record.lock_token is not None:
            return  # decided when the lock ends
        if self.dead_letters is not None and self.settings.dead_letter_on_expiry:
            self._bury(record, _reason("TTLExpiredException", "The message expired and was dead lettered."))
        else:
            self._remove(record)

    def _bury(self, record: Record, properties: Mapping[str, Any]) -> None:
        assert self.dead_letters is not None
        self._remove(record)
        _modify(record, properties)
        record.expires_at = math.inf
        record.state = MessageState.ACTIVE
        record.dead_letter_source = self.path
        self.dead_letters.append(record)

    def _remove(self, record: Record) -> None:
        self._core.timers.cancel(record.life_timer)
        record.life_timer = None
        del self._records[record.sequence_number]
        self.count_by_state[record.state] -= 1
        self.size_bytes -= len(record.message.raw)
        self._drop_stale()

    def _drop_stale(self) -> None:
        if len(self._order) > 2 * len(self._records) + MAX_STALE:
            self._order = list(self._records)
        if len(self._ready) > 2 * self.count_by_state[MessageState.ACTIVE] + MAX_STALE:
            self._ready = [number for number in self._ready if number in self._records]
            heapify(self._ready)

    # The whole

    def _find(self, numbers: Sequence[int], state: MessageState) -> list[Record]:
        found = [self._records.get(number) for number in dict.fromkeys(numbers)]
        records = [record for record in found if record is not None and record.state is state]
        if len(records) != len(found):
            raise MessageNotFound(f"{self.path}: no {state.name.lower()} message with one of the numbers {[*numbers]}")
        return records

    def purge(self) -> int:
        records = list(self._records.values())
        for record in records:
            self._forget_lock(record)
            self._remove(record)
        return len(records)

    def close(self, error: EngineError) -> None:
        """Detach every consumer and tell it why."""
        for consumer in list(self.consumers):
            consumer.detach()
            if consumer.on_closed:
                consumer.on_closed(error)


def _modify(record: Record, properties: Mapping[str, Any] | None) -> None:
    if properties:
        record.modified = {**record.modified, **properties}


def _reason(reason: str, description: str) -> dict[str, str]:
    return {"DeadLetterReason": reason, "DeadLetterErrorDescription": description}
