"""The records of one mailbox by their numbers, with their size and their place in the journal."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from fusebus.servicebus.engine.core import Core
from fusebus.servicebus.engine.errors import MessageNotFound
from fusebus.servicebus.engine.messages import Delivery, MessageState
from fusebus.servicebus.engine.meters import Meter
from fusebus.servicebus.engine.records import Record

MAX_STALE: Final = 64  # entries of removed messages an index may keep beyond the number of live ones


class Shelf:
    """Numbers grow, so the order of the numbers is the order of arrival."""

    def __init__(self, core: Core, number: int, path: str, meter: Meter) -> None:
        """`number` is the journal's for this mailbox."""
        self.id = number
        self.path = path
        self.meter = meter
        self.count_by_state = [0, 0, 0]  # indexed by MessageState
        self.last_number = 0
        self._core = core
        self._records: dict[int, Record] = {}
        self._order: list[int] = []  # every number in `_records`, ascending; stale ones among them

    def record(self, number: int) -> Record | None:
        """What is here under that number."""
        return self._records.get(number)

    def take_number(self) -> int:
        """For something that is not stored under it."""
        self.last_number = number = self.last_number + 1
        if self._core.journal is not None:
            self._core.journal.numbers_taken(self.id, number)
        return number

    def peek(self, from_number: int, count: int, session_id: str | None = None) -> list[Delivery]:
        return [record.delivery() for record in islice(self._from(from_number, session_id), max(0, count))]

    # Inside

    def _insert(self, record: Record) -> int:
        self.last_number = number = self.last_number + 1
        record.enqueued_sequence_number = record.enqueued_sequence_number or record.sequence_number
        record.sequence_number = number
        self._add(record, number)
        if self._core.journal is not None:
            self._core.journal.message_stored(self.id, record)
        return number

    def _add(self, record: Record, number: int) -> None:
        self._records[number] = record
        self._order.append(number)
        self.count_by_state[record.state] += 1
        self.meter.add(len(record.message.raw))

    def _keep(self, record: Record) -> None:
        if self._core.journal is not None:
            self._core.journal.message_changed(self.id, record)

    def _remove(self, record: Record) -> None:
        del self._records[record.sequence_number]
        self.count_by_state[record.state] -= 1
        self.meter.add(-len(record.message.raw))
        if self._core.journal is not None:
            self._core.journal.message_removed(self.id, record)
        if len(self._order) > 2 * len(self._records) + MAX_STALE:
            self._sweep()

    def _find(self, numbers: Sequence[int], state: MessageState) -> list[Record]:
        found = [self._records.get(number) for number in dict.fromkeys(numbers)]
        records = [record for record in found if record is not None and record.state is state]
        if len(records) != len(found):
            raise MessageNotFound(f"{self.path}: no {state.name.lower()} message with one of the numbers {[*numbers]}")
        return records

    def _from(self, number: int, session_id: str | None) -> Iterator[Record]:
        for record in self._walk(self._order, number):
            if session_id is None or record.message.session_id == session_id:
                yield record

    def _walk(self, order: list[int], number: int) -> Iterator[Record]:
        for index in range(bisect_left(order, number), len(order)):
            if record := self._records.get(order[index]):
                yield record

    def purge(self) -> int:
        """Remove everything; returns how many there were."""
        records, self._records = self._records, {}
        self.meter.add(-sum(len(record.message.raw) for record in records.values()))
        self.count_by_state = [0, 0, 0]
        self._order = []
        if self._core.journal is not None:
            for record in records.values():
                self._core.journal.message_removed(self.id, record)
        return len(records)

    def _sweep(self) -> None:
        """Give back the memory of what is gone: dictionaries and lists do not shrink by themselves."""
        self._records = dict(self._records)
        self._order = list(self._records)
