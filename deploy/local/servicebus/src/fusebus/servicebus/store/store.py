"""The durable journal: buffers what the engine says and writes it in one transaction per turn of the event loop."""

from __future__ import annotations

import logging
import sqlite3
import time
import zlib
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from fusebus.servicebus.engine.engine import Engine
from fusebus.servicebus.engine.messages import Message
from fusebus.servicebus.engine.records import Record
from fusebus.servicebus.store import entries, journal_file
from fusebus.servicebus.store.database import FILE_NAME, Sync, opened, set_aside, unfinished_frames, write_tables
from fusebus.servicebus.store.journal_file import JournalFile
from fusebus.servicebus.store.marks import CommitMark, Reserve
from fusebus.servicebus.store.recovery import DROPPED, IN_DATABASE, Block, Recovered, recover
from fusebus.servicebus.store.tables import TablesJournal

logger = logging.getLogger(__name__)

DEFAULT_RESERVE_BYTES: Final = 16 << 20  # more than one turn of the loop ever takes in from ordinary clients
RETRY_SECONDS: Final = 0.5  # between attempts to write while the disk is full
MIN_LOG_BYTES_TO_TIDY: Final = 32 << 20
MAX_JOURNAL_BYTES: Final = 64 << 20  # then what is still needed of it moves into the database
MIN_BLOCKS_TO_DROP: Final = 64  # dropping costs statements; a few finished blocks can wait
TIDY_FACTOR: Final = 2  # what tidying may write, as a multiple of what the turn itself writes

FindRecord = Callable[[int, int], Record | None]


