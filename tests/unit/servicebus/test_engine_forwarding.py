"""Forwarding: where messages go, what they remember, and where they end when they cannot go there."""

import math
from itertools import count
from uuid import UUID

import pytest

from fusebus.servicebus.engine import (
    Engine,
    EngineError,
    EntityStatus,
    InvalidArgument,
    Message,
    NotAllowed,
    QueueSettings,
    SubscriptionSettings,
    TopicSettings,
)

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
def engine(clock: Clock) -> Engine:
    numbers = count(1)
    return Engine(clock, new_token=lambda: UUID(int=next(numbers)))


def chain(engine: Engine, length: int) -> None:
    """Queues q1 to q<length>, each forwarding to the next."""
    for number in range(length, 0, -1):
        target = f"q{number + 1}" if number < length else None
        engine.namespace.create_queue(f"q{number}", QueueSettings(forward_to=target))


def reasons(engine: Engine, path: str) -> list[object]:
    return [found.modified_properties["DeadLetterReason"] for found in engine.peek(path, 1, 9)]


def test_a_forwarded_message_gets_a_new_number_and_keeps_the_first(engine: Engine, clock: Clock) -> None:
    chain(engine, 3)
    engine.send("q3", [Message(b"other")])
    assert engine.send("q1", [Message(b"1"), Message(b"2")]) == [1, 2]
    clock.now += 1
    found = engine.receive("q3", 9)
    assert [one.message.raw for one in found] == [b"other", b"1", b"2"]
    assert [(one.sequence_number, one.enqueued_sequence_number) for one in found[1:]] == [(2, 1), (3, 2)]
    assert engine.counts("q1").total == engine.counts("q2").total == 0


def test_a_chain_may_have_four_hops_and_no_more(engine: Engine) -> None:
    chain(engine, 6)
    engine.send("q2", [Message(b"four hops")])
    engine.send("q1", [Message(b"five hops")])
    assert [found.message.raw for found in engine.receive("q6", 9)] == [b"four hops"]
    (stuck,) = engine.receive("q5/$Transfer/$DeadLetterQueue", 9)
    assert stuck.modified_properties["DeadLetterReason"] == "MaxTransferHopCountExceeded"
    assert (stuck.dead_letter_source, stuck.enqueued_sequence_number) == ("q5", 1)
    assert (engine.counts("q5").transfer_dead_letter, engine.counts("q5").total) == (1, 1)


def test_what_the_target_refuses_goes_to_the_transfer_dead_letters_of_the_source(engine: Engine) -> None:
    chain(engine, 2)
    engine.namespace.update_queue("q2", QueueSettings(status=EntityStatus.SEND_DISABLED))
    engine.send("q1", [Message(b"disabled")])
    engine.namespace.update_queue("q2", QueueSettings(max_size_megabytes=1))
    for _ in range(5):
        engine.send("q1", [Message(bytes(250_000))])
    engine.namespace.delete_queue("q2")
    engine.send("q1", [Message(b"deleted")])
    assert reasons(engine, "q1/$transfer/$deadletterqueue") == ["EntityDisabled", "QuotaExceeded", "EntityNotFound"]


def test_a_forwarded_message_lives_by_the_rules_of_where_it_is(engine: Engine) -> None:
    engine.namespace.create_queue("to", QueueSettings(ttl_seconds=50, duplicate_detection_seconds=60))
    engine.namespace.create_queue("from", QueueSettings(ttl_seconds=5, forward_to="to"))
    engine.send("from", [Message(b"1", message_id="x"), Message(b"again", message_id="x")])
    (found,) = engine.peek("to", 1, 9)
    assert found.expires_at == START + 50


def test_a_scheduled_message_is_forwarded_when_it_is_due(engine: Engine, clock: Clock) -> None:
    chain(engine, 2)
    engine.send("q1", [Message(b"1", scheduled_enqueue_time=START + 5)])
    assert (engine.counts("q1").scheduled, engine.counts("q2").total) == (1, 0)
    clock.now += 5
    assert (engine.counts("q1").total, engine.counts("q2").active) == (0, 1)


def test_a_forwarding_entity_cannot_be_received_from(engine: Engine) -> None:
    chain(engine, 2)
    with pytest.raises(NotAllowed, match="forwards"):
        engine.attach_consumer("q1", lambda found: None)


def test_new_forwarding_takes_along_what_is_there_and_ends_receivers(engine: Engine) -> None:
    closed: list[EngineError] = []
    engine.namespace.create_queue("to")
    engine.namespace.create_queue("from")
    engine.send("from", [Message(b"1"), Message(b"2")])
    (locked,) = engine.receive("from", 1)
    engine.attach_consumer("from", lambda found: None, on_closed=closed.append)
    engine.namespace.update_queue("from", QueueSettings(forward_to="TO"))
    assert [type(error) for error in closed] == [NotAllowed]
    assert [found.message.raw for found in engine.receive("to", 9)] == [b"2"]
    assert locked.lock_token is not None
    engine.abandon("from", locked.lock_token)
    assert [found.message.raw for found in engine.receive("to", 9)] == [b"1"]


