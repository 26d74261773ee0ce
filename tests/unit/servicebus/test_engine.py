"""The engine's promises about one queue: sending, locks, settlement, schedules, expiry."""

import math
from collections.abc import Callable

import pytest
from engines import DEAD, START, Clock, bodies, receive_one, send, token_of

from fusebus.servicebus.engine import (
    Engine,
    EntityNotFound,
    MessageLockLost,
    MessageNotFound,
    MessageState,
    NotAllowed,
    QuotaExceeded,
    ReceiveMode,
)


def test_messages_come_in_the_order_they_were_sent(engine: Engine) -> None:
    assert send(engine, b"a", b"b") == [1, 2]
    assert send(engine, b"c") == [3]
    assert bodies(engine.receive("q", 10)) == [b"a", b"b", b"c"]


def test_paths_are_case_insensitive_and_slashes_around_them_do_not_matter(engine: Engine) -> None:
    send(engine, b"a")
    assert bodies(engine.receive("/Q/", 1)) == [b"a"]
    assert engine.resolve("Q/$deadletterqueue").path == DEAD
    with pytest.raises(EntityNotFound, match="nowhere"):
        engine.resolve("nowhere")


def test_a_locked_message_is_given_to_nobody_else(engine: Engine) -> None:
    send(engine, b"a")
    delivery = receive_one(engine)
    assert delivery.locked_until == START + 10
    assert engine.receive("q", 1) == []
    assert engine.counts("q").active == 1


def test_a_completed_message_is_gone_and_its_token_with_it(engine: Engine) -> None:
    send(engine, b"a")
    token = token_of(receive_one(engine))
    engine.complete("q", token)
    assert engine.counts("q").total == 0
    for settle in (
        engine.complete,
        engine.abandon,
        engine.defer,
        engine.dead_letter,
        engine.release,
        engine.renew_lock,
    ):
        with pytest.raises(MessageLockLost, match=str(token)):
            settle("q", token)


def test_an_abandoned_message_takes_its_old_place_with_one_more_delivery(engine: Engine) -> None:
    send(engine, b"a", b"b")
    engine.abandon("q", token_of(receive_one(engine)), {"seen": True})
    again = receive_one(engine)
    assert (again.message.raw, again.delivery_count, dict(again.modified_properties)) == (b"a", 1, {"seen": True})


def test_a_released_message_comes_again_as_if_never_delivered(engine: Engine) -> None:
    send(engine, b"a", b"b")
    engine.release("q", token_of(receive_one(engine)))
    assert [(d.message.raw, d.delivery_count) for d in engine.receive("q", 2)] == [(b"a", 0), (b"b", 0)]


def test_an_expired_lock_returns_the_message_exactly_at_its_time(engine: Engine, clock: Clock) -> None:
    send(engine, b"a")
    token = token_of(receive_one(engine))
    clock.now += 9.999
    assert engine.receive("q", 1) == []
    clock.now = START + 10
    with pytest.raises(MessageLockLost):  # though nobody called tick
        engine.complete("q", token)
    assert receive_one(engine).delivery_count == 1


def test_a_renewed_lock_lasts_from_the_renewal(engine: Engine, clock: Clock) -> None:
    send(engine, b"a")
    token = token_of(receive_one(engine))
    clock.now += 8
    assert engine.renew_lock("q", token) == clock.now + 10
    clock.now += 9
    assert engine.receive("q", 1) == []
    engine.complete("q", token)
    assert engine.next_timer() is None


def test_the_last_allowed_failure_dead_letters_with_its_reason(
    make_engine: Callable[..., Engine], clock: Clock
) -> None:
    engine = make_engine(max_delivery_count=3)
    send(engine, b"a")
    engine.abandon("q", token_of(receive_one(engine)))
    receive_one(engine)
    clock.now += 10
    engine.abandon("q", token_of(receive_one(engine)))
    assert (engine.counts("q").active, engine.counts("q").dead_letter) == (0, 1)
    dead = receive_one(engine, DEAD)
    assert dead.modified_properties["DeadLetterReason"] == "MaxDeliveryCountExceeded"
    assert "3 delivery attempts" in dead.modified_properties["DeadLetterErrorDescription"]
    assert (dead.dead_letter_source, dead.enqueued_sequence_number, dead.delivery_count) == ("q", 1, 3)