class Store(TablesJournal):
    """Implements engine.Journal. Between `commit` calls everything is in memory only.

    A commit is one block of the log. Blocks that come alone are appended to the journal file, those that come with
    changes to the tables go into the database in the same transaction; when the journal file is long, what is still
    needed of it follows. Most messages are gone by then. Blocks are dropped from the old end on, so whatever an entry
    refers to is older and, if it is needed, still there.

    `refusal` says why nothing may be sent now, None if all is well.
    """

    def __init__(
        self,
        directory: Path,
        sync: Sync = Sync.PROCESS,
        reserve_bytes: int = DEFAULT_RESERVE_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Opens or makes the files. Raises DataDirectoryInUse, UnknownFormat, OSError."""
        super().__init__()
        directory.mkdir(parents=True, exist_ok=True)
        self.refusal: str | None = None
        self.on_pending: Callable[[], None] | None = None
        """Called when something is to be committed after a time when nothing was."""
        self._directory = directory
        self._path = directory / FILE_NAME
        self._sync = sync
        self._clock = clock
        self._mark = CommitMark(directory)
        self._reserve = Reserve(directory, reserve_bytes)
        self._pending: list[bytes] = []
        self._numbers: dict[int, int] = {}
        self._numbers_since_drop: dict[int, int] = {}
        self._finished = self._dropped = 0  # the last block that is no longer needed, and that was deleted
        self._last_message: Message | None = None
        self._current = Block(1, 0, 0, 0)
        self._blocks: dict[int, Block] = {}
        self._order: deque[Block] = deque()
        self._log_bytes = self._stored_entries = self._live_entries = 0
        self._moved: list[Record] = []
        self._find: FindRecord | None = None
        self._database: sqlite3.Connection | None = None
        self._retry_at = 0.0
        self._failed_quietly = False
        self._recovered = self._open()

    # --- opening

    def _open(self) -> Recovered:
        complaints: list[str] = []
        try:
            self._database = opened(self._path, self._sync)
            complaints = self._unfinished()
            self._journal = self._open_journal()
            recovered = recover(self._database, self._journal, self._mark.block)
        except sqlite3.DatabaseError as error:
            recovered = self._start_anew(Recovered(complaints=[f"{self._path.name}: {error}"]))
        else:
            if recovered.damaged:
                recovered = self._start_anew(recovered)
            else:
                self._adopt(recovered)
            recovered.complaints[:0] = complaints
        if not self._reserve.take():
            self._note_full("no room for the reserve")
        for complaint in recovered.complaints:
            logger.warning("%s", complaint)
        return recovered

    def _open_journal(self) -> JournalFile:
        return JournalFile(self._directory, self._sync is Sync.POWER)

    def _unfinished(self) -> list[str]:
        assert self._database is not None
        frames = unfinished_frames(self._path, self._database)
        if not frames:
            return []
        return [f"the last commit was cut off: {frames} pages of it are dropped (nothing in it had been acknowledged)"]

    def _start_anew(self, recovered: Recovered) -> Recovered:
        """Move what could be read into a new database and keep the damaged one aside."""
        if self._database is not None:
            self._database.close()
        aside = set_aside(self._path, self._directory / journal_file.FILE_NAME)
        recovered.complaints.append(f"the damaged files were set aside as {aside.name}; what could be read was kept")
        self._database = opened(self._path, self._sync)
        self._journal = self._open_journal()
        self._current.number = max(recovered.next_block, self._mark.block + 1)
        write_tables(self._database, recovered.tables)
        for mailbox in recovered.live.values():
            for number, (_, entry) in list(mailbox.items()):
                mailbox[number] = (self._current.number, entry)
                self._pending.append(entry.encoded())
                self._current.stored += 1
                self._current.live += 1
        self._numbers.update(recovered.last_numbers)
        self.commit()
        return recovered

    def _adopt(self, recovered: Recovered) -> None:
        """Take up the log where it ends."""
        self._finished = self._dropped = recovered.dropped
        self._current.number = max(recovered.next_block, self._mark.block + 1)
        live = recovered.live_by_block()
        for number, size in recovered.blocks.items():
            block = Block(number, size.size_bytes, size.stored, live.get(number, 0), size.position)
            self._blocks[number] = block
            self._order.append(block)
            self._log_bytes += size.size_bytes
            self._stored_entries += size.stored
        self._live_entries = sum(live.values())
        self._numbers_since_drop.update(recovered.last_numbers)

    def restore(self, engine: Engine) -> list[str]:
        """Fill an empty engine with what is stored, and listen to it from now on.

        Returns what could not be kept, one sentence each; an empty list means that everything was.
        """
        recovered, self._recovered = self._recovered, Recovered()
        complaints = recovered.complaints + engine.restore(recovered.snapshot())
        engine.set_journal(self)
        self._find = engine.find_record
        return complaints

    def close(self) -> None:
        """Writes what is left and closes the files."""
        if self.commit():
            self.checkpoint()
        assert self._database is not None
        self._database.close()
        self._journal.close()
        self._mark.close()

    # --- engine.Journal: messages

    def message_stored(self, mailbox_id: int, record: Record) -> None:
        if not self._pending:
            self._wake()
        block, message = self._current, record.message
        record.journal_place = block.number
        block.stored += 1
        block.live += 1
        same, self._last_message = message is self._last_message, message
        if same or record.modified or record.dead_letter_source is not None:
            self._pending.append(entries.stored(mailbox_id, record, None if same else entries.message_bytes(message)))
            return
        body = message.raw
        if message.ttl_seconds is not None or message.annotations:
            body = entries.message_bytes(message)
        head = entries.stored_head(
            entries.STORED,
            mailbox_id,
            record.sequence_number,
            record.enqueued_sequence_number,
            record.enqueued_at,
            record.expires_at,
            record.delivery_count,
            record.state,
            record.hops,
            0,
            len(body),
        )
        self._pending += (head, body)  # not put together: one copy less

    def message_changed(self, mailbox_id: int, record: Record) -> None:
        self._forget(record.journal_place)
        self.message_stored(mailbox_id, record)

    def message_removed(self, mailbox_id: int, record: Record) -> None:
        if not self._pending:
            self._wake()
        self._pending.append(entries.short(entries.REMOVED, mailbox_id, record.sequence_number))
        self._forget(record.journal_place)

    def numbers_taken(self, mailbox_id: int, last: int) -> None:
        if not self._numbers:
            self._wake()
        self._numbers[mailbox_id] = last

    def _forget(self, place: int) -> None:
        block = self._current if place == self._current.number else self._blocks.get(place)
        if block is not None:
            block.live -= 1
            self._live_entries -= 1

    # --- writing

    def _wake(self) -> None:
        self._failed_quietly = False
        if self.on_pending is not None and not (self._pending or self._statements or self._numbers):
            self.on_pending()

    @property
    def log_bytes(self) -> int:
        """What the log holds at the moment, finished blocks not yet dropped included."""
        return self._log_bytes

    def checkpoint(self) -> None:
        """Moves everything that was committed and is still needed into the database's own file."""
        if self.pending:
            return
        assert self._database is not None
        with suppress(sqlite3.Error, OSError):  # it is safe where it is, too
            self._to_database(None, moving=True)
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @property
    def pending(self) -> bool:
        """Whether something is not committed yet."""
        return bool(self._pending or self._statements or self._numbers)

    def commit(self) -> bool:
        """Writes what is pending. False: it could not be written, so nothing that rests on it may be confirmed.

        It stays pending, and is tried again when something is added, or after RETRY_SECONDS.
        """
        if not (self._pending or self._statements or self._numbers):
            return True
        if self._failed_quietly and self._clock() < self._retry_at:
            return True  # nothing new rests on what failed: whoever waited for it was told
        error = self._try_write()
        if error is not None and self.refusal is None:
            self._reserve.give_up()
            self._note_full(str(error))
            error = self._try_write()
        if error is not None:
            self._note_full(str(error))
            self._failed_quietly, self._retry_at = True, self._clock() + RETRY_SECONDS
        return error is None

    def retry(self) -> None:
        """Called now and then while `refusal` is set: tries to write, and to have the reserve again."""
        self._failed_quietly = False
        if self.commit() and self._reserve.take():
            self.refusal = None
            logger.warning("the disk has room again: messages are taken")

    def _note_full(self, reason: str) -> None:
        if self.refusal is None:
            logger.error("nothing can be written to %s: %s; sends are refused", self._path.parent, reason)
            self.refusal = f"the broker's disk is full or cannot be written ({reason}); nothing can be sent for now"

    def _try_write(self) -> Exception | None:
        data = b"".join(self._pending)
        if self._numbers:
            data += b"".join(entries.short(entries.NUMBERED, *taken) for taken in self._numbers.items())
        if self._log_bytes > MIN_LOG_BYTES_TO_TIDY and self._live_entries * 2 < self._stored_entries:
            data += self._copies_of_old(TIDY_FACTOR * len(data))
        try:
            if self._statements or self._journal.size_bytes > MAX_JOURNAL_BYTES:
                self._to_database(data, moving=self._journal.size_bytes > MAX_JOURNAL_BYTES)
            else:
                self._current.position = self._journal.append(self._current.number, data)
        except (sqlite3.Error, OSError) as error:
            assert self._database is not None
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            self._moved.clear()
            return error
        self._committed(len(data))
        return None

    def _to_database(self, data: bytes | None, moving: bool) -> None:
        """Writes a block with the changes to the tables; `moving`: also what is still needed of the journal file."""
        assert self._database is not None
        execute = self._database.execute
        moved = [block for block in self._order if block.position != IN_DATABASE] if moving else []
        dropping = moving or self._finished - self._dropped >= MIN_BLOCKS_TO_DROP
        execute("BEGIN IMMEDIATE")
        for sql, parameters in self._statements:
            execute(sql, parameters)
        for block in moved:
            self._insert(block.number, self._journal.read(block.position, block.size_bytes))
        if data is not None:
            self._insert(self._current.number, data)
        if dropping:
            execute("DELETE FROM blocks WHERE id <= ?", (self._finished,))
            numbers = self._numbers_since_drop | self._numbers | {DROPPED: self._finished}
            self._database.executemany("INSERT OR REPLACE INTO numbers VALUES (?, ?)", numbers.items())
        execute("COMMIT")
        if dropping:
            self._dropped = self._finished
            self._numbers_since_drop.clear()
        for block in moved:
            block.position = IN_DATABASE
        if moving:
            self._journal.clear()

    def _insert(self, number: int, data: bytes) -> None:
        assert self._database is not None
        self._database.execute("INSERT OR REPLACE INTO blocks VALUES (?, ?, ?)", (number, zlib.crc32(data), data))

    def _committed(self, size: int) -> None:
        block = self._current
        self._mark.set(block.number)
        if self._moved:
            self._take_up_moved(block)
        block.size_bytes = size
        self._blocks[block.number] = block
        self._order.append(block)
        self._log_bytes += size
        self._stored_entries += block.stored
        self._live_entries += block.stored  # those removed since are counted already
        self._current = Block(block.number + 1, 0, 0, 0)
        self._pending, self._last_message = [], None
        if self._numbers:
            self._numbers_since_drop.update(self._numbers)
            self._numbers = {}
        if self._statements:
            self._statements = []
        if not self._order[0].live:
            self._forget_finished()

    def _take_up_moved(self, block: Block) -> None:
        for record in self._moved:
            self._forget(record.journal_place)
            record.journal_place = block.number
            block.stored += 1
            block.live += 1
        self._moved = []

    # --- the log's old end

    def _forget_finished(self) -> None:
        """The oldest blocks, of which nothing is needed any more, can be deleted when that is convenient."""
        while self._order and not self._order[0].live:
            block = self._order.popleft()
            del self._blocks[block.number]
            self._finished = block.number
            self._log_bytes -= block.size_bytes
            self._stored_entries -= block.stored

    def _copies_of_old(self, budget_bytes: int) -> bytes:
        """New entries for what is still needed of the oldest blocks, so that these can be dropped."""
        copies: list[bytes] = []
        for block in self._order:
            if budget_bytes <= 0:
                break
            if block.live:
                copies += self._copies_of(block)
                budget_bytes -= block.size_bytes * block.live // max(1, block.stored)
        return b"".join(copies)

    def _copies_of(self, block: Block) -> list[bytes]:
        assert self._find is not None
        copies: list[bytes] = []
        for entry in entries.read(self._data_of(block)):
            record = self._find(entry.mailbox, entry.number) if isinstance(entry, entries.Stored) else None
            if record is not None and record.journal_place == block.number:
                copies.append(entries.stored(entry.mailbox, record, entries.message_bytes(record.message)))
                self._moved.append(record)
        if not copies:
            self._live_entries -= block.live  # of entities that were deleted whole
            block.live = 0
        return copies

    def _data_of(self, block: Block) -> bytes:
        if block.position != IN_DATABASE:
            return self._journal.read(block.position, block.size_bytes)
        assert self._database is not None
        found: tuple[bytes] = self._database.execute("SELECT data FROM blocks WHERE id = ?", (block.number,)).fetchone()
        return found[0]
