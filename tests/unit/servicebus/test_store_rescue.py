"""Rescue of damaged data directories where that meets trouble itself: full disks, odd rows, hostile bytes."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stored_engines import Clock, Running, message, spoil_a_table, texts

from fusebus.servicebus.store import DataDirectoryInUse, Store, database, journal_file, marks


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less to copy at each crash than the megabytes that are usual."""
    monkeypatch.setattr("fusebus.servicebus.store.journal_file.MAPPED_BYTES", 64 << 10)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path / "data", Clock())
    yield made
    made.store.close()


def fill(running: Running, count: int, start: int = 0) -> None:
    if not start:
        running.engine.namespace.create_queue("q")
    for index in range(start, start + count):
        running.engine.send("q", [message(f"{index} " + "x" * 2000)])
        running.store.commit()


def test_of_a_database_that_was_cut_while_its_log_held_more_the_rest_is_kept(running: Running) -> None:
    fill(running, 300)
    running.store.checkpoint()
    fill(running, 10, start=300)
    running.engine.namespace.create_queue("later")  # in the write-ahead log
    running.store.commit()

    def cut(directory: Path) -> None:
        path = directory / database.FILE_NAME
        os.truncate(path, path.stat().st_size * 3 // 4)

    again = running.crash(cut)
    found = texts(again.engine, "q")
    assert len(found) > 100
    assert set(found) <= set(texts(running.engine, "q"))
    assert any("set aside" in complaint for complaint in again.complaints)
    assert again.crash().complaints == []


def test_a_rescue_without_room_changes_nothing_and_says_so(running: Running) -> None:
    fill(running, 300)
    running.store.checkpoint()
    aside = running.directory.with_name("aside")
    shutil.copytree(running.directory, aside)
    spoil_a_table(aside)
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(OSError, match="cannot be"):
            Store(aside, reserve_bytes=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
    again = Running(aside, running.clock)
    assert len(texts(again.engine, "q")) == 300
    again.store.close()


def test_what_an_interrupted_rescue_left_is_not_taken_up_again(running: Running) -> None:
    fill(running, 30)
    running.store.checkpoint()

    def interrupt(directory: Path) -> None:
        spoil_a_table(directory)
        for suffix in (".salvaged", ".salvaged-journal"):
            (directory / (database.FILE_NAME + suffix)).write_bytes(b"half of it")

    again = running.crash(interrupt)
    assert len(texts(again.engine, "q")) == 30
    assert list(again.directory.glob("*.salvaged*")) == []
    assert again.crash().complaints == []


def test_a_second_broker_touches_nothing(running: Running) -> None:
    fill(running, 3)
    (running.directory / (database.FILE_NAME + ".salvaged")).touch()  # what a rescue is about to put in place
    with pytest.raises(DataDirectoryInUse):
        Store(running.directory)
    assert (running.directory / (database.FILE_NAME + ".salvaged")).exists()


class Unsure:
    """A database whose next COMMIT is done and then said to have failed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._armed = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        done = self._connection.execute(sql, parameters)
        if sql == "COMMIT" and self._armed:
            self._armed = False
            raise sqlite3.OperationalError("disk I/O error")
        return done


def test_after_a_commit_of_which_nobody_knows_nothing_is_lost(running: Running) -> None:
    fill(running, 5)
    running.store._log._database = Unsure(running.store._log._database)  # type: ignore[assignment]
    running.store.checkpoint()
    fill(running, 5, start=5)
    again = running.crash()
    assert len(texts(again.engine, "q")) == 10
    assert again.complaints == []


def test_bytes_that_look_like_blocks_cost_nothing_to_pass_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []
    real = journal_file.crc32

    def counting(data: bytes, start: int = 0) -> int:
        checked.append(len(data))
        return real(data, start)

    journal = journal_file.JournalFile(tmp_path, synchronous=False)
    journal.append(1, journal_file.MAGIC * 5000)
    journal.append(2, b"last")
    spoilt = bytearray(journal.path.read_bytes())
    spoilt[journal_file._HEAD_BYTES] ^= 1
    journal.path.write_bytes(spoilt)
    monkeypatch.setattr(journal_file, "crc32", counting)
    complaints: list[str] = []
    assert [number for number, _, _ in journal.recover(complaints, journal_file.Pass(journal.now.id, 0))] == [2]
    assert len(checked) <= 4
    assert len(complaints) == 1
    journal.close()


def test_room_that_could_be_had_only_in_part_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def partly(file: int, size_bytes: int) -> None:
        os.truncate(file, size_bytes // 2)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal_file, "allocate", partly)
    journal = journal_file.JournalFile(tmp_path, synchronous=False)
    assert journal.path.stat().st_size == 0
    journal.append(1, b"by a system call")
    assert journal.path.stat().st_size == journal.size_bytes
    journal.close()


def test_numbers_that_are_none_are_left_out_and_said(running: Running) -> None:
    fill(running, 3)
    running.store.checkpoint()

    def spoil(directory: Path) -> None:
        with sqlite3.connect(directory / database.FILE_NAME) as found:
            found.execute("INSERT OR REPLACE INTO numbers VALUES (12345, 'x')")
        found.close()

    again = running.crash(spoil)
    assert len(texts(again.engine, "q")) == 3
    assert any("hold no numbers" in complaint for complaint in again.complaints)


@pytest.mark.parametrize("bit", [3, 24, 40, 63])
def test_a_damaged_mark_of_the_last_commit_is_said_and_harmless(running: Running, bit: int) -> None:
    fill(running, 3)

    def spoil(directory: Path) -> None:
        path = directory / marks.COMMIT_FILE
        data = bytearray(path.read_bytes())
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)

    again = running.crash(spoil)
    assert len(texts(again.engine, "q")) == 3
    assert any("last commit" in complaint for complaint in again.complaints)
    fill(again, 2, start=3)
    assert again.crash().complaints == []
