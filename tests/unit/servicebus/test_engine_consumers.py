"""Who is served when: consumers and their credit, closed and deleted queues, and what is left behind."""

from uuid import uuid4

import pytest
from engines import DEAD, START, Clock, bodies, receive_one, send, token_of

from fusebus.servicebus.engine import (
    Delivery,
    Engine,
    EngineError,
    EntityDisabled,
    EntityNotFound,
    EntityStatus,
    MessageLockLost,
    QueueSettings,
)


def test_consumers_get_messages_in_turn_and_no_more_than_their_credit(engine: Engine) -> None:
    got: list[tuple[str, bytes]] = []
    first = engine.attach_consumer("q", lambda found: got.append(("first", found.message.raw)))
    second = engine.attach_consumer("q", lambda found: got.append(("second", found.message.raw)))
    first.set_credit(1)
    second.set_credit(3)
    send(engine, b"a", b"b", b"c", b"d", b"e")
    assert got == [("first", b"a"), ("second", b"b"), ("second", b"c"), ("second", b"d")]
    first.add_credit(1)
    assert got[-1] == ("first", b"e")
    assert (first.credit, second.credit) == (0, 0)


def test_a_waiting_consumer_gets_what_becomes_free(engine: Engine, clock: Clock) -> None:
    got: list[bytes] = []
    send(engine, b"locked")
    engine.receive("q", 1)
    send(engine, b"scheduled", scheduled_enqueue_time=START + 5)
    engine.attach_consumer("q", lambda found: got.append(found.message.raw)).set_credit(9)
    clock.now += 5
    engine.tick()
    clock.now += 5
    engine.tick()
    assert got == [b"scheduled", b"locked"]


def test_a_detached_consumer_gets_nothing_and_its_locks_stay(engine: Engine, clock: Clock) -> None:
    got: list[Delivery] = []
    consumer = engine.attach_consumer("q", got.append)
    consumer.set_credit(2)
    send(engine, b"a")
    consumer.detach()
    consumer.detach()
    consumer.set_credit(5)
    send(engine, b"b")
    assert bodies(got) == [b"a"]
    assert bodies(engine.receive("q", 9)) == [b"b"]
    engine.complete("q", token_of(got[0]))
    assert engine.counts("q").active == 1


def test_a_consumer_may_settle_and_ask_for_more_inside_its_callback(engine: Engine) -> None:
    got: list[bytes] = []

    def work(delivery: Delivery) -> None:
        got.append(delivery.message.raw)
        engine.complete("q", token_of(delivery))
        consumer.add_credit(1)

    consumer = engine.attach_consumer("q", work)
    consumer.set_credit(1)
    send(engine, *(bytes([value]) for value in range(100)))
    assert got == [bytes([value]) for value in range(100)]
    assert engine.counts("q").total == 0


def test_a_callback_that_releases_does_not_starve_anybody(engine: Engine) -> None:
    got: list[bytes] = []
    picky = engine.attach_consumer("q", lambda found: engine.release("q", token_of(found)))
    picky.set_credit(3)
    engine.attach_consumer("q", lambda found: got.append(found.message.raw)).set_credit(1)
    send(engine, b"a")
    assert got == [b"a"]


def test_the_front_is_told_when_the_earliest_timer_moves_forward(engine: Engine) -> None:
    alarms: list[float] = []
    engine.on_next_timer(alarms.append)
    send(engine, b"a", scheduled_enqueue_time=START + 60)
    send(engine, b"b", scheduled_enqueue_time=START + 90)
    send(engine, b"c", scheduled_enqueue_time=START + 30)
    assert alarms == [START + 60, START + 30]
    assert engine.next_timer() == START + 30


@pytest.mark.parametrize(
    ("status", "sends", "receives"),
    [
        ("Active", True, True),
        ("Disabled", False, False),
        ("SendDisabled", False, True),
        ("ReceiveDisabled", True, False),
    ],
)
def test_the_status_opens_and_closes_each_direction(engine: Engine, status: str, sends: bool, receives: bool) -> None:
    closed: list[EngineError] = []
    engine.attach_consumer("q", lambda found: None, on_closed=closed.append)
    engine.namespace.update_queue("q", QueueSettings(status=EntityStatus(status)))
    for allowed, action in ((sends, lambda: send(engine, b"a")), (receives, lambda: engine.receive("q", 1))):
        if allowed:
            action()
        else:
            with pytest.raises(EntityDisabled):
                action()
    assert [type(error) for error in closed] == ([] if receives else [EntityDisabled])
    assert engine.peek("q", 1, 1) or not sends


def test_a_deleted_queue_closes_its_consumers_and_forgets_its_timers(engine: Engine) -> None:
    closed: list[EngineError] = []
    engine.attach_consumer("q", lambda found: None, on_closed=closed.append)
    send(engine, b"a", b"b", ttl_seconds=60)
    engine.receive("q", 1)
    engine.namespace.delete_queue("q")
    assert isinstance(closed[0], EntityNotFound)
    assert engine.next_timer() is None
    with pytest.raises(EntityNotFound):
        engine.receive(DEAD, 1)


def test_a_purge_removes_messages_of_every_state(engine: Engine) -> None:
    send(engine, b"locked", b"active", ttl_seconds=60)
    send(engine, b"scheduled", scheduled_enqueue_time=START + 60)
    token = token_of(receive_one(engine))
    assert engine.purge("q") == 3
    assert (engine.counts("q").total, engine.counts("q").size_bytes, engine.next_timer()) == (0, 0, None)
    with pytest.raises(MessageLockLost):
        engine.complete("q", token)


def test_nothing_is_kept_of_messages_that_are_gone() -> None:
    engine = Engine(lambda: START, new_token=uuid4)
    engine.namespace.create_queue("q", QueueSettings(ttl_seconds=1_000))
    for _ in range(200):
        send(engine, *[b"x"] * 100)
        for delivery in engine.receive("q", 100):
            engine.complete("q", token_of(delivery))
    mailbox = engine.resolve("q").mailbox
    assert len(mailbox._order) + len(mailbox._ready) < 1_000
    assert len(engine._core.timers.heap) < 10_000


def test_added_credit_is_not_given_twice_when_a_lock_expires_in_the_same_instant(engine: Engine, clock: Clock) -> None:
    got: list[bytes] = []
    send(engine, b"a")
    engine.receive("q", 1)
    consumer = engine.attach_consumer("q", lambda found: got.append(found.message.raw))
    consumer.set_credit(1)
    clock.now += 10
    consumer.add_credit(1)
    assert (got, consumer.credit) == ([b"a"], 1)
