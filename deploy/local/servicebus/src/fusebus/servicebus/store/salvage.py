"""Puts what could be read of damaged files into new ones, in such an order that a crash on the way loses none of it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final
from zlib import crc32

from fusebus.servicebus.store import entries
from fusebus.servicebus.store.database import Sync, opened
from fusebus.servicebus.store.log import ROW_BYTES
from fusebus.servicebus.store.marks import sync_names
from fusebus.servicebus.store.recovery import DROPPED, REWOUND, Recovered

_LOG_SUFFIXES: Final = ("-wal", "-shm")


def salvage(path: Path, journal: Path, recovered: Recovered, first_block: int) -> Path:
    """Replaces the database by a new one with what was read, and empties `recovered` of its messages.

    Returns where the damaged files are now. The old database is renamed only when the new one is whole: before that a
    crash leaves everything as it was, after it `finish` goes on. Raises OSError where there is no room for it.
    """
    made = _made(path)
    _remove(made)
    try:
        database = opened(made, Sync.POWER, mode="DELETE")  # one file: nothing of it is left in a log beside it
        try:
            _fill(database, recovered, first_block)
        finally:
            database.close()
    except sqlite3.Error as error:
        raise OSError(f"what could be read of the damaged {path} cannot be written to {made}: {error}") from error
    sync_names(path.parent)
    aside = _set_aside(path, journal)
    made.rename(path)
    return aside


def finish(path: Path, journal: Path) -> str | None:
    """Ends what a crash interrupted; returns what there is to say of it."""
    made = _made(path)
    if path.exists() or not made.exists():
        _remove(made)
        return None
    aside = _set_aside(path, journal)
    made.rename(path)
    return f"an interrupted rescue of damaged files was completed; they are beside {aside.name}"


def _made(path: Path) -> Path:
    return path.with_name(path.name + ".salvaged")


def _remove(made: Path) -> None:
    """With what SQLite left beside it when it was interrupted."""
    for suffix in ("-journal", ""):
        made.with_name(made.name + suffix).unlink(missing_ok=True)


def _set_aside(path: Path, journal: Path) -> Path:
    """Renames what is there of a damaged database (first), its log and the journal; returns the new path."""
    name = f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"
    names = (path.with_name(name + (f"-{number}" if number else "")) for number in count())
    aside = next(each for each in names if not list(path.parent.glob(each.name + "*")))
    moves = [(path, aside)]
    moves += [(path.with_name(path.name + each), aside.with_name(aside.name + each)) for each in _LOG_SUFFIXES]
    for source, destination in [*moves, (journal, aside.with_name(aside.name + ".journal"))]:
        if source.exists():
            source.rename(destination)
    return aside


def _fill(database: sqlite3.Connection, recovered: Recovered, first_block: int) -> None:
    """In one transaction."""
    database.execute("BEGIN IMMEDIATE")
    for name, rows in recovered.tables.items():
        refused = _insert(database, name, rows)
        if refused:
            recovered.complaints.append(f"table {name}: {refused} rows hold what cannot be kept, and are left out")
    last = first_block - 1
    for last, row in enumerate(_rows(recovered), first_block):
        _insert(database, "blocks", [(last, crc32(row), row)])
    numbers = recovered.last_numbers | {DROPPED: first_block - 1, REWOUND: last}
    _insert(database, "numbers", numbers.items())
    database.execute("COMMIT")


def _insert(database: sqlite3.Connection, table: str, rows: Iterable[tuple[Any, ...]]) -> int:
    """Returns how many the table refused: damage may read like anything."""
    refused = 0
    for row in rows:
        places = ", ".join("?" * len(row))
        try:
            database.execute(f"INSERT OR REPLACE INTO {table} VALUES ({places})", row)  # noqa: S608 - our own names
        except sqlite3.IntegrityError:
            refused += 1
    return refused


def _rows(recovered: Recovered) -> Iterator[bytes]:
    pieces: list[bytes] = []
    size = 0
    for entry in _messages(recovered):
        pieces.append(entry.encoded())
        size += len(pieces[-1])
        if size >= ROW_BYTES:
            yield b"".join(pieces)
            pieces, size = [], 0
    if pieces:
        yield b"".join(pieces)


def _messages(recovered: Recovered) -> Iterator[entries.Stored]:
    while recovered.live:
        _, mailbox = recovered.live.popitem()
        for number in sorted(mailbox):
            yield mailbox.pop(number)[1]
