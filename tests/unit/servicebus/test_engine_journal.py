"""What a journal hears is enough to rebuild the engine, and nothing that is not durable is in it."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any
from uuid import UUID

import pytest

from fusebus.servicebus.engine import (
    Delivery,
    DuplicateImage,
    Engine,
    EntityImage,
    Message,
    MessageNotFound,
    MessageState,
    QueueSettings,
    QuotaExceeded,
    Record,
    Rule,
    SessionImage,
    Snapshot,
    SqlFilter,
    SubscriptionSettings,
    TopicSettings,
)
from fusebus.servicebus.engine.memory_journal import MemoryJournal

START = 1_000.0


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@pytest.fixture
def new_engine(clock: Clock, journal: MemoryJournal) -> Callable[[], Engine]:
    numbers = count(1)

    def make() -> Engine:
        engine = Engine(clock, new_token=lambda: UUID(int=next(numbers)), journal=journal)
        assert engine.restore(journal.snapshot()) == []
        return engine

    return make


@pytest.fixture
def engine(new_engine: Callable[[], Engine]) -> Engine:
    return new_engine()


def one(engine: Engine, path: str = "q") -> Delivery:
    (delivery,) = engine.receive(path, 1)
    return delivery


def token_of(delivery: Delivery) -> UUID:
    assert delivery.lock_token is not None
    return delivery.lock_token


def test_topology_comes_back_with_rules_and_times(
    engine: Engine, new_engine: Callable[[], Engine], clock: Clock
) -> None:
    namespace = engine.namespace
    namespace.create_queue("Q", QueueSettings(lock_seconds=5))
    namespace.create_topic("t", TopicSettings(ttl_seconds=7))
    namespace.create_subscription("t", "S", SubscriptionSettings(max_delivery_count=3), [Rule("one"), Rule("two")])
    namespace.create_queue("gone")
    clock.now += 5
    namespace = engine.namespace  # at the present instant
    namespace.update_queue("q", QueueSettings(lock_seconds=6, forward_to="t"))
    namespace.create_rule("t", "s", Rule("three", SqlFilter("a = 1")))
    namespace.delete_rule("t", "s", "ONE")
    namespace.delete_queue("gone")
    again = new_engine().namespace
    (queue,) = again.queues()
    assert (queue.path, queue.settings.lock_seconds, queue.settings.forward_to) == ("Q", 6, "t")
    assert (queue.created_at, queue.updated_at) == (START, START + 5)
    assert again.topic("t").settings.ttl_seconds == 7
    assert again.subscription("t", "s").settings.max_delivery_count == 3
    assert [(rule.name, rule.created_at) for rule in again.rules("t", "s")] == [("three", START + 5), ("two", START)]
    assert again.create_queue("new").id not in {queue.id, again.topic("t").id, again.subscription("t", "s").id}


def test_messages_come_back_in_every_state_without_their_locks(
    engine: Engine, new_engine: Callable[[], Engine], clock: Clock
) -> None:
    engine.namespace.create_queue("q", QueueSettings(lock_seconds=10, max_delivery_count=9))
    names = ("locked", "abandoned", "deferred", "dead", "done", "ready")
    engine.send("q", [Message(name.encode(), ttl_seconds=500) for name in names])
    (scheduled,) = engine.send("q", [Message(b"scheduled", scheduled_enqueue_time=START + 60)])
    _, abandoned, deferred, dead, done = engine.receive("q", 5)
    engine.abandon("q", token_of(abandoned), {"why": 1})
    engine.defer("q", token_of(deferred))
    engine.dead_letter("q", token_of(dead), "Bad")
    engine.complete("q", token_of(done))
    again = new_engine()
    found = again.peek("q", 1, 99)
    assert [(f.message.raw, f.delivery_count, f.state, f.lock_token, f.expires_at - START) for f in found[:-1]] == [
        (b"locked", 0, MessageState.ACTIVE, None, 500),
        (b"abandoned", 1, MessageState.ACTIVE, None, 500),
        (b"deferred", 1, MessageState.DEFERRED, None, 500),
        (b"ready", 0, MessageState.ACTIVE, None, 500),
    ]
    assert found[1].modified_properties == {"why": 1}
    assert (found[-1].sequence_number, found[-1].state) == (scheduled, MessageState.SCHEDULED)
    assert again.peek("q/$DeadLetterQueue", 1, 9)[0].modified_properties["DeadLetterReason"] == "Bad"
    assert again.held_bytes == engine.held_bytes
    assert [f.message.raw for f in again.receive("q", 9)] == [b"locked", b"abandoned", b"ready"]
    (again_deferred,) = again.receive_deferred("q", [deferred.sequence_number])
    again.complete("q", token_of(again_deferred))
    clock.now += 60
    assert one(again).message.raw == b"locked"  # its new lock expired; "scheduled" is due behind it
    assert again.counts("q").scheduled == 0


def test_numbers_never_repeat(engine: Engine, new_engine: Callable[[], Engine]) -> None:
    engine.namespace.create_queue("q")
    engine.namespace.create_topic("t")
    assert engine.send("q", [Message(b"1"), Message(b"2")]) == [1, 2]
    assert engine.send("t", [Message(b"1")]) == [1]
    for delivery in engine.receive("q", 2):
        engine.complete("q", token_of(delivery))
    again = new_engine()
    assert again.send("q", [Message(b"3")]) == [3]
    assert again.send("t", [Message(b"2")]) == [2]


def test_what_became_due_in_between_happens_and_is_kept(
    engine: Engine, new_engine: Callable[[], Engine], clock: Clock
) -> None:
    engine.namespace.create_queue("q", QueueSettings(dead_letter_on_expiry=True))
    engine.send("q", [Message(b"old", ttl_seconds=5), Message(b"due", scheduled_enqueue_time=START + 5)])
    clock.now += 100
    new_engine().tick()
    again = new_engine()
    assert [found.message.raw for found in again.peek("q", 1, 9)] == [b"due"]
    assert [found.message.raw for found in again.peek("q/$DeadLetterQueue", 1, 9)] == [b"old"]


def test_duplicates_are_known_after_a_restart_as_long_as_before(
    engine: Engine, new_engine: Callable[[], Engine], clock: Clock
) -> None:
    engine.namespace.create_queue("q", QueueSettings(duplicate_detection_seconds=60))
    engine.send("q", [Message(b"1", message_id="x")])
    clock.now += 30
    engine.send("q", [Message(b"2", message_id="y")])
    again = new_engine()
    again.send("q", [Message(b"again", message_id="x"), Message(b"again", message_id="y")])
    assert again.counts("q").active == 2
    clock.now += 30
    again.send("q", [Message(b"new", message_id="x")])
    assert new_engine().counts("q").active == 3
    third = new_engine()
    assert third.send("q", [Message(b"again", message_id="y")]) == [2]


def test_sessions_come_back_with_state_and_free(engine: Engine, new_engine: Callable[[], Engine]) -> None:
    engine.namespace.create_queue("q", QueueSettings(requires_session=True))
    engine.send("q", [Message(b"1", session_id="a"), Message(b"2", session_id="b")])
    for session_id, state in (("a", b"x"), ("empty", b""), ("cleared", b"y")):
        engine.accept_session("q", session_id, lambda found: None)
        engine.set_session_state("q", session_id, state)
    engine.set_session_state("q", "cleared", None)
    again = new_engine()
    assert sorted(again.list_sessions("q")) == ["a", "b", "empty"]
    got: list[Delivery] = []
    again.accept_session("q", "a", got.append).set_credit(9)
    assert again.session_state("q", "a") == b"x"
    assert [found.message.raw for found in got] == [b"1"]


def test_a_purge_and_a_recreated_name_leave_nothing_behind(engine: Engine, new_engine: Callable[[], Engine]) -> None:
    engine.namespace.create_queue("q", QueueSettings(duplicate_detection_seconds=60))
    engine.send("q", [Message(b"1", message_id="x")])
    engine.purge("q")
    assert new_engine().counts("q").total == 0
    engine.namespace.delete_queue("q")
    engine.namespace.create_queue("q", QueueSettings(duplicate_detection_seconds=60))
    assert new_engine().send("q", [Message(b"1", message_id="x")]) == [1]


def test_hops_and_sources_survive(engine: Engine, new_engine: Callable[[], Engine]) -> None:
    engine.namespace.create_queue("end")
    engine.namespace.create_queue("q", QueueSettings(forward_dead_lettered_to="end"))
    engine.send("q", [Message(b"1")])
    engine.dead_letter("q", token_of(one(engine)), "Bad")
    (found,) = new_engine().peek("end", 1, 9)
    assert (found.dead_letter_source, found.enqueued_sequence_number) == ("q", 1)
    (record,) = (record for number, record in engine._core.journal.snapshot().records)  # type: ignore[union-attr]
    assert record.hops == 1


def test_a_journal_that_is_full_refuses_sends_and_nothing_else(engine: Engine, journal: MemoryJournal) -> None:
    engine.namespace.create_queue("q")
    engine.send("q", [Message(b"1")])
    journal.refusal = "The disk is full."
    with pytest.raises(QuotaExceeded, match="disk"):
        engine.send("q", [Message(b"2")])
    engine.complete("q", token_of(one(engine)))
    journal.refusal = None
    engine.send("q", [Message(b"3")])


def test_what_a_damaged_snapshot_cannot_say_is_reported(clock: Clock) -> None:
    def records() -> Iterator[tuple[int, Record]]:
        for mailbox_id, number in ((4, 2), (4, 1), (99, 1), (5, 1)):
            yield mailbox_id, Record(Message(b"x"), START, sequence_number=number)

    def image(number: int, path: str, settings: Any) -> EntityImage:
        return EntityImage(number, path, settings, START, START)

    engine = Engine(clock)
    problems = engine.restore(
        Snapshot(
            entities=[image(4, "q", QueueSettings()), image(8, "t/Subscriptions/s", SubscriptionSettings())],
            rules=[(8, Rule("lost"))],
            last_numbers={4: 7, 99: 1},
            sessions=[SessionImage(4, "a", b"x", START)],
            records=records(),
            duplicates=[DuplicateImage(4, "x", 1, START)],
        )
    )
    assert [sentence.split(" (")[0].split(":")[0] for sentence in problems] == [
        "The entity 't/Subscriptions/s'",
        "The rule 'lost' belongs to no subscription",
        "The session 'a' has no entity",
        "q",
        "The message 1 has no mailbox",
    ]
    assert (engine.counts("q").active, engine.counts("q").dead_letter) == (1, 1)
    assert engine.send("q", [Message(b"y")]) == [8]


def test_only_an_empty_engine_is_restored(engine: Engine) -> None:
    engine.namespace.create_queue("q")
    with pytest.raises(ValueError, match="without entities"):
        engine.restore(Snapshot())


def test_a_record_is_found_by_its_place(engine: Engine) -> None:
    queue = engine.namespace.create_queue("q")
    (number,) = engine.send("q", [Message(b"1")])
    record = engine.find_record(queue.id, number)
    assert record is not None
    assert record.message.raw == b"1"
    assert engine.find_record(queue.id, 9) is engine.find_record(99, 1) is None
    with pytest.raises(MessageNotFound):
        engine.cancel_scheduled("q", [number])
