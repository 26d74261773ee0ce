"""Message sessions: who may hold which, what the holder gets, and when it comes back."""

from collections.abc import Callable
from itertools import count
from uuid import UUID

import pytest

from fusebus.servicebus.engine import (
    Delivery,
    Engine,
    EngineError,
    EntityDisabled,
    EntityNotFound,
    EntityStatus,
    InvalidArgument,
    Message,
    MessageNotFound,
    NotAllowed,
    OperationTimeout,
    QueueSettings,
    ReceiveMode,
    SessionCannotBeLocked,
    SessionConsumer,
    SessionLockLost,
    SubscriptionSettings,
)

START = 1_000.0
DEAD = "q/$DeadLetterQueue"


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class Receiver:
    """Accepts sessions and notes everything that it is told."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.got: list[Delivery] = []
        self.closed: list[EngineError] = []
        self.refused: list[EngineError] = []
        self.accepted: list[SessionConsumer] = []

    def accept(
        self, session_id: str, credit: int = 0, path: str = "q", mode: ReceiveMode = ReceiveMode.PEEK_LOCK
    ) -> SessionConsumer:
        consumer = self.engine.accept_session(path, session_id, self.got.append, mode, self.closed.append)
        consumer.set_credit(credit)
        return consumer

    def accept_next(self, timeout_seconds: float = 65.0) -> Callable[[], None]:
        wait = self.engine.accept_next_session(
            "q",
            self.accepted.append,
            self.refused.append,
            self.got.append,
            on_closed=self.closed.append,
            timeout_seconds=timeout_seconds,
        )
        return wait.cancel

    def bodies(self) -> list[bytes]:
        return [delivery.message.raw for delivery in self.got]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(clock: Clock) -> Engine:
    numbers = count(1)
    engine = Engine(clock, new_token=lambda: UUID(int=next(numbers)))
    engine.namespace.create_queue("q", QueueSettings(lock_seconds=10.0, requires_session=True, max_delivery_count=2))
    engine.namespace.create_queue("plain")
    return engine


@pytest.fixture
def make_receiver(engine: Engine) -> Callable[[], Receiver]:
    return lambda: Receiver(engine)


@pytest.fixture
def receiver(make_receiver: Callable[[], Receiver]) -> Receiver:
    return make_receiver()


def send(engine: Engine, session_id: str, *raw: bytes, path: str = "q") -> list[int]:
    return engine.send(path, [Message(body, session_id=session_id) for body in raw])


def token_of(delivery: Delivery) -> UUID:
    assert delivery.lock_token is not None
    return delivery.lock_token


def test_a_holder_gets_its_sessions_messages_in_order_and_no_others(engine: Engine, receiver: Receiver) -> None:
    send(engine, "a", b"a1")
    send(engine, "b", b"b1")
    send(engine, "a", b"a2")
    consumer = receiver.accept("a", credit=9)
    send(engine, "a", b"a3")
    assert receiver.bodies() == [b"a1", b"a2", b"a3"]
    assert {delivery.locked_until for delivery in receiver.got} == {consumer.locked_until} == {START + 10}


def test_a_session_has_one_holder(engine: Engine, receiver: Receiver) -> None:
    consumer = receiver.accept("a")
    with pytest.raises(SessionCannotBeLocked, match="'a'"):
        receiver.accept("a")
    consumer.detach()
    assert receiver.accept("a").session_id == "a"


def test_an_empty_string_is_a_session(engine: Engine, receiver: Receiver) -> None:
    send(engine, "", b"1")
    receiver.accept("", credit=1)
    assert receiver.bodies() == [b"1"]


def test_a_released_session_returns_its_messages_at_once_with_their_counts(
    engine: Engine, make_receiver: Callable[[], Receiver]
) -> None:
    send(engine, "a", b"1", b"2")
    first, second = make_receiver(), make_receiver()
    consumer = first.accept("a", credit=2)
    second.accept_next()
    assert second.accepted == []
    consumer.detach()
    second.accepted[0].set_credit(2)
    assert [(found.message.raw, found.delivery_count) for found in second.got] == [(b"1", 0), (b"2", 0)]
    with pytest.raises(SessionLockLost):
        engine.complete("q", token_of(first.got[0]))


def test_a_lost_lock_counts_as_a_failed_delivery(engine: Engine, clock: Clock, receiver: Receiver) -> None:
    send(engine, "a", b"1", b"2")
    consumer = receiver.accept("a", credit=1)
    clock.now += 10.4
    engine.tick()
    assert consumer.attached  # a slow clock's grace
    clock.now = START + 10.5
    engine.tick()
    assert [type(error) for error in receiver.closed] == [SessionLockLost]
    assert [found.delivery_count for found in engine.peek("q", 1, 9)] == [1, 0]
    with pytest.raises(SessionLockLost):
        engine.complete("q", token_of(receiver.got[0]))
    receiver.accept("a", credit=1)
    clock.now += 10.5
    engine.tick()
    (dead,) = engine.peek(DEAD, 1, 9)
    assert dead.modified_properties["DeadLetterReason"] == "MaxDeliveryCountExceeded"


def test_a_renewed_session_lasts_from_the_renewal(engine: Engine, clock: Clock, receiver: Receiver) -> None:
    consumer = receiver.accept("a")
    clock.now += 8
    assert engine.renew_session_lock("q", "a") == consumer.locked_until == clock.now + 10
    clock.now += 10
    engine.tick()
    assert consumer.attached
    clock.now += 0.5
    with pytest.raises(SessionLockLost):
        engine.renew_session_lock("q", "a", consumer)
    assert not consumer.attached


def test_only_the_holder_may_ask_for_its_session(engine: Engine, receiver: Receiver) -> None:
    earlier = receiver.accept("a")
    earlier.detach()
    holder = receiver.accept("a")
    engine.set_session_state("q", "a", b"x", holder)
    for ask in (
        lambda: engine.renew_session_lock("q", "a", earlier),
        lambda: engine.session_state("q", "a", earlier),
        lambda: engine.set_session_state("q", "a", b"y", earlier),
        lambda: engine.session_state("q", "b"),
    ):
        with pytest.raises(SessionLockLost):
            ask()
    assert engine.session_state("q", "a", holder) == b"x"


def test_a_state_outlives_messages_and_holders_until_it_is_cleared(engine: Engine, receiver: Receiver) -> None:
    consumer = receiver.accept("a")
    engine.set_session_state("q", "a", b"")
    consumer.detach()
    assert engine.list_sessions("q") == ["a"]
    consumer = receiver.accept("a")
    assert engine.session_state("q", "a") == b""
    engine.set_session_state("q", "a", None)
    consumer.detach()
    assert engine.list_sessions("q") == []


def test_sessions_are_listed_by_messages_or_state_or_by_when_the_state_was_set(
    engine: Engine, clock: Clock, receiver: Receiver
) -> None:
    for number in range(5):
        send(engine, f"m{number}", b"1")
    receiver.accept("early")
    engine.set_session_state("q", "early", b"1")
    clock.now += 5
    receiver.accept("late")
    engine.set_session_state("q", "late", b"1")
    receiver.accept("nothing")
    assert engine.list_sessions("q") == ["m0", "m1", "m2", "m3", "m4", "early", "late"]
    assert engine.list_sessions("q", skip=1, top=2) == ["m1", "m2"]
    assert engine.list_sessions("q", updated_since=START + 1) == ["late"]


def test_those_who_wait_get_free_sessions_in_the_order_of_asking(
    engine: Engine, make_receiver: Callable[[], Receiver]
) -> None:
    first, second, third = (make_receiver() for _ in range(3))
    first.accept_next()
    cancel = second.accept_next()
    third.accept_next()
    cancel()
    cancel()
    send(engine, "x", b"1")
    send(engine, "y", b"1")
    assert [consumer.session_id for consumer in first.accepted + third.accepted] == ["x", "y"]
    assert (second.accepted, second.refused) == ([], [])


def test_who_waits_in_vain_is_told(engine: Engine, clock: Clock, receiver: Receiver) -> None:
    receiver.accept_next(timeout_seconds=5)
    assert engine.next_timer() == START + 5
    clock.now += 5
    engine.tick()
    assert [type(error) for error in receiver.refused] == [OperationTimeout]
    send(engine, "a", b"1")
    assert receiver.accepted == []


def test_a_session_whose_messages_are_scheduled_or_deferred_is_not_the_next(
    engine: Engine, clock: Clock, receiver: Receiver
) -> None:
    engine.send("q", [Message(b"1", session_id="a", scheduled_enqueue_time=START + 5)])
    receiver.accept_next()
    assert receiver.accepted == []
    clock.now += 5
    engine.tick()
    receiver.accepted[0].set_credit(1)
    engine.defer("q", token_of(receiver.got[0]))
    receiver.accepted[0].detach()
    receiver.accept_next()
    assert len(receiver.accepted) == 1


def test_waiting_ends_when_the_entity_is_disabled_or_deleted(engine: Engine, receiver: Receiver) -> None:
    receiver.accept_next()
    settings = QueueSettings(lock_seconds=10.0, requires_session=True, status=EntityStatus.RECEIVE_DISABLED)
    engine.namespace.update_queue("q", settings)
    with pytest.raises(EntityDisabled):
        receiver.accept_next()
    engine.namespace.update_queue("q", QueueSettings(requires_session=True))
    receiver.accept_next()
    receiver.accept("a")
    engine.namespace.delete_queue("q")
    assert [type(error) for error in receiver.refused] == [EntityDisabled, EntityNotFound]
    assert [type(error) for error in receiver.closed] == [EntityNotFound]
    assert engine.next_timer() is None


def test_deferred_messages_are_received_under_the_sessions_lock(engine: Engine, receiver: Receiver) -> None:
    (number,) = send(engine, "a", b"1")
    consumer = receiver.accept("a", credit=1)
    engine.defer("q", token_of(receiver.got[0]))
    with pytest.raises(NotAllowed):
        engine.receive_deferred("q", [number])
    receiver.accept("b")
    with pytest.raises(MessageNotFound):
        engine.receive_deferred("q", [number], session_id="b")
    (again,) = engine.receive_deferred("q", [number], session_id="a")
    assert again.locked_until == consumer.locked_until
    consumer.detach()
    with pytest.raises(SessionLockLost):
        engine.receive_deferred("q", [number], session_id="a")
    assert engine.counts("q").deferred == 1


def test_a_session_can_be_received_destructively(engine: Engine, clock: Clock, receiver: Receiver) -> None:
    send(engine, "a", b"1", b"2")
    receiver.accept("a", credit=1, mode=ReceiveMode.RECEIVE_AND_DELETE)
    assert (receiver.bodies(), receiver.got[0].lock_token) == ([b"1"], None)
    clock.now += 11
    engine.tick()
    assert [(found.message.raw, found.delivery_count) for found in engine.peek("q", 1, 9)] == [(b"2", 0)]


def test_peek_can_be_limited_to_a_session(engine: Engine) -> None:
    for session_id in ("a", "b", "a"):
        send(engine, session_id, session_id.encode())
    assert [found.sequence_number for found in engine.peek("q", 1, 9, "a")] == [1, 3]
    assert [found.sequence_number for found in engine.peek("q", 2, 9, "a")] == [3]
    assert engine.peek("q", 1, 9, "c") == []


def test_entities_with_and_without_sessions_do_not_mix(engine: Engine, receiver: Receiver) -> None:
    for action in (
        lambda: engine.attach_consumer("q", receiver.got.append),
        lambda: engine.receive("q", 1),
        lambda: engine.send("q", [Message(b"no session")]),
        lambda: receiver.accept("a", path="plain"),
        lambda: engine.list_sessions("plain"),
        lambda: engine.session_state("plain", "a"),
        lambda: receiver.accept("a", path=DEAD),
    ):
        with pytest.raises(NotAllowed):
            action()
    send(engine, "a", b"1")
    receiver.accept("a", credit=1)
    with pytest.raises(NotAllowed):
        engine.renew_lock("q", token_of(receiver.got[0]))
    with pytest.raises(InvalidArgument, match="RequiresSession"):
        engine.namespace.update_queue("q", QueueSettings())


def test_dead_letters_of_a_session_are_received_without_one(engine: Engine, receiver: Receiver) -> None:
    send(engine, "a", b"1")
    receiver.accept("a", credit=1)
    engine.dead_letter("q", token_of(receiver.got[0]), "Bad")
    (dead,) = engine.receive(DEAD, 1)
    engine.complete(DEAD, token_of(dead))


def test_a_subscription_dead_letters_what_comes_without_a_session(engine: Engine, receiver: Receiver) -> None:
    engine.namespace.create_topic("t")
    engine.namespace.create_subscription("t", "s", SubscriptionSettings(requires_session=True))
    engine.send("t", [Message(b"1"), Message(b"2", session_id="a")])
    assert engine.counts("t/subscriptions/s").active == 1
    (dead,) = engine.peek("t/subscriptions/s/$deadletterqueue", 1, 9)
    assert dead.modified_properties["DeadLetterReason"] == "Session ID is null."


def test_a_holder_may_settle_and_leave_inside_its_callback(engine: Engine) -> None:
    got: list[bytes] = []

    def work(delivery: Delivery) -> None:
        got.append(delivery.message.raw)
        engine.complete("q", token_of(delivery))
        if len(got) == 3:
            consumer.detach()

    consumer = engine.accept_session("q", "a", work)
    consumer.set_credit(9)
    send(engine, "a", *(bytes([value]) for value in range(5)))
    assert got == [b"\0", b"\1", b"\2"]
    assert engine.counts("q").active == 2


def test_a_session_can_be_taken_away_on_order(engine: Engine, receiver: Receiver) -> None:
    send(engine, "a", b"1")
    receiver.accept("a", credit=1)
    engine.lose_session_lock("q", "a")
    assert [type(error) for error in receiver.closed] == [SessionLockLost]
    assert engine.peek("q", 1, 1)[0].delivery_count == 1
    with pytest.raises(SessionLockLost):
        engine.lose_session_lock("q", "a")


def test_nothing_is_kept_of_sessions_that_are_over(engine: Engine, receiver: Receiver) -> None:
    for number in range(500):
        send(engine, str(number), b"1", b"2")
        consumer = receiver.accept(str(number), credit=2, mode=ReceiveMode.RECEIVE_AND_DELETE)
        consumer.detach()
    mailbox = engine.resolve("q").mailbox
    assert not mailbox._sessions
    assert not mailbox._free
    assert len(mailbox._order) < 200
    assert engine.next_timer() is None


def test_a_purge_leaves_holders_and_states(engine: Engine, receiver: Receiver) -> None:
    send(engine, "a", b"1", b"2")
    consumer = receiver.accept("a", credit=1)
    engine.set_session_state("q", "a", b"x")
    assert engine.purge("q") == 2
    send(engine, "a", b"3")
    consumer.set_credit(1)
    assert receiver.bodies() == [b"1", b"3"]
    assert engine.session_state("q", "a") == b"x"
