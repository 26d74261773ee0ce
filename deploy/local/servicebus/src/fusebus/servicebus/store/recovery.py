"""What a data directory still knows: tables and log, replayed into a snapshot for the engine."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from itertools import count
from typing import Any, Final, TypeVar

from fusebus.servicebus.amqp.types import CodecError
from fusebus.servicebus.engine.journal import (
    IDS_PER_ENTITY,
    DuplicateImage,
    EntityImage,
    SessionImage,
    Snapshot,
)
from fusebus.servicebus.engine.records import Record
from fusebus.servicebus.engine.settings import Rule, TopicSettings
from fusebus.servicebus.store import entries, images
from fusebus.servicebus.store.database import Reader
from fusebus.servicebus.store.journal_file import JournalFile, Pass

T = TypeVar("T")
DROPPED: Final = -1  # in the table of last numbers, beside the mailboxes: the last block that was deleted
REWOUND: Final = -2  # likewise: the last block that the journal file holds no longer
PASS: Final = -3  # likewise: the name of the journal file's pass that began then
IN_DATABASE: Final = -1  # instead of a position in the journal file


@dataclass(slots=True)
class Block:
    """What the log still needs of one block."""

    number: int
    size_bytes: int
    stored: int
    """How many entries say that a message is there."""
    live: int
    """How many of them still hold."""
    position: int = IN_DATABASE
    """Of its data in the journal file, or IN_DATABASE."""
    mixed: bool = False
    """Whether it may have entries that say that a message is gone."""
    merged: tuple[int, ...] = ()
    """Numbers of blocks whose data it took over whole."""


@dataclass(slots=True)
class BlockSize:
    """Of one block in the log."""

    size_bytes: int
    stored: int
    position: int
    mixed: bool = False


@dataclass(slots=True)
class Recovered:
    """Everything that could be read; `complaints` says what could not, one sentence each."""

    complaints: list[str] = field(default_factory=list)
    tables: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    last_numbers: dict[int, int] = field(default_factory=dict)
    blocks: dict[int, BlockSize] = field(default_factory=dict)
    live: dict[int, dict[int, tuple[int, entries.Stored]]] = field(default_factory=dict)
    """mailbox -> number -> (block, entry)"""
    superseded: list[tuple[int, int]] = field(default_factory=list)
    """(mailbox, number) of what the journal file says to be gone or to be another way than the database has it."""
    dropped: int = 0
    """The last block that was deleted since nothing of it was needed."""
    next_block: int = 1
    damaged: bool = False
    """Whether the file must not be written any more."""

    def live_by_block(self) -> dict[int, int]:
        """How many messages of each block are still there."""
        counted: dict[int, int] = {}
        for mailbox in self.live.values():
            for block, _ in mailbox.values():
                counted[block] = counted.get(block, 0) + 1
        return counted

    def snapshot(self) -> Snapshot:
        """For Engine.restore; messages are let go of as they are handed over."""
        return Snapshot(
            entities=self._made("entities", _entity, lambda image: not isinstance(image.settings, TopicSettings)),
            rules=self._made("rules", _rule),
            last_numbers=self.last_numbers,
            sessions=self._made("sessions", lambda row: SessionImage(*row)),
            records=self._records(),
            duplicates=self._made("duplicates", _duplicate, lambda image: image.seen_at),
        )

    def _made(
        self, table: str, make: Callable[[tuple[Any, ...]], T], order: Callable[[T], Any] | None = None
    ) -> list[T]:
        made: list[T] = []
        for row in self.tables.get(table, ()):
            try:
                made.append(make(row))
            except (ValueError, TypeError) as error:
                self.complaints.append(f"table {table}: a row cannot be understood: {error}")
        if order is not None:
            made.sort(key=order)
        return made

    def _records(self) -> Iterator[tuple[int, Record]]:
        for mailbox, found in self.live.items():
            for number in sorted(found):
                block, entry = found.pop(number)
                try:
                    record = entry.record()
                except (CodecError, ValueError) as error:
                    self.complaints.append(f"log: message {number} of mailbox {mailbox} is damaged: {error}")
                    continue
                record.journal_place = block
                yield mailbox, record


def _entity(row: tuple[Any, ...]) -> EntityImage:
    number, path, settings, created_at, updated_at = row
    return EntityImage(number, path, images.loads(settings), created_at, updated_at)


def _rule(row: tuple[Any, ...]) -> tuple[int, Rule]:
    entity, _, text = row
    rule = images.loads(text)
    if not isinstance(rule, Rule):
        raise images.UnknownImage("not a rule")
    return entity, rule


def _duplicate(row: tuple[Any, ...]) -> DuplicateImage:
    entity, seen_at, key, number = row
    return DuplicateImage(entity, key, number, seen_at)


def recover(database: sqlite3.Connection, journal: JournalFile, last_commit: int | None) -> Recovered:
    """Reads everything; `last_commit` is the last block that was confirmed to have been written, None if unknown."""
    reader = Reader(database)
    found = Recovered(complaints=reader.complaints)
    found.tables = {name: reader.rows(name) for name in ("entities", "rules", "sessions", "duplicates")}
    if last_commit is None:
        found.complaints.append(
            "the last commit's number is damaged: should the end of the log be cut off, nobody sees it"
        )
    found.last_numbers = _numbers(reader)
    found.dropped = found.last_numbers.pop(DROPPED, 0)
    begins = Pass(found.last_numbers.pop(PASS, 0), found.last_numbers.pop(REWOUND, 0))
    rewound = max(found.dropped, begins.base)
    newest = max(rewound, _replay(_blocks(reader, journal, begins, found.dropped), found))
    found.next_block = newest + 1
    _look_for_gaps(found, rewound, journal.now.base, max(newest, last_commit or 0))
    found.damaged = bool(reader.complaints)
    _drop_orphans(found)
    return found


def _look_for_gaps(found: Recovered, rewound: int, base: int, last: int) -> None:
    """Every block above `base` must be there if it was not dropped, and the database must know of all up to `base`."""
    start = max(base, found.dropped)
    there = {number for number in found.blocks if start < number <= last}
    lost = last - start - len(there) + max(0, base - rewound)
    if lost > 0:
        first = rewound + 1 if base > rewound else next(n for n in count(start + 1) if n not in there)
        found.complaints.append(
            f"log: {lost} commits (from block {first} on, the last was {max(base, last)}) are missing:"
            " what they held, acknowledged or not, may be lost"
        )


def _numbers(reader: Reader) -> dict[int, int]:
    """The last numbers; what is none is left out."""
    rows = reader.rows("numbers")
    whole = {key: last for key, last in rows if isinstance(key, int) and isinstance(last, int)}
    if len(whole) < len(rows):
        reader.complaints.append(f"table numbers: {len(rows) - len(whole)} rows hold no numbers and are left out")
    return whole


def _blocks(reader: Reader, journal: JournalFile, begins: Pass, dropped: int) -> Iterator[tuple[int, int, bytes]]:
    """(number, position, data) of the database's and the journal file's blocks after `dropped`, oldest first."""
    stored = ((number, IN_DATABASE, data) for number, data in reader.blocks())
    written = [block for block in journal.recover(reader.complaints, begins) if block[0] > dropped]
    return merge(stored, written, key=lambda block: block[:2])


def _replay(blocks: Iterator[tuple[int, int, bytes]], found: Recovered) -> int:
    """Go through the log; returns its last block's number."""
    newest = 0
    for number, position, data in blocks:
        if number == newest:
            continue  # a write that was reported as failed and was not
        newest, size = number, BlockSize(len(data), 0, position)
        found.blocks[number] = size
        try:
            for entry in entries.read(data):
                size.mixed = size.mixed or isinstance(entry, entries.Removed)
                if position != IN_DATABASE and _is_known(entry, found):
                    found.superseded.append((entry.mailbox, entry.number))
                size.stored += _apply(entry, number, found)
        except entries.DamagedBlock as error:
            found.complaints.append(f"log: block {number} ends early: {error}")
    return newest


def _is_known(entry: entries.Entry, found: Recovered) -> bool:
    """Whether older blocks have a message of this number."""
    return not isinstance(entry, entries.Numbered) and entry.number in found.live.get(entry.mailbox, {})


def _apply(entry: entries.Entry, block: int, found: Recovered) -> int:
    last = found.last_numbers
    if isinstance(entry, entries.Removed):
        found.live.get(entry.mailbox, {}).pop(entry.number, None)
        return 0
    last[entry.mailbox] = max(last.get(entry.mailbox, 0), entry.number)
    if isinstance(entry, entries.Numbered):
        return 0
    found.live.setdefault(entry.mailbox, {})[entry.number] = (block, entry)
    return 1


def _drop_orphans(found: Recovered) -> None:
    """Forget the mailboxes of entities that were deleted, but say so when the table of entities is damaged."""
    known = {row[0] for row in found.tables["entities"]}
    for mailbox in [number for number in found.live if number - number % IDS_PER_ENTITY not in known]:
        lost = len(found.live.pop(mailbox))
        if found.damaged and lost:
            found.complaints.append(f"log: {lost} messages of mailbox {mailbox} have no entity and are lost")
