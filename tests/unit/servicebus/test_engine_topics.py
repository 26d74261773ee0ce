"""Topics, subscriptions and rules: who gets which copy, and what each counts; and names."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import UUID

import pytest

from fusebus.servicebus.engine import (
    CorrelationFilter,
    Engine,
    EngineError,
    EntityExists,
    EntityNotFound,
    InvalidArgument,
    Message,
    NotAllowed,
    QueueSettings,
    Rule,
    SqlAction,
    SqlFilter,
    SubscriptionSettings,
    TopicSettings,
)

START = 1_000.0
ALL, DETECT = "images/Subscriptions/all", "images/subscriptions/detect"


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
    engine = Engine(clock, new_token=lambda: UUID(int=next(numbers)))
    engine.namespace.create_topic("images", TopicSettings(duplicate_detection_seconds=60, ttl_seconds=500))
    engine.namespace.create_subscription("images", "all")
    engine.namespace.create_subscription(
        "images",
        "detect",
        SubscriptionSettings(lock_seconds=5, max_delivery_count=1, ttl_seconds=100),
        [
            Rule("kind", CorrelationFilter(properties={"kind": "detect"})),
            Rule("urgent", SqlFilter("lane = 'urgent' AND (only IS NULL OR only = 'detect')")),
        ],
    )
    return engine


def send(engine: Engine, raw: bytes, **properties: object) -> int:
    return engine.send("images", [Message(raw, application_properties=properties)])[0]


def test_each_subscription_gets_its_own_copy_of_what_its_rules_take(engine: Engine) -> None:
    send(engine, b"1", kind="detect")
    send(engine, b"2", kind="convert")
    assert [found.message.raw for found in engine.receive(ALL, 9)] == [b"1", b"2"]
    (copy,) = engine.receive(DETECT, 9)
    engine.complete(DETECT, copy.lock_token)
    assert (engine.counts(ALL).active, engine.counts(DETECT).active) == (2, 0)


def test_two_rules_that_match_make_one_copy(engine: Engine) -> None:
    send(engine, b"1", kind="detect", lane="urgent")
    assert engine.counts(DETECT).active == 1


def test_a_retry_meant_for_another_subscription_is_not_taken(engine: Engine) -> None:
    send(engine, b"1", lane="urgent", only="convert")
    send(engine, b"2", lane="urgent", only="detect")
    assert [found.message.raw for found in engine.receive(DETECT, 9)] == [b"2"]


def test_copies_remember_the_topics_number(engine: Engine) -> None:
    send(engine, b"1")
    number = send(engine, b"2", kind="detect")
    (copy,) = engine.receive(DETECT, 1)
    assert (copy.sequence_number, copy.enqueued_sequence_number) == (1, number) == (1, 2)


def test_copies_live_as_long_as_the_strictest_limit(engine: Engine) -> None:
    send(engine, b"1", kind="detect")
    assert engine.peek(ALL, 1, 1)[0].expires_at == START + 500
    assert engine.peek(DETECT, 1, 1)[0].expires_at == START + 100


def test_a_scheduled_message_waits_in_the_topic_and_meets_the_rules_of_its_hour(engine: Engine, clock: Clock) -> None:
    engine.send("images", [Message(b"1", scheduled_enqueue_time=START + 60)])
    assert (engine.counts("images").scheduled, engine.counts(ALL).total) == (1, 0)
    engine.namespace.create_subscription("images", "late")
    clock.now += 60
    assert engine.counts("images").scheduled == 0
    assert engine.counts("images/subscriptions/late").active == 1


def test_a_scheduled_message_can_be_cancelled_at_the_topic(engine: Engine, clock: Clock) -> None:
    numbers = engine.send("images", [Message(b"1", scheduled_enqueue_time=START + 60)])
    engine.cancel_scheduled("images", numbers)
    clock.now += 60
    assert engine.counts(ALL).active == 0


def test_duplicates_are_swallowed_by_the_topic_before_any_subscription(engine: Engine) -> None:
    engine.send("images", [Message(b"1", message_id="same"), Message(b"2", message_id="same")])
    assert engine.counts(ALL).active == 1


def test_a_dead_letter_belongs_to_its_subscription(engine: Engine) -> None:
    send(engine, b"1", kind="detect")
    (copy,) = engine.receive(DETECT, 1)
    engine.abandon(DETECT, copy.lock_token)
    (dead,) = engine.peek(f"{DETECT}/$deadletterqueue", 1, 9)
    assert dead.dead_letter_source == "images/Subscriptions/detect"
    assert (engine.counts(DETECT).dead_letter, engine.counts(ALL).dead_letter) == (1, 0)


def test_the_topics_size_is_that_of_all_its_copies(engine: Engine) -> None:
    send(engine, b"12345", kind="detect")
    engine.send("images", [Message(b"123", scheduled_enqueue_time=START + 60)])
    assert engine.counts("images").size_bytes == 13


def test_a_topic_cannot_be_received_from_and_a_subscription_not_sent_to(engine: Engine) -> None:
    for action in (
        lambda: engine.receive("images", 1),
        lambda: engine.attach_consumer("images", lambda found: None),
        lambda: engine.send(ALL, [Message(b"")]),
        lambda: engine.send(f"{ALL}/$DeadLetterQueue", [Message(b"")]),
    ):
        with pytest.raises(NotAllowed):
            action()


def test_changed_rules_apply_to_the_next_message(engine: Engine) -> None:
    engine.namespace.delete_rule("images", "all", "$default")
    send(engine, b"1")
    engine.namespace.create_rule("images", "all", Rule("mine", SqlFilter("a = 1")))
    send(engine, b"2", a=1)
    engine.namespace.update_rule("images", "all", Rule("MINE", SqlFilter("a = 2")))
    send(engine, b"3", a=1)
    send(engine, b"4", a=2)
    assert [found.message.raw for found in engine.receive(ALL, 9)] == [b"2", b"4"]
    assert [rule.name for rule in engine.namespace.rules("images", "all")] == ["mine"]


def test_a_deleted_topic_takes_its_subscriptions_and_timers_with_it(engine: Engine) -> None:
    closed: list[EngineError] = []
    engine.attach_consumer(ALL, lambda found: None, on_closed=closed.append)
    send(engine, b"1")
    engine.send("images", [Message(b"1", scheduled_enqueue_time=START + 60)])
    engine.namespace.delete_topic("Images")
    assert len(closed) == 1
    assert engine.next_timer() is None
    for path in ("images", ALL, f"{ALL}/$DeadLetterQueue"):
        with pytest.raises(EntityNotFound):
            engine.resolve(path)


def test_names_are_taken_whatever_their_case_or_kind(engine: Engine) -> None:
    namespace = engine.namespace
    for action in (
        lambda: namespace.create_queue("IMAGES"),
        lambda: namespace.create_topic("Images"),
        lambda: namespace.create_subscription("images", "ALL"),
        lambda: namespace.create_rule("images", "all", Rule("$DEFAULT")),
    ):
        with pytest.raises(EntityExists):
            action()


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/", "x" * 261, "a/subscriptions/b", "$management", "a//b", "ä"])
def test_names_that_the_service_refuses_are_refused(engine: Engine, name: str) -> None:
    with pytest.raises(InvalidArgument):
        engine.namespace.create_queue(name)


def test_names_may_have_slashes_dots_and_dashes(engine: Engine) -> None:
    engine.namespace.create_queue("eu/orders-2.fast_lane")
    assert engine.counts("EU/orders-2.fast_lane").total == 0


@pytest.mark.parametrize(
    "create",
    [
        lambda namespace: namespace.create_queue("x", QueueSettings(lock_seconds=0)),
        lambda namespace: namespace.create_queue("x", QueueSettings(lock_seconds=301)),
        lambda namespace: namespace.create_queue("x", QueueSettings(max_delivery_count=0)),
        lambda namespace: namespace.create_queue("x", QueueSettings(ttl_seconds=0)),
        lambda namespace: namespace.create_topic("x", TopicSettings(duplicate_detection_seconds=-1)),
        lambda namespace: namespace.create_subscription("images", "a/b"),
        lambda namespace: namespace.update_topic("images", TopicSettings(duplicate_detection_seconds=0)),
    ],
)
def test_settings_outside_the_limits_are_refused(engine: Engine, create: Callable[[object], object]) -> None:
    with pytest.raises(InvalidArgument):
        create(engine.namespace)


# What rules can ask beyond what the sender wrote


ARRIVED = [
    "sys.SequenceNumber = 2 AND sys.EnqueuedSequenceNumber = 2",
    "sys.EnqueuedTimeUtc = @came AND sys.enqueuedtime = @came AND EXISTS(sys.TimeToLive)",
    "sys.ExpiresAtUtc = @ends AND sys.ExpiresAt > sys.EnqueuedTimeUtc",
    "property('sys.Sequence' + 'Number') = 2 AND EXISTS(sys.EnqueuedTimeUtc)",
    "NOT EXISTS(sys.DeadLetterSource) AND sys.SequenceNumber > 1 AND NOT sys.SequenceNumber > 2",
]


@pytest.mark.parametrize("expression", ARRIVED)
def test_a_rule_can_ask_when_a_message_came_to_the_topic_and_as_which(engine: Engine, expression: str) -> None:
    came = datetime.fromtimestamp(START, UTC)
    rule = Rule("asks", SqlFilter(expression, {"came": came, "ends": came + timedelta(seconds=50)}))
    engine.namespace.create_subscription("images", "asks", rules=[rule])
    engine.send("images", [Message(b"1"), Message(b"2", ttl_seconds=50), Message(b"3")])
    assert [found.message for found in engine.peek("images/subscriptions/asks", 1, 9)] == [
        Message(b"2", ttl_seconds=50)
    ]


def test_an_action_can_keep_what_the_topic_knows(engine: Engine) -> None:
    action = SqlAction("SET number = sys.SequenceNumber; SET sys.Label = 'no. ' + property('sys.SequenceNumber')")
    engine.namespace.create_subscription("images", "asks", rules=[Rule("keeps", SqlFilter("1=1"), action=action)])
    engine.send("images", [Message(b"1"), Message(b"2")])
    seen = [found.message for found in engine.peek("images/subscriptions/asks", 1, 9)]
    assert [(type(found), found.subject) for found in seen] == [(Message, "no. 1"), (Message, "no. 2")]
    assert [found.application_properties["number"] for found in seen] == [1, 2]


def test_a_rule_sees_where_a_forwarded_message_died_and_its_first_number(engine: Engine, clock: Clock) -> None:
    namespace = engine.namespace
    namespace.create_queue("work", QueueSettings(forward_dead_lettered_to="images"))
    asks = "sys.DeadLetterSource = 'work' AND sys.EnqueuedSequenceNumber = 3 AND sys.SequenceNumber = 2"
    namespace.create_subscription("images", "asks", rules=[Rule("asks", SqlFilter(asks))])
    engine.send("images", [Message(b"own")])
    engine.send("work", [Message(b"1"), Message(b"2"), Message(b"3", ttl_seconds=50)])
    for delivery in engine.receive("work", 3)[2:]:
        assert delivery.lock_token is not None
        engine.dead_letter("work", delivery.lock_token, "bad")
    (found,) = engine.peek("images/subscriptions/asks", 1, 9)
    assert (found.message.raw, found.enqueued_sequence_number) == (b"3", 3)
