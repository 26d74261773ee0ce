"""The durable store: what a new broker finds after a crash, whatever happened to the files."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored_engines import Clock, Running, message, texts, token

from fusebus.servicebus.amqp.codec import encode
from fusebus.servicebus.amqp.sections import Outer
from fusebus.servicebus.amqp.types import Encoded, Symbol, UInt
from fusebus.servicebus.engine import (
    CorrelationFilter,
    Engine,
    EngineError,
    MessageState,
    QueueSettings,
    Rule,
    SqlFilter,
    SubscriptionSettings,
    TopicSettings,
)
from fusebus.servicebus.wire_messages import engine_message


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path / "data", Clock())
    yield made
    made.store.close()


def test_what_was_committed_is_there_and_what_was_not_is_not(running: Running) -> None:
    running.engine.namespace.create_queue("q")
    running.engine.send("q", [message("a"), message("b")])
    assert running.store.commit()
    running.engine.send("q", [message("c")])
    again = running.crash()
    assert texts(again.engine, "q") == ["a", "b"]
    assert again.complaints == []


def test_a_message_comes_back_as_it_was_sent(running: Running) -> None:
    running.engine.namespace.create_queue("q", QueueSettings(ttl_seconds=1000))
    running.engine.send("q", [message("a", ttl_seconds=600.0, annotations={"own": 7})])
    running.store.commit()
    (before,), (after,) = running.engine.peek("q", 0, 9), running.crash().engine.peek("q", 0, 9)
    assert after.message.raw == before.message.raw
    assert after.message.ttl_seconds == 600.0
    assert (after.enqueued_at, after.expires_at) == (before.enqueued_at, before.expires_at)
    assert list(after.message.annotations) == ["own"]


@pytest.mark.parametrize("ttl_seconds", [None, 600.0])
def test_what_a_sender_put_around_a_message_comes_back_too(running: Running, ttl_seconds: float | None) -> None:
    outer = Outer(False, 0, True, {Symbol("own"): Encoded(encode("x" * 300))})
    running.engine.namespace.create_queue("q")
    running.engine.send("q", [message("a", outer=outer, ttl_seconds=ttl_seconds)])
    running.engine.send("q", [message("b", outer=Outer(priority=9), annotations={"own": 7})])
    running.store.commit()
    found = [delivery.message for delivery in running.crash().engine.peek("q", 0, 9)]
    assert [one.outer for one in found] == [outer, Outer(priority=9)]
    assert [one.ttl_seconds for one in found] == [ttl_seconds, None]
    assert list(found[1].annotations) == ["own"]


def test_entries_of_before_with_nothing_but_a_time_to_live_are_still_read() -> None:
    short = b"\x00\x53\x70" + encode([None, None, UInt(5000)]) + message("a").raw
    found = engine_message(short)
    assert (found.ttl_seconds, found.outer, found.raw) == (5.0, None, message("a").raw)


def test_topology_comes_back_with_rules_and_times(running: Running) -> None:
    space = running.engine.namespace
    settings_ = SubscriptionSettings(lock_seconds=7, max_delivery_count=3)
    space.create_queue("q", QueueSettings(requires_session=True, ttl_seconds=math.inf, user_metadata="m"))
    space.create_topic("t", TopicSettings(duplicate_detection_seconds=60))
    space.create_subscription("t", "s", settings_, [Rule("big", SqlFilter("size > 3 AND name LIKE 'a%'"))])
    space.create_rule("t", "s", Rule("label", CorrelationFilter(subject="x", properties={"kind": 1, "on": True})))
    space.create_queue("gone")
    space.delete_queue("gone")
    running.clock.time += 50
    running.store.commit()
    found = running.crash().engine.namespace
    assert [queue.path for queue in found.queues()] == ["q"]
    assert found.queue("q").settings == space.queue("q").settings
    assert found.queue("q").created_at == space.queue("q").created_at
    assert found.topic("t").settings == space.topic("t").settings
    assert found.subscription("t", "s").settings == settings_
    assert found.rules("t", "s") == space.rules("t", "s")


def test_settlements_survive_and_locks_do_not(running: Running) -> None:
    engine = running.engine
    engine.namespace.create_queue("q", QueueSettings(max_delivery_count=5))
    engine.send("q", [message(text) for text in ("done", "again", "later", "dead", "locked")])
    done, again, later, dead, _ = engine.receive("q", 5)
    engine.complete("q", token(done))
    engine.abandon("q", token(again), {"why": "tired"})
    engine.defer("q", token(later))
    engine.dead_letter("q", token(dead), "bad", "it is bad")
    running.store.commit()
    found = running.crash().engine
    assert texts(found, "q") == ["again", "later", "locked"]
    by_id = {delivery.message.message_id: delivery for delivery in found.peek("q", 0, 9)}
    assert by_id["again"].delivery_count == 1
    assert by_id["again"].modified_properties == {"why": "tired"}
    assert by_id["later"].state is MessageState.DEFERRED
    assert [delivery.message.message_id for delivery in found.receive("q", 9)] == ["again", "locked"]
    (buried,) = found.peek("q/$DeadLetterQueue", 0, 9)
    assert buried.modified_properties["DeadLetterReason"] == "bad"
    assert buried.dead_letter_source == "q"
    (taken,) = found.receive_deferred("q", [by_id["later"].sequence_number])
    assert taken.message.message_id == "later"


def test_all_that_happens_to_a_message_within_one_commit_is_kept_in_its_order(running: Running) -> None:
    for queue in ("a", "b"):
        running.engine.namespace.create_queue(queue)
    running.engine.send("a", [message("gone"), message("buried"), message("deferred")])
    gone, buried, deferred = running.engine.receive("a", 3)
    running.engine.complete("a", token(gone))
    running.engine.dead_letter("a", token(buried), {"DeadLetterReason": "r"})
    running.engine.defer("a", token(deferred))
    running.engine.send("b", [message("other")])
    running.engine.send("a", [message("last")])
    running.store.commit()
    again = running.crash()
    assert again.complaints == []
    assert [(each.message.message_id, each.state) for each in again.engine.peek("a", 0, 9)] == [
        ("deferred", MessageState.DEFERRED),
        ("last", MessageState.ACTIVE),
    ]
    assert texts(again.engine, "a/$DeadLetterQueue") == ["buried"]
    assert texts(again.engine, "b") == ["other"]


def test_scheduled_messages_wait_on_and_arrive_late_rather_than_never(running: Running) -> None:
    running.engine.namespace.create_queue("q")
    running.engine.send("q", [message("soon", scheduled_enqueue_time=running.clock.time + 10)])
    running.store.commit()
    again = running.crash()
    assert again.engine.counts("q").scheduled == 1
    running.clock.time += 60
    assert [delivery.message.message_id for delivery in again.engine.receive("q", 1)] == ["soon"]


def test_duplicates_are_known_after_a_restart(running: Running) -> None:
    running.engine.namespace.create_queue("q", QueueSettings(duplicate_detection_seconds=60))
    running.engine.send("q", [message("once")])
    running.store.commit()
    again = running.crash()
    again.engine.send("q", [message("once")])
    assert texts(again.engine, "q") == ["once"]
    running.clock.time += 61
    again.engine.send("q", [message("once")])
    assert texts(again.engine, "q") == ["once", "once"]


def test_session_state_survives(running: Running) -> None:
    running.engine.namespace.create_queue("q", QueueSettings(requires_session=True))
    running.engine.accept_session("q", "s", lambda delivery: None)
    running.engine.set_session_state("q", "s", b"\x00state")
    running.store.commit()
    again = running.crash().engine
    again.accept_session("q", "s", lambda delivery: None)
    assert again.session_state("q", "s") == b"\x00state"


def test_sequence_numbers_never_repeat_even_when_nothing_is_left(running: Running) -> None:
    running.engine.namespace.create_queue("q")
    seen: set[int] = set()
    current = running
    for _ in range(5):
        numbers = current.engine.send("q", [message("x"), message("y")])
        assert not seen & set(numbers)
        seen.update(numbers)
        for delivery in current.engine.receive("q", 2):
            current.engine.complete("q", token(delivery))
        current.store.commit()
        current = current.crash()


def test_a_topic_keeps_its_numbers_too(running: Running) -> None:
    running.engine.namespace.create_topic("t")
    (first,) = running.engine.send("t", [message("nobody takes it")])
    running.store.commit()
    (second,) = running.crash().engine.send("t", [message("either")])
    assert second > first


def test_copies_for_several_subscriptions_share_their_bytes(running: Running) -> None:
    space = running.engine.namespace
    space.create_topic("t")
    for name in ("a", "b", "c"):
        space.create_subscription("t", name)
    running.engine.send("t", [message("m" * 10_000)])
    running.store.commit()
    assert running.store.log_bytes < 25_000
    found = running.crash().engine
    assert all(len(texts(found, f"t/Subscriptions/{name}")) == 1 for name in ("a", "b", "c"))


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less to copy at each crash than the megabytes that are usual."""
    monkeypatch.setattr("fusebus.servicebus.store.journal_file.MAPPED_BYTES", 64 << 10)


