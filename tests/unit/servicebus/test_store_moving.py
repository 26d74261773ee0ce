"""When messages move from the journal into the database, and the journal begins anew: nothing is lost or comes back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from stored_engines import Clock, Running, message, texts, token

from fusebus.servicebus.engine import QueueSettings
from fusebus.servicebus.store.log import FORGET_BLOCKS


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less to copy at each crash than the megabytes that are usual."""
    monkeypatch.setattr("fusebus.servicebus.store.journal_file.MAPPED_BYTES", 64 << 10)


@pytest.fixture
def cramped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Moves messages into the database, and tidies there, at once."""
    for name, size in (("REWIND", 20_000), ("MAX_JOURNAL", 100_000), ("ROW", 10_000)):
        monkeypatch.setattr(f"fusebus.servicebus.store.log.{name}_BYTES", size)
    monkeypatch.setattr("fusebus.servicebus.store.log.MIN_BYTES_TO_TIDY", 200_000)
    monkeypatch.setattr("fusebus.servicebus.store.journal_file.MAPPED_BYTES", 16 << 10)
    made = Running(tmp_path / "data", Clock())
    yield made
    made.store.close()


def fill(running: Running, messages: int, size: int = 500) -> None:
    """The queue `q`, with one commit for each message."""
    running.engine.namespace.create_queue("q")
    for index in range(messages):
        running.engine.send("q", [message(f"{index} " + "x" * size)])
        running.store.commit()


def send_after(running: Running) -> None:
    """One more message, after which only that is left in `q` and the journal has begun anew."""
    running.engine.send("q", [message("after")])
    running.store.commit()
    assert running.store.log_bytes < 2_000
    assert texts(running.crash().engine, "q") == ["after"]


def test_the_log_stays_short_while_old_messages_remain(cramped: Running) -> None:
    cramped.engine.namespace.create_queue("q")
    cramped.engine.namespace.create_queue("old")
    for index in range(300):
        cramped.engine.send("q", [message("x" * 500 + str(number)) for number in range(20)])
        if index % 10 == 0:
            cramped.engine.send("old", [message(f"keep {index}")])
        cramped.store.commit()
        for delivery in cramped.engine.receive("q", 20):
            cramped.engine.complete("q", token(delivery))
        cramped.store.commit()
    assert cramped.store.log_bytes < 300_000
    again = cramped.crash()
    assert texts(again.engine, "old") == [f"keep {index}" for index in range(0, 300, 10)]
    assert texts(again.engine, "q") == []


def test_a_long_queue_moves_to_the_database_and_drains_from_there(cramped: Running) -> None:
    cramped.engine.namespace.create_queue("q", QueueSettings(max_delivery_count=9))
    names = [f"{number} " + "x" * 500 for number in range(1500)]
    for start in range(0, 1500, 10):
        cramped.engine.send("q", [message(name) for name in names[start : start + 10]])
        cramped.store.commit()
    assert texts(cramped.crash().engine, "q") == names
    for index, delivery in enumerate(cramped.engine.receive("q", 1400)):
        (cramped.engine.complete if index % 7 else cramped.engine.abandon)("q", token(delivery))
        if index % 5 == 0:
            cramped.store.commit()
    cramped.store.commit()
    assert cramped.store.log_bytes < 600_000
    again = cramped.crash()
    assert texts(again.engine, "q") == texts(cramped.engine, "q") == names[:1400:7] + names[1400:]
    assert again.engine.peek("q", 0, 1)[0].delivery_count == 1
    assert again.complaints == []


def test_the_journal_file_is_written_over_and_not_made_longer(cramped: Running) -> None:
    cramped.engine.namespace.create_queue("q")
    for index in range(500):
        cramped.engine.send("q", [message(f"{index} " + "x" * 500)])
        cramped.store.commit()
        (delivery,) = cramped.engine.receive("q", 1)
        if index % 100:
            cramped.engine.complete("q", token(delivery))
        cramped.store.commit()
        if index % 50 == 0:
            again = cramped.crash()
            assert texts(again.engine, "q") == texts(cramped.engine, "q")
            assert again.complaints == []
    assert (cramped.directory / "journal").stat().st_size < 30_000


def test_the_journal_begins_anew_soon_after_a_long_queue_was_emptied(cramped: Running) -> None:
    fill(cramped, 130)  # looked at on the way, and far from the next look
    assert cramped.store.log_bytes > 80_000
    for delivery in cramped.engine.receive("q", 130):
        cramped.engine.complete("q", token(delivery))
    cramped.store.commit()
    for index in range(FORGET_BLOCKS + 1):
        cramped.engine.send("q", [message(f"after {index}")])
        cramped.store.commit()
        cramped.engine.complete("q", token(cramped.engine.receive("q", 1)[0]))
    cramped.store.commit()
    assert cramped.store.log_bytes < 20_000
    assert texts(cramped.crash().engine, "q") == []


def test_the_journal_begins_anew_with_the_next_message_after_its_queue_was_emptied_in_one_go(cramped: Running) -> None:
    fill(cramped, 130)
    for delivery in cramped.engine.receive("q", 130):
        cramped.engine.complete("q", token(delivery))
    cramped.store.commit()
    send_after(cramped)


def test_the_last_of_a_queue_that_is_only_emptied_never_go_to_the_database(
    cramped: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusebus.servicebus.store.log.MAX_JOURNAL_BYTES", 1_000_000)
    monkeypatch.setattr("fusebus.servicebus.store.log.FORGET_BLOCKS", 2)
    fill(cramped, 200, size=1000)
    size = cramped.store.log_bytes
    deliveries = cramped.engine.receive("q", 200)
    for delivery in deliveries[:196]:  # a fiftieth of the journal is then needed
        cramped.engine.complete("q", token(delivery))
        cramped.store.commit()
        assert cramped.store.log_bytes > size // 2
    for delivery in deliveries[196:]:
        cramped.engine.complete("q", token(delivery))
    cramped.store.commit()
    send_after(cramped)


def test_the_journal_begins_anew_though_one_old_message_lies_at_its_front(cramped: Running) -> None:
    cramped.engine.namespace.create_queue("old")
    cramped.engine.send("old", [message("old")])
    fill(cramped, 100, size=200)
    for delivery in cramped.engine.receive("q", 100):
        cramped.engine.complete("q", token(delivery))
        cramped.store.commit()
    send_after(cramped)
    assert texts(cramped.crash().engine, "old") == ["old"]


def test_what_was_changed_before_a_restart_and_completed_after_it_stays_away(cramped: Running) -> None:
    """The database has it as it was, and only the journal knew better."""
    cramped.engine.namespace.create_queue("q")
    cramped.engine.send("q", [message("done"), message("stays")])
    cramped.store.commit()
    cramped.store.checkpoint()
    cramped.engine.abandon("q", token(cramped.engine.receive("q", 1)[0]))
    cramped.store.commit()
    again = cramped.crash()
    again.engine.complete("q", token(again.engine.receive("q", 1)[0]))
    again.store.commit()
    again.store.checkpoint()
    assert texts(again.crash().engine, "q") == ["stays"]


class Liar:
    """A connection to the database of which some COMMITs are reported as failed though they were not."""

    def __init__(self, real: sqlite3.Connection, lies: int) -> None:
        self.real, self.lies = real, lies

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)

    def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
        done = self.real.execute(sql, *parameters)
        if sql == "COMMIT" and self.lies:
            self.lies -= 1
            raise sqlite3.OperationalError("disk I/O error")
        return done


def test_a_move_that_is_reported_as_failed_and_was_not_brings_nothing_back(cramped: Running) -> None:
    cramped.engine.namespace.create_queue("q")
    cramped.engine.send("q", [message("done"), message("stays")])
    cramped.store.commit()
    cramped.store.checkpoint()
    for index in range(50):
        cramped.engine.send("q", [message(f"{index} " + "x" * 500)])
        cramped.store.commit()
    done, _, *others = cramped.engine.receive("q", 52)
    for delivery in (done, *others):
        cramped.engine.complete("q", token(delivery))
    cramped.engine.send("q", [message("new")])
    cramped.store.commit()
    cramped.store._log._database = liar = Liar(cramped.store._log._database, 1)  # type: ignore[assignment]
    cramped.store._log.crowded = True
    cramped.engine.send("q", [message("next")])
    assert cramped.store.commit()
    assert liar.lies == 0
    assert texts(cramped.crash().engine, "q") == ["stays", "new", "next"]


def test_a_change_that_is_reported_as_failed_and_was_not_hides_nothing_of_what_follows(
    cramped: Running,
) -> None:
    cramped.engine.namespace.create_queue("q")
    cramped.store.commit()
    cramped.store._log._database = Liar(cramped.store._log._database, 2)  # type: ignore[assignment]
    cramped.engine.namespace.create_queue("another")  # nothing of the log goes with it
    assert not cramped.store.commit()
    cramped.store._log.crowded = True
    cramped.store._log.worth_moving = lambda: True  # type: ignore[method-assign]
    cramped.store.retry()
    cramped.engine.send("q", [message("kept")])
    assert cramped.store.commit()
    assert texts(cramped.crash().engine, "q") == ["kept"]


def test_while_nobody_can_say_whether_a_move_was_written_nothing_is(cramped: Running) -> None:
    class Silent(Liar):
        def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
            if sql.startswith("SELECT last FROM numbers"):
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(sql, *parameters)

    cramped.engine.namespace.create_queue("q")
    cramped.engine.send("q", [message("kept")])
    cramped.store.commit()
    cramped.store._log._database = Silent(cramped.store._log._database, 1)  # type: ignore[assignment]
    cramped.store.checkpoint()
    cramped.engine.send("q", [message("refused")])
    assert not cramped.store.commit()
    assert "restart the broker" in str(cramped.store.refusal)
    assert texts(cramped.crash().engine, "q") == ["kept"]


def test_moves_that_fail_are_not_tried_again_at_each_commit(
    cramped: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cramped.engine.namespace.create_queue("q")
    cramped.store.commit()
    monkeypatch.setattr(cramped.store._log, "_gathered", failing)
    for index in range(400):
        cramped.engine.send("q", [message(f"{index} " + "x" * 100)])
        cramped.store.commit()
        cramped.engine.complete("q", token(cramped.engine.receive("q", 1)[0]))
        assert cramped.store.commit()
    assert 1 <= caplog.text.count("cannot be moved") < 10


def failing(_: object) -> NoReturn:
    raise OSError("disk I/O error")


@pytest.mark.parametrize("cleanly", [True, False])
def test_numbers_go_on_after_all_messages_have_left_the_log(cramped: Running, cleanly: bool) -> None:
    cramped.engine.namespace.create_queue("q")
    for _ in range(100):
        (last,) = cramped.engine.send("q", [message("x" * 1000)])
        for delivery in cramped.engine.receive("q", 9):
            cramped.engine.complete("q", token(delivery))
        cramped.store.commit()
    if cleanly:
        cramped.store.checkpoint()
    (number,) = cramped.crash().engine.send("q", [message("next")])
    assert number == last + 1