def test_a_dead_lettered_message_keeps_reason_description_and_properties(engine: Engine) -> None:
    send(engine, b"a", application_properties={"kind": "x"})
    engine.dead_letter("q", token_of(receive_one(engine)), "Bad", "very bad", {"more": 1})
    dead = receive_one(engine, DEAD)
    assert dead.message.application_properties == {"kind": "x"}
    assert dict(dead.modified_properties) == {
        "DeadLetterReason": "Bad",
        "DeadLetterErrorDescription": "very bad",
        "more": 1,
    }


def test_dead_letters_are_never_given_up_and_not_dead_lettered_again(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(max_delivery_count=1, ttl_seconds=5)
    send(engine, b"a")
    engine.dead_letter("q", token_of(receive_one(engine)))
    for attempt in range(3):
        delivery = receive_one(engine, DEAD)
        assert (delivery.delivery_count, delivery.expires_at) == (attempt, math.inf)
        engine.abandon(DEAD, token_of(delivery))
    with pytest.raises(NotAllowed):
        engine.dead_letter(DEAD, token_of(receive_one(engine, DEAD)))
    assert engine.counts(DEAD).active == 1


def test_a_deferred_message_is_found_by_its_number_only(engine: Engine) -> None:
    (number,) = send(engine, b"a")
    engine.defer("q", token_of(receive_one(engine)), {"why": "later"})
    assert engine.receive("q", 1) == []
    assert (engine.counts("q").active, engine.counts("q").deferred) == (0, 1)
    (delivery,) = engine.receive_deferred("q", [number])
    assert (delivery.state, delivery.modified_properties["why"]) == (MessageState.DEFERRED, "later")
    with pytest.raises(MessageNotFound, match="locked"):
        engine.receive_deferred("q", [number])
    engine.abandon("q", token_of(delivery))
    assert engine.receive("q", 1) == []
    (deleted,) = engine.receive_deferred("q", [number], ReceiveMode.RECEIVE_AND_DELETE)
    assert deleted.lock_token is None
    assert engine.counts("q").total == 0


def test_deferred_messages_are_received_all_or_none(engine: Engine) -> None:
    (number,) = send(engine, b"a")
    engine.defer("q", token_of(receive_one(engine)))
    with pytest.raises(MessageNotFound, match="77"):
        engine.receive_deferred("q", [number, 77])
    assert len(engine.receive_deferred("q", [number])) == 1


def test_receive_and_delete_leaves_no_lock(engine: Engine) -> None:
    send(engine, b"a")
    (delivery,) = engine.receive("q", 1, ReceiveMode.RECEIVE_AND_DELETE)
    assert (delivery.lock_token, delivery.locked_until) == (None, None)
    assert (engine.counts("q").total, engine.counts("q").size_bytes, engine.next_timer()) == (0, 0, None)


def test_a_scheduled_message_appears_at_its_time_with_a_new_number(engine: Engine, clock: Clock) -> None:
    (scheduled,) = send(engine, b"later", scheduled_enqueue_time=START + 60)
    send(engine, b"now")
    assert bodies(engine.receive("q", 2)) == [b"now"]
    assert engine.counts("q").scheduled == 1
    assert engine.next_timer() == START + 10  # the lock comes first
    clock.now += 60
    delivery = next(found for found in engine.receive("q", 2) if found.message.raw == b"later")
    assert (delivery.enqueued_at, delivery.state) == (clock.now, MessageState.ACTIVE)
    assert delivery.sequence_number > scheduled


def test_a_schedule_in_the_past_means_now(engine: Engine) -> None:
    send(engine, b"a", scheduled_enqueue_time=START - 1)
    assert engine.counts("q").active == 1


def test_scheduled_messages_are_cancelled_all_or_none(engine: Engine, clock: Clock) -> None:
    numbers = send(engine, b"a", b"b", scheduled_enqueue_time=START + 60)
    with pytest.raises(MessageNotFound):
        engine.cancel_scheduled("q", [*numbers, 99])
    engine.cancel_scheduled("q", numbers)
    clock.now += 60
    assert engine.receive("q", 2) == []
    with pytest.raises(MessageNotFound):
        engine.cancel_scheduled("q", numbers[:1])


@pytest.mark.parametrize("dead_letter", [True, False])
def test_an_expired_message_is_dropped_or_dead_lettered(
    make_engine: Callable[..., Engine], clock: Clock, dead_letter: bool
) -> None:
    engine = make_engine(dead_letter_on_expiry=dead_letter)
    send(engine, b"a", ttl_seconds=5)
    clock.now += 5
    assert engine.receive("q", 1) == []
    assert [found.modified_properties["DeadLetterReason"] for found in engine.peek(DEAD, 1, 9)] == (
        ["TTLExpiredException"] if dead_letter else []
    )


def test_the_entity_limits_the_time_to_live_of_its_messages(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(ttl_seconds=30)
    send(engine, b"a")
    send(engine, b"b", ttl_seconds=60)
    send(engine, b"c", ttl_seconds=20)
    assert [found.expires_at - START for found in engine.peek("q", 1, 9)] == [30, 30, 20]


def test_a_locked_message_expires_only_when_its_lock_ends(engine: Engine, clock: Clock) -> None:
    send(engine, b"a", b"b", ttl_seconds=5)
    first, second = engine.receive("q", 2)
    clock.now += 6
    engine.complete("q", token_of(first))  # in time: the lock counts, not the age
    assert engine.counts("q").active == 1
    engine.abandon("q", token_of(second))
    assert engine.counts("q").active == 0


def test_peek_shows_every_state_in_order_and_changes_nothing(engine: Engine) -> None:
    send(engine, b"locked", b"deferred", b"active")
    send(engine, b"scheduled", scheduled_enqueue_time=START + 60)
    _, deferred = engine.receive("q", 2)
    engine.defer("q", token_of(deferred))
    states = [(found.message.raw, found.state.name) for found in engine.peek("q", 1, 10)]
    assert states == [
        (b"locked", "ACTIVE"),
        (b"deferred", "DEFERRED"),
        (b"active", "ACTIVE"),
        (b"scheduled", "SCHEDULED"),
    ]
    assert bodies(engine.peek("q", 2, 2)) == [b"deferred", b"active"]
    assert engine.counts("q").total == 4


def test_a_repeated_id_within_the_window_is_swallowed(make_engine: Callable[..., Engine], clock: Clock) -> None:
    engine = make_engine(duplicate_detection_seconds=60)
    first = send(engine, b"a", message_id="1")
    assert send(engine, b"again", b"and again", message_id="1") == first * 2
    send(engine, b"other", message_id="2")
    send(engine, b"no id", b"no id")
    assert bodies(engine.receive("q", 9)) == [b"a", b"other", b"no id", b"no id"]
    clock.now += 60
    send(engine, b"new", message_id="1")
    assert engine.counts("q").active == 5


def test_a_scheduled_message_counts_for_duplicates_from_its_sending(
    make_engine: Callable[..., Engine], clock: Clock
) -> None:
    engine = make_engine(duplicate_detection_seconds=60)
    send(engine, b"a", message_id="1", scheduled_enqueue_time=START + 100)
    send(engine, b"b", message_id="1")
    clock.now += 100
    assert bodies(engine.receive("q", 9)) == [b"a"]


def test_a_batch_over_the_quota_is_refused_whole(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(max_size_megabytes=1)
    send(engine, *[bytes(200_000)] * 3)
    with pytest.raises(QuotaExceeded):
        send(engine, b"small", *[bytes(200_000)] * 3)
    assert engine.counts("q").total == 3
