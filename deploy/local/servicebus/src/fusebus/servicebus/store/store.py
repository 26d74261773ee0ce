"""The durable journal: buffers what the engine says and writes it in one transaction per turn of the event loop."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from fusebus.servicebus.engine.engine import Engine
from fusebus.servicebus.engine.messages import Message
from fusebus.servicebus.engine.records import Record
from fusebus.servicebus.store import entries, journal_file
from fusebus.servicebus.store.database import FILE_NAME, Sync, opened, raise_unless_damaged, unfinished_frames
from fusebus.servicebus.store.journal_file import JournalFile
from fusebus.servicebus.store.log import Log
from fusebus.servicebus.store.marks import CommitMark, Lock, Reserve, sync_names
from fusebus.servicebus.store.recovery import IN_DATABASE, Recovered, recover
from fusebus.servicebus.store.salvage import finish, salvage
from fusebus.servicebus.store.tables import TablesJournal

logger = logging.getLogger(__name__)

DEFAULT_RESERVE_BYTES: Final = 16 << 20  # more than one turn of the loop ever takes in from ordinary clients
RETRY_SECONDS: Final = 0.5  # between attempts to write while the disk is full
_short, _stored_head, _REMOVED, _STORED = entries.short, entries.stored_head, entries.REMOVED, entries.STORED


class Store(TablesJournal):
    """Implements engine.Journal. Between `commit` calls everything is in memory only; a commit is one block of the log.

    `refusal` says why nothing may be sent now, None if all is well.
    """

    def __init__(
        self,
        directory: Path,
        sync: Sync = Sync.PROCESS,
        reserve_bytes: int = DEFAULT_RESERVE_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Opens or makes the files. Raises DataDirectoryInUse, UnknownFormat, OSError (a full disk, for one)."""
        super().__init__()
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(directory)
        self.refusal: str | None = None
        self._directory = directory
        self._path = directory / FILE_NAME
        self._sync = sync
        self._clock = clock
        self._mark = CommitMark(directory)
        self._reserve, self._reserve_bytes = Reserve(directory, reserve_bytes), reserve_bytes
        self._pending: list[bytes] = []
        self._numbers: dict[int, int] = {}
        self._last_message: Message | None = None
        self._new_records: list[Record] = []
        """Of which entries are to be made, in the mailbox `_mailbox`."""
        self._mailbox = 0
        self._place, self._stored, self._live = 1, 0, 0  # of the block that is pending
        self._stored_pieces = 0
        """How many of `_pending` belong to entries that say that a message is there."""
        self._retry_at = 0.0
        self._failed: tuple[int, int, int] | None = None
        """What was pending when it last could not be written."""
        self._recovered = self._open()

    # --- opening

    def _open(self) -> Recovered:
        finished = finish(self._path, self._directory / journal_file.FILE_NAME)
        recovered = self._read()
        _tell(recovered.complaints)  # before anything is done about it
        if recovered.damaged:
            recovered = self._start_anew(recovered)
        self._log.adopt(recovered)
        self._place = self._log.next_number
        if self._sync is Sync.POWER:
            sync_names(self._directory)
        if finished is not None:
            _tell([finished])
            recovered.complaints.insert(0, finished)
        if not self._reserve.take():
            self._note_full("no room for the reserve")
        return recovered

    def _read(self) -> Recovered:
        self._database: sqlite3.Connection | None = None
        try:
            self._database = opened(self._path, self._sync)
            complaints = self._unfinished()
            self._open_log()
            recovered = recover(self._database, self._journal, self._mark.block)
        except sqlite3.DatabaseError as error:
            raise_unless_damaged(self._path, error)
            return Recovered(complaints=[f"{self._path.name}: {error}"], damaged=True)
        recovered.complaints[:0] = complaints
        return recovered

    def _open_log(self) -> None:
        assert self._database is not None
        self._journal = JournalFile(self._directory, self._sync is Sync.POWER)
        self._log = Log(self._database, self._journal, self._mark)
        self._blocks = self._log.blocks

    def _unfinished(self) -> list[str]:
        assert self._database is not None
        frames = unfinished_frames(self._path, self._database)
        if not frames:
            return []
        return [f"the last commit was cut off: {frames} pages of it are dropped (nothing in it had been acknowledged)"]

    def _start_anew(self, recovered: Recovered) -> Recovered:
        """Put what could be read into new files, set the damaged ones aside, and open the new ones."""
        if self._database is not None:
            self._database.close()
        if hasattr(self, "_journal"):
            self._journal.close()
        first = max(recovered.next_block, (self._mark.block or 0) + 1)
        known = len(recovered.complaints)
        aside = salvage(self._path, self._directory / journal_file.FILE_NAME, recovered, first)
        self._database = opened(self._path, self._sync)
        self._open_log()
        anew = recover(self._database, self._journal, self._mark.block)
        recovered.complaints.append(f"the damaged files were set aside as {aside.name}; what could be read was kept")
        _tell(recovered.complaints[known:] + anew.complaints)
        anew.complaints[:0] = recovered.complaints
        return anew

    def restore(self, engine: Engine) -> list[str]:
        """Fill an empty engine with what is stored, and listen to it from now on.

        Returns what could not be kept, one sentence each; an empty list means that everything was.
        """
        recovered, self._recovered = self._recovered, Recovered()
        complaints = recovered.complaints + engine.restore(recovered.snapshot())
        engine.set_journal(self)
        self._log.find, self._log.last_numbers = engine.find_record, engine.last_numbers
        if complaints:
            self.checkpoint()  # so that the next start does not find them again
        return complaints

    def close(self) -> None:
        """Writes what is left and closes the files."""
        if self.commit():
            self.checkpoint()
        self.abandon()

    def abandon(self) -> None:
        """Closes the files; what was not committed is forgotten."""
        assert self._database is not None
        self._database.close()
        self._journal.close()
        self._mark.close()
        self._lock.close()

    # --- engine.Journal: messages

    def message_stored(self, mailbox_id: int, record: Record) -> None:
        if not self.pending:
            self._note_pending()
        if mailbox_id != self._mailbox:
            self._encode()
            self._mailbox = mailbox_id
        record.journal_place = self._place
        self._new_records.append(record)

    def message_changed(self, mailbox_id: int, record: Record) -> None:
        self._forget(mailbox_id, record)
        self.message_stored(mailbox_id, record)

    def message_removed(self, mailbox_id: int, record: Record) -> None:
        if not self.pending:
            self._note_pending()
        block = self._blocks.get(record.journal_place)
        if block is None or block.position == IN_DATABASE:
            self._forget(mailbox_id, record)
        else:  # nearly always
            block.live -= 1
        self._pending.append(_short(_REMOVED, mailbox_id, record.sequence_number))

    def numbers_taken(self, mailbox_id: int, last: int) -> None:
        if not self.pending:
            self._note_pending()
        self._special = True
        self._numbers[mailbox_id] = last

    def _encode(self) -> None:
        """Makes entries of new records. That is done for many at once, and before anything else is said of one: until
        then it does not change."""
        pieces, previous = self._pending, self._last_message
        before = len(pieces)
        for record in self._new_records:
            message = record.message
            if message is previous or record.modified or record.dead_letter_source is not None:
                body = None if message is previous else entries.message_bytes(message)
                pieces.append(entries.stored(self._mailbox, record, body))
            else:
                body = message.raw
                if message.ttl_seconds is not None or message.annotations or message.outer is not None:
                    body = entries.message_bytes(message)
                head = _stored_head(
                    _STORED,
                    self._mailbox,
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
                pieces += (head, body)  # not put together: one copy less
            previous = message
        self._last_message = previous
        self._stored += len(self._new_records)
        self._live += len(self._new_records)
        self._stored_pieces += len(pieces) - before
        self._new_records = []

    def _forget(self, mailbox_id: int, record: Record) -> None:
        """What the log says of it so far no longer holds."""
        place = record.journal_place
        if place == self._place:
            self._encode()
            self._live -= 1
        elif (block := self._blocks.get(place)) is not None:
            block.live -= 1
            if block.position == IN_DATABASE:
                self._log.superseded.append((mailbox_id, record.sequence_number))

    # --- writing

    @property
    def log_bytes(self) -> int:
        """What the log holds at the moment, finished blocks not yet dropped included."""
        return self._log.size_bytes

    def checkpoint(self) -> None:
        """Moves everything that was committed and is still needed into the database's own file."""
        if self.pending or self._log.find is None:
            return
        assert self._database is not None
        try:
            self._log.to_database(None, 0, 0, (), moving=True)
        except (sqlite3.Error, OSError):  # it is safe where it is, too
            self._roll_back()
            return
        self._place = self._log.next_number
        with suppress(sqlite3.Error, OSError):
            self._journal.give_back()
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def commit(self) -> bool:
        """Writes what is pending. False: it could not be written, so nothing that rests on it may be confirmed.

        It stays pending, and is tried again when something is added, or after RETRY_SECONDS.
        """
        if not self.pending:
            return True
        if self._new_records:
            self._encode()
        if self._special or self._log.crowded:
            return self._commit_with_care()
        pieces = self._pending
        mixed = len(pieces) != self._stored_pieces
        try:
            self._place = self._log.append(b"".join(pieces), self._stored, self._live, mixed)
        except OSError:
            return self._commit_with_care()
        self._start_block()
        return True

    def _start_block(self) -> None:
        self._pending = []
        self._last_message = None
        self._stored = self._live = self._stored_pieces = 0
        self.pending = False

    def _commit_with_care(self) -> bool:
        if self._failed == self._said() and self._clock() < self._retry_at:
            return True  # nothing new rests on what failed: whoever waited for it was told
        error = self._try_write()
        if error is not None and self.refusal is None:
            self._reserve.give_up()
            self._note_full(str(error))
            error = self._try_write()
        if error is None:
            self._failed, self._special = None, False
            self._place = self._log.next_number
            self._start_block()
            return True
        self._note_full(str(error))
        self._failed, self._special = self._said(), True
        self._retry_at = self._clock() + RETRY_SECONDS
        return False

    def _said(self) -> tuple[int, int, int]:
        """Grows with everything that is pending."""
        return len(self._pending), len(self._statements), len(self._numbers)

    def retry(self) -> None:
        """Called now and then while `refusal` is set: tries to write, and to have the reserve again."""
        self._retry_at = 0.0
        if not self.commit():
            return
        if not self._reserve.take() and self._log.mostly_done(self._reserve_bytes):
            self.checkpoint()  # what is needed fits in the reserve's room, and the journal gives its own back
        if self._reserve.take():
            self.refusal = None
            logger.warning("the disk has room again: messages are taken")

    def _note_full(self, reason: str) -> None:
        if self.refusal is None:
            logger.error("nothing can be written to %s: %s; sends are refused", self._path.parent, reason)
            self.refusal = f"the broker's disk is full or cannot be written ({reason}); nothing can be sent for now"

    def _try_write(self) -> Exception | None:
        """Writes everything in the way that it needs; returns why that is impossible."""
        self._pending += [_short(entries.NUMBERED, *taken) for taken in self._numbers.items()]
        self._numbers = {}
        data = b"".join(self._pending)
        moving = self._log.crowded and self._log.worth_moving()
        needed = bool(self._statements) or self._log.unsure
        error = self._try_database(data, moving) if needed or moving else None
        if error is not None and moving:  # there may be room for this block, if not for what is to be moved
            logger.warning("messages cannot be moved from the journal into the database for now: %s", error)
            self._log.move_failed()
            moving, needed = False, bool(self._statements) or self._log.unsure
            error = self._try_database(data, moving=False) if needed else None
        if error is None and not needed and not moving:
            try:
                self._log.append(data, self._stored, self._live, mixed=True)
            except OSError as failure:
                return failure
        if error is None:
            self._statements = []
        return error

    def _try_database(self, data: bytes, moving: bool) -> Exception | None:
        try:
            self._log.to_database(data, self._stored, self._live, self._statements, moving)
        except (sqlite3.Error, OSError) as error:
            self._roll_back()
            return error
        return None

    def _roll_back(self) -> None:
        assert self._database is not None
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")


def _tell(complaints: list[str]) -> None:
    for complaint in complaints:
        logger.warning("%s", complaint)