def test_what_left_the_log_without_a_new_pass_of_the_journal_is_no_damage(running: Running) -> None:
    running.engine.namespace.create_queue("q")
    for index in range(100):
        running.engine.send("q", [message(f"gone {index}")])
        running.store.commit()
        for delivery in running.engine.receive("q", 9):
            running.engine.complete("q", token(delivery))
        running.store.commit()
    running.engine.namespace.create_queue("another")  # written to the database, with what the log no longer needs
    running.store.commit()
    running.engine.send("q", [message("last")])
    running.store.commit()
    again = running.crash()
    assert again.complaints == []
    assert texts(again.engine, "q") == ["last"]


def test_deleting_an_entity_takes_its_messages_and_state(running: Running) -> None:
    running.engine.namespace.create_queue("q")
    running.engine.send("q", [message("a")])
    running.store.commit()
    running.engine.namespace.delete_queue("q")
    running.engine.namespace.create_queue("q")
    running.store.commit()
    again = running.crash()
    assert texts(again.engine, "q") == []
    assert again.complaints == []


# --- anything in any order

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "send",
                "send",
                "schedule",
                "complete",
                "abandon",
                "defer",
                "dead-letter",
                "wait",
                "commit",
                "delete",
                "restart",
            ]
        ),
        st.integers(0, 2),
    ),
    max_size=40,
)


