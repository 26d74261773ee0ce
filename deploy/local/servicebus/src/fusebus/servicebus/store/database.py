"""The SQLite file of a data directory: its tables, how they are opened, and how they are read when damaged."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Final
from zlib import crc32

from fusebus.servicebus.store.marks import DataDirectoryInUse

logger = logging.getLogger(__name__)

FILE_NAME: Final = "broker.sqlite3"
FORMAT: Final = 3  # raised when old files can no longer be read
PAGE_BYTES: Final = 8192  # measured: 4096 costs more for large blocks, 16384 for single messages
CHECKPOINT_PAGES: Final = 8192  # 64 MB: most messages are gone, and their pages used again, before they are copied
LARGEST_ID: Final = 2**63 - 1
DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
LOCKED: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entities(id INTEGER PRIMARY KEY, path TEXT NOT NULL, settings TEXT NOT NULL,
  created_at REAL NOT NULL, updated_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS rules(entity INTEGER NOT NULL, name TEXT NOT NULL COLLATE NOCASE, rule TEXT NOT NULL,
  PRIMARY KEY(entity, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions(mailbox INTEGER NOT NULL, session TEXT NOT NULL, state BLOB NOT NULL,
  updated_at REAL NOT NULL, PRIMARY KEY(mailbox, session)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS duplicates(entity INTEGER NOT NULL, seen_at REAL NOT NULL, key TEXT NOT NULL,
  number INTEGER NOT NULL, PRIMARY KEY(entity, seen_at, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS numbers(mailbox INTEGER PRIMARY KEY, last INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS blocks(id INTEGER PRIMARY KEY, crc INTEGER NOT NULL, data BLOB NOT NULL);
"""
TABLES: Final = ("entities", "rules", "sessions", "duplicates", "numbers")


class Sync(Enum):
    """Which crash an acknowledged message survives; the values are those of `--data-sync`."""

    PROCESS = "process"
    """The broker's own end, kill -9 included: the operating system has the bytes, the disk perhaps not yet."""
    POWER = "power"
    """The machine's end too: the disk is waited for at each commit."""


class UnknownFormat(OSError):
    """The files were written by a version that keeps them differently."""


def opened(path: Path, sync: Sync, *, mode: str = "WAL") -> sqlite3.Connection:
    """The database with all its tables, locked against other processes.

    Raises DataDirectoryInUse, UnknownFormat, sqlite3.DatabaseError if it is damaged or no database at all, and OSError
    if it cannot be opened for another reason: a full disk is no damage.
    """
    database = sqlite3.connect(path, isolation_level=None, timeout=0.0, check_same_thread=False)
    try:
        database.execute(f"PRAGMA page_size={PAGE_BYTES}")  # takes effect only on a new file
        database.execute("PRAGMA locking_mode=EXCLUSIVE")
        database.execute(f"PRAGMA journal_mode={mode}")
        database.execute(f"PRAGMA synchronous={'FULL' if sync is Sync.POWER else 'NORMAL'}")
        database.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        database.execute("PRAGMA temp_store=MEMORY")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, FORMAT):
            raise UnknownFormat(
                f"{path} has format {version}, and this version reads format {FORMAT} only:"
                " empty the directory by the version that wrote it, or take another"
            )
        if not version:  # a directory that is there needs no room to be opened
            database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={FORMAT}; COMMIT;")
    except sqlite3.DatabaseError as error:
        database.close()
        if error.sqlite_errorcode & 0xFF in LOCKED:
            raise DataDirectoryInUse(f"{path.parent} is in use by another broker") from error
        raise_unless_damaged(path, error)
        raise
    except BaseException:
        database.close()
        raise
    return database


def raise_unless_damaged(path: Path, error: sqlite3.DatabaseError) -> None:
    """Raises OSError for what says nothing of the file's content, such as a full disk."""
    if error.sqlite_errorcode & 0xFF not in DAMAGE:
        raise OSError(f"{path} cannot be opened: {error}") from error


def unfinished_frames(path: Path, database: sqlite3.Connection) -> int:
    """How many pages at the end of the write-ahead log SQLite passed over because they were not whole.

    An interrupted commit leaves some, and so does damage. Must be asked before anything else is written.
    """
    log = path.with_name(path.name + "-wal")
    try:
        data = log.read_bytes()
    except OSError:
        return 0
    page_bytes = int.from_bytes(data[8:12], "big")
    if len(data) < 32 or not page_bytes:
        return 0
    salts, frame_bytes = data[16:24], 24 + page_bytes
    written = sum(data[start + 8 : start + 16] == salts for start in range(32, len(data), frame_bytes))
    try:
        _, whole, _ = database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except sqlite3.DatabaseError:  # no room, or damage: SQLite passes over them all the same, but does not say how many
        return 0
    return max(0, written - max(0, int(whole)))


class Reader:
    """Reads table by table; what cannot be read is skipped and said in `complaints`."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self.complaints: list[str] = []
        self._database = database

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        """The rows of a table as far as they can be read."""
        found: list[tuple[Any, ...]] = []
        try:
            for row in self._database.execute(f"SELECT * FROM {table}"):  # noqa: S608 - our own names
                found.append(row)
        except sqlite3.DatabaseError as error:
            self.complaints.append(f"table {table}: {error}; {len(found)} rows before that were read")
        return found

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """(id, data) of every block that is whole, oldest first."""
        position, step = 0, 1
        while (found := self._next_block(position)) is not None:
            if isinstance(found, sqlite3.DatabaseError):
                if step == 1:
                    self.complaints.append(f"log: blocks after {position} cannot be read: {found}")
                if position + step > LARGEST_ID:
                    return
                position, step = position + step, step * 2
                continue
            position, crc, data = found
            step = 1
            if not isinstance(data, bytes) or crc32(data) != crc:
                self.complaints.append(f"log: block {position} is damaged and left out")
                continue
            yield position, data

    def _next_block(self, after: int) -> tuple[int, int, bytes] | sqlite3.DatabaseError | None:
        try:
            found: tuple[int, int, bytes] | None = self._database.execute(
                "SELECT id, crc, data FROM blocks WHERE id > ? ORDER BY id LIMIT 1", (after,)
            ).fetchone()
        except sqlite3.DatabaseError as error:
            return error
        return found
