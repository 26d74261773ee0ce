"""The log of messages: which blocks there are, where they lie, and what of them is still needed."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Final
from zlib import crc32

from fusebus.servicebus.engine.records import Record
from fusebus.servicebus.store import entries
from fusebus.servicebus.store.journal_file import JournalFile, Pass, UnreadableBlock, new_pass
from fusebus.servicebus.store.marks import CommitMark
from fusebus.servicebus.store.recovery import DROPPED, IN_DATABASE, PASS, REWOUND, Block, Recovered
from fusebus.servicebus.store.tables import Statement

REWIND_BYTES: Final = 4 << 20  # of the journal file: the fewer pages it uses, the nearer they are to the processor
MAX_JOURNAL_BYTES: Final = 256 << 20  # then what is needed of it moves into the database, at 6 µs of CPU for 1 KB
MOVABLE_SHARE: Final = 1 / 16  # of a journal file: if no more is needed, moving that is cheaper than a longer file
EMPTYING_SHARE: Final = 1 / 64  # of it while nothing new is stored for FORGET_BLOCKS: soon there is less to move
ROW_BYTES: Final = 64 << 10  # blocks are put together in rows up to this size; a damaged page costs one row
MIN_BYTES_TO_TIDY: Final = 32 << 20  # of blocks in the database
TIDY_BYTES: Final = 8 << 20  # of messages copied at one time out of rows of which little is needed
FORGET_BLOCKS: Final = 64  # finished blocks at the old end are forgotten once in so many commits
FEW_BLOCKS: Final = 8  # are looked at, at each commit that empties the newest one, since perhaps all else is gone too
MIN_BLOCKS_TO_DROP: Final = 64  # dropping costs statements; a few finished blocks can wait

FindRecord = Callable[[int, int], Record | None]


class Row:
    """What is to become one row of the database out of several blocks."""

    def __init__(self) -> None:
        self.block = Block(0, 0, 0, 0)
        self.pieces: list[bytes] = []
        self.merged: set[int] = set()
        """Numbers of blocks that were taken over whole."""
        self.copied: list[Record] = []
        """Records of which new entries were made."""

    def add(self, block: Block, data: bytes) -> None:
        """Take the data of a block over as they are."""
        self._grow(block, [data], block.stored)
        self.merged.update((block.number, *block.merged))

    def add_copies(self, block: Block, copied: list[tuple[Record, bytes]]) -> None:
        """Take over what is needed of a block."""
        self._grow(block, [data for _, data in copied], len(copied))
        self.copied += [record for record, _ in copied]

    def _grow(self, block: Block, pieces: list[bytes], stored: int) -> None:
        grown = self.block
        grown.number = block.number
        grown.size_bytes += sum(map(len, pieces))
        grown.stored += stored
        grown.live += stored
        self.pieces += pieces


class Log:
    """Blocks are dropped from the old end on, so whatever an entry refers to is older and, if needed, still there.

    Blocks that come alone are appended to the journal file, those that come with changes to the tables go into the
    database in the same transaction. When the journal file is long, or little of it is needed, that follows, and the
    file is written from its start again: most messages are gone by then, and never reach the database.
    """

    def __init__(self, database: sqlite3.Connection, journal: JournalFile, mark: CommitMark) -> None:
        self.blocks: dict[int, Block] = {}
        """By number; one that was merged out of several has all their numbers."""
        self.superseded: list[tuple[int, int]] = []
        """(mailbox, number) of messages in the database that were removed or changed since the last move."""
        self.next_number = 1
        self.crowded = False
        """Whether it is time to ask `worth_moving`."""
        self.unsure = False
        """Whether the database may have a transaction that was reported as failed. It must be written next: a new
        transaction takes the place of that one, while blocks in the journal file could be taken for older than it."""
        self.find: FindRecord | None = None
        """What the engine has under a mailbox's and a message's number; nothing is moved before it is set."""
        self.last_numbers: Callable[[], dict[int, int]] = dict
        """Of the engine's mailboxes: they must outlive the blocks that they come from."""
        self._database = database
        self._journal = journal
        self._mark = mark
        self._journaled: deque[Block] = deque()
        """Blocks in the journal file, oldest first; finished ones go from both ends."""
        self._rows: deque[Block] = deque()
        """Those in the database; finished ones go from the old end."""
        self._stored_in = 0
        """The last block that something was stored in."""
        self._in_doubt = False
        """Whether nobody could say if a move was written: the disk's log may then be another one than is known here."""
        self._dropped = 0
        self._saved_numbers: dict[int, int] = {}
        self._stored_bytes = 0  # in the database
        self._look_at, self._tidy_at = REWIND_BYTES, MIN_BYTES_TO_TIDY  # sizes of the journal file and of the rows
        self._not_before = REWIND_BYTES  # size of the journal file: more after a move that failed

    def adopt(self, recovered: Recovered) -> None:
        """Take it up where it ended."""
        self._dropped = recovered.dropped
        self.superseded += recovered.superseded
        self.next_number = max(recovered.next_block, (self._mark.block or 0) + 1)
        live = recovered.live_by_block()
        for number, size in recovered.blocks.items():
            block = Block(number, size.size_bytes, size.stored, live.get(number, 0), size.position, size.mixed)
            self.blocks[number] = block
            (self._rows if _stored(block) else self._journaled).append(block)
        self._stored_in = self.next_number - 1
        self._stored_bytes = sum(block.size_bytes for block in self._rows)
        self._note_size()
        with suppress(sqlite3.Error):  # without it only a file whose first block is damaged is read less far
            self._database.execute("INSERT OR IGNORE INTO numbers VALUES (?, ?)", (PASS, self._journal.now.id))

    @property
    def size_bytes(self) -> int:
        """At the moment, with blocks that are finished but not dropped."""
        return self._stored_bytes + self._journal.size_bytes

    # --- writing

    def append(self, data: bytes, stored: int, live: int, mixed: bool) -> int:
        """A block into the journal file; raises OSError, and then nothing has happened. For the counts see Block.

        Returns the number of the next one.
        """
        number, journal = self.next_number, self._journal
        position = journal.append(number, data)
        self._mark.put(number, ~number)
        if live:  # of others nothing will have to be moved
            self.blocks[number] = block = Block(number, len(data), stored, live, position, mixed)
            self._journaled.append(block)
            self._stored_in = number
        elif journal.size_bytes > self._not_before and not (self._journaled and self._journaled[-1].live):
            self._forget_finished()  # of a queue the newest message mostly goes last
            few = len(self._journaled) <= FEW_BLOCKS
            if few and self._movable(EMPTYING_SHARE * journal.size_bytes):
                self.crowded = True
        if journal.size_bytes > self._look_at:
            self.crowded = True
        if not number % FORGET_BLOCKS:
            self._forget_finished()
            if journal.size_bytes > self._not_before and self._nearly_all_done():
                self.crowded = True
        self.next_number = number = number + 1
        return number

    def to_database(
        self, data: bytes | None, stored: int, live: int, statements: Iterable[Statement], moving: bool
    ) -> None:
        """A block, if any, and changes to the tables; `moving`: also what is still needed of the journal file.

        Raises sqlite3.Error, OSError, and then nothing has happened but that a transaction may be open.
        """
        if self._in_doubt:
            raise sqlite3.OperationalError("nobody can say whether the last move was written; restart the broker")
        execute = self._database.execute
        self._forget_finished()
        sources = self._to_move() if moving else []
        rows = list(self._gathered(sources))
        dropping = moving or self.unsure or self._finished - self._dropped >= MIN_BLOCKS_TO_DROP
        execute("BEGIN IMMEDIATE")
        for sql, parameters in statements:
            execute(sql, parameters)
        self._database.executemany("DELETE FROM blocks WHERE id = ?", [(b.number,) for b in sources if _stored(b)])
        for row in rows:
            self._insert(row.block.number, b"".join(row.pieces))
        if moving:
            data = self._removals() + (data or b"")
            if not data and not self.unsure:  # else there may be a row of this number, and the next block needs another
                data = None
        if data is not None:
            self._insert(self.next_number, data)
        following = Pass(new_pass(), self.next_number - 1) if moving else self._journal.now
        numbers = self._save_numbers(following) if dropping else {}
        self.unsure = self.crowded = True
        try:
            execute("COMMIT")
        except sqlite3.Error:
            if not moving or not self._was_written(following):
                raise
        self.unsure = False
        self._saved_numbers |= numbers
        if dropping:
            self._dropped = self._finished
        if moving:
            self._moved(sources, rows)
            self._journal.rewind(following)
        if data is not None:
            self._add_stored(Block(self.next_number, len(data), stored, live, mixed=True))
        self._note_size()

    def _was_written(self, following: Pass) -> bool:
        """Whether a move is in the database though its COMMIT was reported as failed: the new pass's name is there, and
        rows that were moved are not. Raises sqlite3.Error."""
        self._in_doubt = True
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")
        found = self._database.execute("SELECT last FROM numbers WHERE mailbox = ?", (PASS,)).fetchall()
        self._in_doubt = False
        return found == [(following.id,)]

    def _add_stored(self, block: Block) -> None:
        self._stored_bytes += block.size_bytes
        self._mark.put(block.number, ~block.number)
        self.next_number = block.number + 1
        self.blocks[block.number] = block
        self._rows.append(block)
        self._stored_in = block.number
        self._forget_finished()

    def _insert(self, number: int, data: bytes) -> None:
        self._database.execute("INSERT OR REPLACE INTO blocks VALUES (?, ?, ?)", (number, crc32(data), data))

    def _save_numbers(self, following: Pass) -> dict[int, int]:
        """Deletes finished blocks, and keeps what the log alone knew: numbers that were given out."""
        self._database.execute("DELETE FROM blocks WHERE id <= ?", (self._finished,))
        numbers = {key: last for key, last in self.last_numbers().items() if self._saved_numbers.get(key) != last}
        numbers |= {DROPPED: self._finished, REWOUND: following.base, PASS: following.id}
        self._database.executemany("INSERT OR REPLACE INTO numbers VALUES (?, ?)", numbers.items())
        return numbers

    def _removals(self) -> bytes:
        """Entries against messages in the database that are no longer there; newer entries for others follow them."""
        assert self.find is not None
        gone = [each for each in self.superseded if self.find(*each) is None]
        return b"".join([entries.short(entries.REMOVED, *each) for each in gone])

    # --- the log's old end

    @property
    def _finished(self) -> int:
        """The last block that is no longer needed, as all before it."""
        return min(order[0].number if order else self.next_number for order in (self._rows, self._journaled)) - 1

    def _forget_finished(self) -> None:
        while self._journaled and not self._journaled[0].live:
            self._forget(self._journaled.popleft())
        while self._journaled and not self._journaled[-1].live:  # so that one old message does not hide it
            self._forget(self._journaled.pop())
        first = self._journaled[0].number if self._journaled else self.next_number
        while self._rows and not self._rows[0].live and self._rows[0].number < first:  # others can't be dropped yet
            block = self._rows.popleft()
            self._forget(block)
            self._stored_bytes -= block.size_bytes

    def _nearly_all_done(self) -> bool:
        """Whether what is needed of the journal file, if anything, lies at its end: a long queue was emptied."""
        first = self._journaled[0].position if self._journaled else self._journal.size_bytes
        return first >= (1 - MOVABLE_SHARE) * self._journal.size_bytes

    def _forget(self, block: Block) -> None:
        for number in (block.number, *block.merged):
            del self.blocks[number]

    # --- moving

    def _note_size(self) -> None:
        self.crowded = self.unsure or self._journal.size_bytes > self._look_at or self._stored_bytes > self._tidy_at

    def worth_moving(self) -> bool:
        """Whether to move now; if not, `crowded` is set again later."""
        if self.find is None:
            return False
        size = self._journal.size_bytes
        emptying = self.next_number - self._stored_in > FORGET_BLOCKS
        most = size * (EMPTYING_SHARE if emptying else MOVABLE_SHARE)
        if size > MAX_JOURNAL_BYTES or self._sparse() or (size > REWIND_BYTES and self._movable(most)):
            return True
        self.postpone()
        return False

    def mostly_done(self, most_bytes: int) -> bool:
        """Whether at most so many bytes of the journal file are needed, and more than as many again are not."""
        return self._journal.size_bytes > 2 * most_bytes and self._movable(most_bytes)

    def postpone(self) -> None:
        """Think of moving again when there is a quarter more."""
        self._look_at = self._journal.size_bytes + max(REWIND_BYTES, self._journal.size_bytes // 4)
        self._tidy_at = max(MIN_BYTES_TO_TIDY, self._stored_bytes * 5 // 4)
        self._note_size()

    def move_failed(self) -> None:
        """Don't think of moving before there is a quarter more, however little is needed."""
        self.postpone()
        self._not_before = self._look_at

    def _movable(self, most: float) -> bool:
        """Whether at most so many bytes of the journal file are needed. Where many are, a few blocks tell."""
        for block in reversed(self._journaled):
            most -= _live_bytes((block,))
            if most < 0:
                return False
        return True

    def _sparse(self) -> bool:
        """Whether less than half of what lies in the database is needed."""
        if self._stored_bytes <= MIN_BYTES_TO_TIDY:
            return False
        return 2 * _live_bytes(self._rows) < self._stored_bytes

    def _to_move(self) -> list[Block]:
        """The journal file's blocks, and perhaps the oldest rows before them, in the order of the log."""
        chosen = list(self._journaled)
        room = TIDY_BYTES if self._sparse() else 0
        for block in self._rows:
            if room <= 0:
                break
            room -= _live_bytes((block,))
            chosen.append(block)
        return sorted(chosen, key=_number)

    def _gathered(self, sources: list[Block]) -> Iterator[Row]:
        row = Row()
        for block in sources:
            if block.live == block.stored > 0 and not block.mixed:
                row.add(block, self._data_of(block))
            elif block.live and (copies := self._copies_of(block)):
                row.add_copies(block, copies)
            if row.block.size_bytes >= ROW_BYTES:
                yield row
                row = Row()
        if row.pieces:
            yield row

    def _copies_of(self, block: Block) -> list[tuple[Record, bytes]]:
        """New entries for what is still needed of a block."""
        assert self.find is not None
        copies: list[tuple[Record, bytes]] = []
        for entry in entries.read(self._data_of(block)):
            record = self.find(entry.mailbox, entry.number) if isinstance(entry, entries.Stored) else None
            if record is not None and self.blocks.get(record.journal_place) is block:
                copied = entries.stored(entry.mailbox, record, entries.message_bytes(record.message))
                copies.append((record, copied))
        return copies

    def _data_of(self, block: Block) -> bytes:
        if not _stored(block):
            return self._journal.read(block.number, block.position, block.size_bytes)
        rows = self._database.execute("SELECT crc, data FROM blocks WHERE id = ?", (block.number,))
        crc, data = rows.fetchone() or (None, b"")
        if crc32(data) != crc:
            raise UnreadableBlock(f"block {block.number} was written to the database, and now reads differently")
        return bytes(data)

    def _moved(self, sources: list[Block], rows: list[Row]) -> None:
        """The transaction is done: the rows stand for the blocks that they were made of."""
        gone = {block.number for block in sources}
        for block in sources:
            self._forget(block)
        for row in rows:
            self.blocks.update(dict.fromkeys(row.merged | {row.block.number}, row.block))
            row.block.merged = tuple(row.merged - {row.block.number})
            for record in row.copied:
                record.journal_place = row.block.number
        left = [block for block in self._rows if block.number not in gone] + [row.block for row in rows]
        self._rows = deque(sorted(left, key=_number))
        self._journaled.clear()
        self._stored_bytes = sum(block.size_bytes for block in left)
        self._look_at, self._tidy_at = REWIND_BYTES, max(MIN_BYTES_TO_TIDY, self._stored_bytes * 5 // 4)
        self._not_before = REWIND_BYTES
        self.superseded.clear()


def _stored(block: Block) -> bool:
    return block.position == IN_DATABASE


def _number(block: Block) -> int:
    return block.number


def _live_bytes(blocks: Iterable[Block]) -> int:
    return sum(block.size_bytes * block.live // max(1, block.stored) for block in blocks)