def test_a_consumer_of_the_target_gets_a_newly_forwarded_backlog_at_once(engine: Engine) -> None:
    engine.namespace.create_queue("to")
    engine.namespace.create_queue("from")
    engine.send("from", [Message(b"1")])
    got: list[bytes] = []
    engine.attach_consumer("to", lambda found: got.append(found.message.raw)).set_credit(1)
    engine.namespace.update_queue("from", QueueSettings(forward_to="to"))
    assert got == [b"1"]


def test_dead_letters_are_forwarded_with_their_source_and_reason(engine: Engine, clock: Clock) -> None:
    engine.namespace.create_queue("graves")
    settings = QueueSettings(forward_dead_lettered_to="graves", dead_letter_on_expiry=True)
    engine.namespace.create_queue("q", settings)
    engine.send("q", [Message(b"bad"), Message(b"old", ttl_seconds=5)])
    (bad, _) = engine.receive("q", 2)
    assert bad.lock_token is not None
    engine.dead_letter("q", bad.lock_token, "Bad")
    clock.now += 61
    found = engine.receive("graves", 9)
    assert [one.modified_properties["DeadLetterReason"] for one in found] == ["Bad", "TTLExpiredException"]
    assert {(one.dead_letter_source, one.expires_at, one.delivery_count) for one in found} == {("q", math.inf, 0)}
    assert engine.counts("q").dead_letter == 0


def test_a_subscription_forwards_to_a_queue_or_another_topic(engine: Engine) -> None:
    namespace = engine.namespace
    namespace.create_topic("t2")
    namespace.create_subscription("t2", "s2")
    namespace.create_queue("q")
    namespace.create_topic("t1", TopicSettings(ttl_seconds=100))
    namespace.create_subscription("t1", "to-queue", SubscriptionSettings(forward_to="q"))
    namespace.create_subscription("t1", "to-topic", SubscriptionSettings(forward_to="t2"))
    engine.send("t1", [Message(b"1")])
    assert [found.enqueued_sequence_number for found in engine.peek("q", 1, 9)] == [1]
    assert [found.message.raw for found in engine.peek("t2/subscriptions/s2", 1, 9)] == [b"1"]
    assert engine.counts("t1").size_bytes == 0


@pytest.mark.parametrize(
    ("path", "settings"),
    [
        ("q2", QueueSettings(forward_to="q2")),
        ("q2", QueueSettings(forward_to="Q1")),
        ("q2", QueueSettings(forward_to="nowhere")),
        ("q2", QueueSettings(forward_to="t/subscriptions/s")),
        ("q2", QueueSettings(forward_to="q1/$deadletterqueue")),
        ("q2", QueueSettings(forward_dead_lettered_to="q2")),
        ("q2", QueueSettings(forward_to="t")),
    ],
)
def test_targets_that_are_missing_or_lead_back_are_refused(engine: Engine, path: str, settings: QueueSettings) -> None:
    chain(engine, 2)
    engine.namespace.create_topic("t")
    engine.namespace.create_subscription("t", "s", SubscriptionSettings(forward_to="q1"))
    with pytest.raises(InvalidArgument, match="Forward"):
        engine.namespace.update_queue(path, settings)


def test_a_subscription_cannot_forward_to_its_own_topic(engine: Engine) -> None:
    engine.namespace.create_topic("t")
    engine.namespace.create_queue("q", QueueSettings(forward_to="t"))
    for target in ("t", "q"):
        with pytest.raises(InvalidArgument, match="ForwardTo"):
            engine.namespace.create_subscription("t", "s", SubscriptionSettings(forward_to=target))


def test_sessions_may_be_forwarded_to_and_on(engine: Engine) -> None:
    engine.namespace.create_queue("s", QueueSettings(requires_session=True))
    engine.namespace.create_queue("q", QueueSettings(forward_to="s"))
    engine.send("q", [Message(b"1", session_id="a"), Message(b"2")])
    assert engine.list_sessions("s") == ["a"]
    assert reasons(engine, "s/$DeadLetterQueue") == ["Session ID is null."]
    engine.namespace.create_queue("end")
    engine.accept_session("s", "a", lambda found: None).set_credit(1)
    engine.namespace.update_queue("s", QueueSettings(requires_session=True, forward_to="end"))
    engine.send("q", [Message(b"3", session_id="b")])
    assert [found.message.raw for found in engine.receive("end", 9)] == [b"1", b"3"]
    assert engine.list_sessions("s") == []


def test_consumers_at_the_end_of_a_chain_are_served_at_once(engine: Engine) -> None:
    chain(engine, 3)
    got: list[bytes] = []
    engine.attach_consumer("q3", lambda found: got.append(found.message.raw)).set_credit(9)
    engine.send("q1", [Message(b"1"), Message(b"2")])
    assert got == [b"1", b"2"]
