"""Cut and damaged data directories: what is reported, and what is kept."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from stored_engines import Clock, Running, message, texts

from fusebus.servicebus.store import DataDirectoryInUse, Store, database, journal_file


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path / "data", Clock())
    yield made
    made.store.close()


def fill(running: Running, count: int = 50) -> None:
    running.engine.namespace.create_queue("q")
    for index in range(count):
        running.engine.send("q", [message(f"{index} " + "x" * 2000)])
        running.store.commit()


@pytest.mark.parametrize("name", [journal_file.FILE_NAME, database.FILE_NAME + "-wal"])
def test_a_cut_log_is_reported_and_the_rest_is_kept(
    running: Running, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name != journal_file.FILE_NAME:
        monkeypatch.setattr("fusebus.servicebus.store.store.MAX_JOURNAL_BYTES", -1)  # everything to the database
    fill(running)

    def cut(directory: Path) -> None:
        log = directory / name
        with log.open("r+b") as file:
            file.truncate(log.stat().st_size // 2)

    again = running.crash(cut)
    found = texts(again.engine, "q")
    assert 5 < len(found) < 50
    assert found == texts(running.engine, "q")[: len(found)]
    assert any("commits" in complaint and "missing" in complaint for complaint in again.complaints)


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
