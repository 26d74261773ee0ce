"""Cut and damaged data directories: what is reported, and what is kept."""

from __future__ import annotations

import random
import resource
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from stored_engines import Clock, Running, message, spoil_a_table, texts, token

from fusebus.servicebus.store import DataDirectoryInUse, Store, UnknownFormat, database, journal_file


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what these tests write, a part lies in the journal file's mapped beginning and a part behind it."""
    monkeypatch.setattr("fusebus.servicebus.store.journal_file.MAPPED_BYTES", 64 << 10)


@pytest.fixture
def unmapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is written by system calls, which can fail."""
    monkeypatch.setattr("fusebus.servicebus.store.journal_file.MAPPED_BYTES", 0)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path / "data", Clock())
    yield made
    made.store.close()


@pytest.fixture
def small_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """One commit in each row of the database."""
    monkeypatch.setattr("fusebus.servicebus.store.log.ROW_BYTES", 1)


def fill(running: Running, count: int = 50) -> None:
    running.engine.namespace.create_queue("q")
    for index in range(count):
        running.engine.send("q", [message(f"{index} " + "x" * 2000)])
        running.store.commit()


def test_a_cut_journal_is_reported_and_the_rest_is_kept(running: Running) -> None:
    fill(running)
    again = running.crash(lambda directory: cut(directory / journal_file.FILE_NAME))
    found = texts(again.engine, "q")
    assert 5 < len(found) < 50
    assert found == texts(running.engine, "q")[: len(found)]
    assert any("commits" in complaint and "missing" in complaint for complaint in again.complaints)
    again.engine.send("q", [message("next")])
    again.store.commit()
    third = again.crash()
    assert texts(third.engine, "q") == [*found, "next"]
    assert third.complaints == []


def test_a_cut_database_is_reported_though_the_journal_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REWIND_BYTES", "MAX_JOURNAL_BYTES"):
        monkeypatch.setattr(f"fusebus.servicebus.store.log.{name}", 3000)
    running = Running(tmp_path / "data", Clock())
    fill(running)
    again = running.crash(lambda directory: cut(directory / (database.FILE_NAME + "-wal")))
    found = texts(again.engine, "q")
    assert 5 < len(found) < 50
    assert set(found) <= set(texts(running.engine, "q"))
    assert any("commits" in complaint and "missing" in complaint for complaint in again.complaints)
    third = again.crash()
    assert texts(third.engine, "q") == found
    assert third.complaints == []
    running.store.close()


def cut(log: Path) -> None:
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size // 2)


def test_a_torn_commit_is_as_if_it_had_never_been(running: Running) -> None:
    fill(running, 3)

    def tear(directory: Path) -> None:
        with (directory / journal_file.FILE_NAME).open("ab") as file:
            file.write(journal_file.MAGIC + b"\x00" * 7)

    again = running.crash(tear)
    assert len(texts(again.engine, "q")) == 3
    assert again.complaints == []
    again.engine.send("q", [message("next")])
    again.store.commit()
    assert len(texts(again.crash().engine, "q")) == 4


def test_damage_within_the_journal_is_reported_and_the_others_are_kept(running: Running) -> None:
    fill(running)

    def spoil(directory: Path) -> None:
        path = directory / journal_file.FILE_NAME
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    again = running.crash(spoil)
    assert len(texts(again.engine, "q")) == 49
    assert any(complaint.startswith("journal:") for complaint in again.complaints)
    assert again.crash().complaints == []


@pytest.mark.usefixtures("small_rows")
def test_a_damaged_block_is_reported_and_the_others_are_kept(running: Running) -> None:
    fill(running)
    running.store.checkpoint()

    def spoil(directory: Path) -> None:
        path = directory / database.FILE_NAME
        with sqlite3.connect(path) as file:
            file.execute("UPDATE blocks SET data = zeroblob(300) WHERE id = 20")
        file.close()

    again = running.crash(spoil)
    assert len(texts(again.engine, "q")) == 49
    assert any("block 20" in complaint for complaint in again.complaints)
    assert list(again.directory.glob(database.FILE_NAME + ".damaged-*"))
    third = again.crash()
    assert texts(third.engine, "q") == texts(again.engine, "q")
    assert third.complaints == []


@pytest.mark.usefixtures("small_rows")
def test_flipped_pages_are_survived_and_reported(running: Running) -> None:
    fill(running, 200)
    running.store.checkpoint()
    chance = random.Random(5)

    def spoil(directory: Path) -> None:
        path = directory / database.FILE_NAME
        data = bytearray(path.read_bytes())
        for _ in range(6):
            page = chance.randrange(10, len(data) // database.PAGE_BYTES) * database.PAGE_BYTES
            data[page : page + 400] = chance.randbytes(400)
        path.write_bytes(data)

    again = running.crash(spoil)
    assert again.complaints
    found = texts(again.engine, "q")
    assert len(found) > 50
    assert set(found) <= set(texts(running.engine, "q"))
    again.engine.send("q", [message("new")])
    assert again.store.commit()
    assert texts(again.crash().engine, "q") == [*found, "new"]


@pytest.mark.parametrize("content", [b"", b"nonsense" * 2000, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / database.FILE_NAME).write_bytes(content)
    found = Running(tmp_path, Clock())
    found.engine.namespace.create_queue("q")
    assert found.store.commit()
    assert bool(found.complaints) == bool(content)
    found.store.close()


def test_two_brokers_do_not_share_a_directory(running: Running) -> None:
    with pytest.raises(DataDirectoryInUse):
        Store(running.directory)


def test_nothing_is_missed_after_restarts_without_a_commit(tmp_path: Path) -> None:
    for number in range(4):
        found = Running(tmp_path, Clock())
        assert found.complaints == []
        if number == 0:
            found.engine.namespace.create_queue("q")
        found.store.close()


def test_files_of_another_format_are_refused_with_a_sentence(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / database.FILE_NAME) as old:
        old.execute("PRAGMA user_version=1")
    old.close()
    with pytest.raises(UnknownFormat, match="has format 1, and this version reads format 3 only"):
        Store(tmp_path)


def test_nothing_is_confirmed_while_what_was_added_cannot_be_written(
    unmapped: None, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(running, 3)
    deliveries = running.engine.receive("q", 3)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fusebus.servicebus.store.journal_file.os.pwrite", full)
    running.engine.complete("q", token(deliveries[0]))
    assert not running.store.commit()
    assert running.store.commit(), "nobody waits for what was told to have failed"
    running.engine.complete("q", token(deliveries[1]))
    assert not running.store.commit()
    monkeypatch.undo()
    running.store.retry()
    assert not running.store.pending
    assert len(texts(running.crash().engine, "q")) == 1


def test_a_block_within_a_message_is_not_taken_for_one_of_the_journal(tmp_path: Path) -> None:
    for name in ("forger", "victim"):
        (tmp_path / name).mkdir()
    forger = journal_file.JournalFile(tmp_path / "forger", synchronous=False)
    forger.append(10_000, b"forged")
    forged = forger.path.read_bytes()[: forger.size_bytes]
    forger.close()
    journal = journal_file.JournalFile(tmp_path / "victim", synchronous=False)
    journal.append(1, b"first")
    journal.append(2, forged)
    end = journal.append(3, b"last") + len(b"last")
    spoilt = bytearray(journal.path.read_bytes())
    spoilt[len(b"first") * 2 + 60] ^= 1  # in the head of the second block: its data are searched for the next
    journal.path.write_bytes(spoilt)
    complaints: list[str] = []
    found = [(number, data) for number, _, data in journal.recover(complaints, journal_file.Pass(0, 0))]
    assert found == [(1, b"first"), (3, b"last")]
    assert journal.size_bytes == end
    assert len(complaints) == 1
    journal.close()


def test_what_does_not_come_back_as_it_was_written_is_not_moved(running: Running) -> None:
    fill(running, 3)
    path = running.directory / journal_file.FILE_NAME
    with path.open("r+b") as file:
        file.seek(3000)
        file.write(b"?" * 8)
    running.store.checkpoint()
    assert texts(running.engine, "q") == [f"{index} " + "x" * 2000 for index in range(3)]
    running.engine.send("q", [message("next")])
    assert running.store.commit()


@pytest.mark.parametrize("renamed", range(3))
def test_a_rescue_that_a_crash_interrupts_loses_nothing(
    running: Running, renamed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(running)
    running.store.checkpoint()
    running.engine.send("q", [message("in the journal")])
    running.store.commit()
    expected = texts(running.engine, "q")
    rename, done = Path.rename, []

    def crashing(source: Path, destination: Path) -> Path:
        if len(done) == renamed:
            raise KeyboardInterrupt
        done.append(destination)
        return rename(source, destination)

    aside = running.directory.with_name("aside")
    shutil.copytree(running.directory, aside)
    spoil_a_table(aside)
    monkeypatch.setattr(Path, "rename", crashing)
    with pytest.raises(KeyboardInterrupt):
        Running(aside, running.clock)
    monkeypatch.undo()
    monkeypatch.setattr(journal_file, "MAPPED_BYTES", 64 << 10)
    again = Running(aside, running.clock)
    assert texts(again.engine, "q") == expected
    assert len(list(aside.glob("*damaged*"))) >= 1
    assert again.crash().complaints == []
    again.store.close()


def test_a_full_disk_is_no_damage(running: Running) -> None:
    fill(running, 3)
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    aside = running.directory.with_name("aside")
    shutil.copytree(running.directory, aside)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        again = Running(aside, running.clock)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
    assert len(texts(again.engine, "q")) == 3
    assert list(aside.glob("*damaged*")) == []
    again.store.close()
    with pytest.raises(OSError, match="too large"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            Store(running.directory.with_name("new"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