SMALL = {"REWIND_BYTES": 100, "MAX_JOURNAL_BYTES": 1000, "ROW_BYTES": 200, "MIN_BYTES_TO_TIDY": 500, "TIDY_BYTES": 300}


@pytest.mark.parametrize("sizes", [{}, SMALL, {**SMALL, "MAX_JOURNAL_BYTES": -1}], ids=["usual", "small", "moving"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_a_restored_engine_shows_what_the_old_one_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: dict[str, int], actions: list[tuple[str, int]]
) -> None:
    for name, value in sizes.items():
        monkeypatch.setattr(f"fusebus.servicebus.store.log.{name}", value)
    running = Running(tmp_path / uuid.uuid4().hex, Clock())
    create(running.engine)
    for number, (action, which) in enumerate(actions):
        if action in ("commit", "restart"):
            running.store.commit()
            if which == 0:
                running.store.checkpoint()
            if action == "restart":
                running = restarted(running)
        else:
            act(running, action, which, number)
            if sizes:
                running.store.commit()
    running.store.commit()
    restarted(running).store.close()


def restarted(running: Running) -> Running:
    """As it is after a crash; nothing committed is missing."""
    again = running.crash()
    assert again.complaints == []
    assert shown(again.engine) == shown(running.engine)
    running.store.close()
    return again


PATHS = ("q", "t/Subscriptions/s", "q/$DeadLetterQueue")


def create(engine: Engine) -> None:
    if "q" not in [queue.path for queue in engine.namespace.queues()]:
        engine.namespace.create_queue("q", QueueSettings(lock_seconds=20, max_delivery_count=2, ttl_seconds=200))
    if not engine.namespace.topics():
        engine.namespace.create_topic("t")
        engine.namespace.create_subscription("t", "s", SubscriptionSettings(forward_to="q"))


def act(running: Running, action: str, which: int, number: int) -> None:
    engine = running.engine
    if action == "wait":
        running.clock.time += (1, 25, 300)[which]
        engine.tick()
    elif action == "delete":
        engine.namespace.delete_queue("q") if which == 0 else engine.namespace.delete_topic("t")
        create(engine)
    elif action in ("send", "schedule"):
        due = running.clock.time + 30 if action == "schedule" else None
        engine.send(("q", "t", "q")[which], [message(f"m{number}", scheduled_enqueue_time=due), message(f"n{number}")])
    else:
        settle(engine, PATHS[which], action)


def settle(engine: Engine, path: str, action: str) -> None:
    try:
        for delivery in engine.receive(path, 1):
            {
                "complete": lambda given: engine.complete(path, given),
                "abandon": lambda given: engine.abandon(path, given, {"n": 1}),
                "defer": lambda given: engine.defer(path, given),
                "dead-letter": lambda given: engine.dead_letter(path, given, "why"),
            }[action](token(delivery))
    except EngineError:
        return


def shown(engine: Engine) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in PATHS:
        found[path] = [
            (
                delivery.message.message_id,
                delivery.sequence_number,
                delivery.enqueued_sequence_number,
                delivery.delivery_count,
                delivery.state,
                dict(delivery.modified_properties),
                delivery.dead_letter_source,
                delivery.enqueued_at,
                delivery.expires_at,
            )
            for delivery in engine.peek(path, 0, 1000)
        ]
    return found
