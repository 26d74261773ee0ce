"""What bounds an entity: sizes, idleness, deletion of many messages, and how far a message id counts."""

from collections.abc import Callable
from itertools import count
from uuid import UUID

import pytest

from fusebus.servicebus.engine import (
    CorrelationFilter,
    Engine,
    EntityDisabled,
    EntityExists,
    EntityNotFound,
    EntityStatus,
    InvalidArgument,
    Message,
    MessageTooLarge,
    NotAllowed,
    QueueSettings,
    QuotaExceeded,
    Rule,
    SqlAction,
    SqlFilter,
    SubscriptionSettings,
    TopicSettings,
)

START = 1_000.0
IDLE = 300.0


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
    return Engine(clock, new_token=lambda: UUID(int=next(numbers)), max_message_bytes=1_000)


# Sizes


def test_a_message_over_the_limit_is_refused_with_its_batch(engine: Engine) -> None:
    engine.namespace.create_queue("q")
    with pytest.raises(MessageTooLarge, match="1001 bytes"):
        engine.send("q", [Message(b"small"), Message(bytes(1_001))])
    assert engine.counts("q").total == 0
    assert engine.message_limit("q") == 1_000


def test_an_entity_may_have_a_limit_of_its_own(engine: Engine) -> None:
    engine.namespace.create_topic("t", TopicSettings(max_message_kilobytes=2))
    engine.send("t", [Message(bytes(2_048))])
    with pytest.raises(MessageTooLarge):
        engine.send("t", [Message(bytes(2_049))])


def test_a_full_topic_is_full_of_what_its_subscriptions_hold(engine: Engine) -> None:
    engine.max_message_bytes = 600_000
    engine.namespace.create_topic("t", TopicSettings(max_size_megabytes=1))
    engine.namespace.create_subscription("t", "one")
    engine.namespace.create_subscription("t", "two")
    engine.send("t", [Message(bytes(600_000))])
    with pytest.raises(QuotaExceeded):
        engine.send("t", [Message(b"1")])
    engine.check_sendable("t")  # the link may stay: room comes back
    for name in ("one", "two"):
        assert engine.purge(f"t/subscriptions/{name}") == 1
    assert (engine.counts("t").size_bytes, engine.held_bytes) == (0, 0)
    engine.send("t", [Message(b"1")])


def test_senders_are_turned_away_from_what_is_closed(engine: Engine) -> None:
    engine.namespace.create_queue("q", QueueSettings(status=EntityStatus.SEND_DISABLED))
    with pytest.raises(EntityDisabled):
        engine.check_sendable("q")
    with pytest.raises(NotAllowed):
        engine.check_sendable("q/$DeadLetterQueue")


def test_the_dead_letters_of_a_disabled_entity_are_closed_too(engine: Engine) -> None:
    engine.namespace.create_queue("q", QueueSettings(status=EntityStatus.DISABLED))
    with pytest.raises(EntityDisabled):
        engine.receive("q/$DeadLetterQueue", 1)


# Deleting many


def test_a_batch_is_deleted_of_what_is_old_and_free(engine: Engine, clock: Clock) -> None:
    engine.namespace.create_queue("q")
    engine.send("q", [Message(b"locked"), Message(b"deferred"), Message(b"1"), Message(b"2"), Message(b"3")])
    _, deferred = engine.receive("q", 2)
    assert deferred.lock_token is not None
    engine.defer("q", deferred.lock_token)
    clock.now += 5
    engine.send("q", [Message(b"young"), Message(b"later", scheduled_enqueue_time=START + 60)])
    assert engine.batch_delete("q", 2, START + 5) == 2
    assert engine.batch_delete("q", 100, START + 5) == 1
    assert [found.message.raw for found in engine.peek("q", 1, 9)] == [b"locked", b"deferred", b"young", b"later"]
    assert engine.batch_delete("q", 100) == 1


def test_a_batch_can_be_deleted_from_one_session(engine: Engine) -> None:
    engine.namespace.create_queue("q", QueueSettings(requires_session=True))
    engine.send("q", [Message(b"1", session_id="a"), Message(b"2", session_id="b"), Message(b"3", session_id="a")])
    assert engine.batch_delete("q", 9, session_id="a") == 2
    assert engine.list_sessions("q") == ["b"]


def test_memory_of_indexes_goes_with_the_messages(engine: Engine) -> None:
    engine.namespace.create_queue("q", QueueSettings(ttl_seconds=1_000))
    engine.send("q", [Message(b"x")] * 10_000)
    while engine.batch_delete("q", 100):
        pass
    mailbox = engine.resolve("q").mailbox
    assert len(mailbox._order) + len(mailbox._ready) + len(mailbox._lives) < 300


def test_thousands_of_consumers_come_and_go_cheaply(engine: Engine) -> None:
    engine.namespace.create_queue("q")
    got: list[bytes] = []
    consumers = [engine.attach_consumer("q", lambda found: got.append(found.message.raw)) for _ in range(5_000)]
    for consumer in consumers:
        consumer.set_credit(1)
    for consumer in consumers[:-1]:
        consumer.detach()
    engine.send("q", [Message(b"1"), Message(b"2")])
    assert got == [b"1"]
    assert len(engine.resolve("q").mailbox._line) < 100


# Idleness


def test_an_idle_queue_deletes_itself(engine: Engine, clock: Clock) -> None:
    engine.namespace.create_queue("q", QueueSettings(auto_delete_on_idle_seconds=IDLE))
    engine.send("q", [Message(b"kept messages do not count as use")])
    assert engine.next_timer() == START + IDLE
    clock.now += IDLE
    with pytest.raises(EntityNotFound):
        engine.resolve("q") if engine.tick() is None else None
    engine.namespace.create_queue("q")


@pytest.mark.parametrize(
    "use",
    [
        lambda engine: engine.send("q", [Message(b"1")]),
        lambda engine: engine.receive("q", 1),
        lambda engine: engine.peek("q", 1, 1),
        lambda engine: engine.receive("q/$DeadLetterQueue", 1),
        lambda engine: engine.attach_consumer("q", lambda found: None).detach(),
        lambda engine: engine.namespace.update_queue("q", QueueSettings(auto_delete_on_idle_seconds=IDLE)),
    ],
)
def test_use_puts_the_end_off(engine: Engine, clock: Clock, use: Callable[[Engine], object]) -> None:
    engine.namespace.create_queue("q", QueueSettings(auto_delete_on_idle_seconds=IDLE))
    clock.now += IDLE - 1
    use(engine)
    clock.now += IDLE - 1
    engine.tick()
    assert engine.resolve("q")
    clock.now += 1
    engine.tick()
    with pytest.raises(EntityNotFound):
        engine.resolve("q")


def test_receivers_and_scheduled_messages_keep_a_queue(engine: Engine, clock: Clock) -> None:
    engine.namespace.create_queue("q", QueueSettings(auto_delete_on_idle_seconds=IDLE))
    engine.namespace.create_queue("later", QueueSettings(auto_delete_on_idle_seconds=IDLE))
    consumer = engine.attach_consumer("q", lambda found: None)
    engine.send("later", [Message(b"1", scheduled_enqueue_time=START + 5 * IDLE)])
    for _ in range(4):
        clock.now += IDLE
        engine.tick()
    assert engine.resolve("later")
    consumer.detach()
    clock.now += IDLE * 2
    engine.tick()
    with pytest.raises(EntityNotFound):
        engine.resolve("q")


def test_idleness_begins_when_the_last_receiver_leaves_however_quiet_it_was(engine: Engine, clock: Clock) -> None:
    engine.namespace.create_queue("q", QueueSettings(auto_delete_on_idle_seconds=IDLE))
    consumer = engine.attach_consumer("q", lambda found: None)
    clock.now += IDLE - 1
    consumer.detach()
    clock.now += IDLE - 1
    engine.tick()
    assert engine.resolve("q")


def test_a_topic_is_in_use_as_long_as_a_subscription_is(engine: Engine, clock: Clock) -> None:
    namespace = engine.namespace
    namespace.create_topic("t", TopicSettings(auto_delete_on_idle_seconds=IDLE))
    namespace.create_subscription("t", "used")
    namespace.create_subscription("t", "idle", SubscriptionSettings(auto_delete_on_idle_seconds=IDLE))
    clock.now += IDLE - 1
    engine.receive("t/subscriptions/used", 1)
    clock.now += 1
    engine.tick()
    assert [found.name for found in namespace.subscriptions("t")] == ["used"]
    clock.now += IDLE
    engine.tick()
    with pytest.raises(EntityNotFound):
        engine.resolve("t/subscriptions/used")


def test_what_is_forwarded_to_an_entity_is_use_of_it(engine: Engine, clock: Clock) -> None:
    namespace = engine.namespace
    namespace.create_queue("queue", QueueSettings(auto_delete_on_idle_seconds=IDLE))
    namespace.create_topic("topic", TopicSettings(auto_delete_on_idle_seconds=IDLE))
    namespace.create_queue("to-topic", QueueSettings(forward_to="topic"))
    namespace.create_topic("spread")
    namespace.create_subscription("spread", "to-queue", SubscriptionSettings(forward_to="queue"))
    for _ in range(4):
        clock.now += IDLE - 1
        engine.send("to-topic", [Message(b"1")])
        engine.send("spread", [Message(b"1")])
    assert engine.counts("queue").active == 4
    assert engine.resolve("topic")
    clock.now += IDLE
    engine.tick()
    for path in ("queue", "topic"):
        with pytest.raises(EntityNotFound):
            engine.resolve(path)


@pytest.mark.parametrize("setting", ["forward_to", "forward_dead_lettered_to"])
def test_what_forwards_is_in_use_however_quiet_it_is(engine: Engine, clock: Clock, setting: str) -> None:
    namespace = engine.namespace
    namespace.create_queue("target")
    forwarding = {setting: "target"}
    namespace.create_queue("q", QueueSettings(auto_delete_on_idle_seconds=IDLE, **forwarding))
    namespace.create_topic("t", TopicSettings(auto_delete_on_idle_seconds=IDLE))
    namespace.create_subscription(
        "t",
        "s",
        SubscriptionSettings(auto_delete_on_idle_seconds=IDLE, **forwarding),
    )
    for _ in range(4):
        clock.now += IDLE
        engine.tick()
    assert engine.resolve("t/subscriptions/s")
    namespace.update_queue("q", QueueSettings(auto_delete_on_idle_seconds=IDLE))
    clock.now += IDLE
    engine.tick()
    with pytest.raises(EntityNotFound):
        engine.resolve("q")


# How far a message id counts


def test_in_a_partitioned_queue_an_id_counts_within_its_partition(engine: Engine) -> None:
    settings = QueueSettings(enable_partitioning=True, duplicate_detection_seconds=60)
    engine.namespace.create_queue("q", settings)
    for partition in ("a", "b", "a", None, None):
        engine.send("q", [Message(b"1", message_id="x", partition_key=partition)])
    assert engine.counts("q").active == 3
    engine.send("q", [Message(b"1", message_id="x", session_id="a")])
    assert engine.counts("q").active == 3


def test_without_partitions_an_id_counts_over_sessions(engine: Engine) -> None:
    engine.namespace.create_queue("q", QueueSettings(requires_session=True, duplicate_detection_seconds=60))
    for session_id in ("a", "b"):
        engine.send("q", [Message(b"1", message_id="x", session_id=session_id)])
    assert engine.list_sessions("q") == ["a"]


# Rules with actions


def test_rules_with_actions_make_copies_of_their_own(engine: Engine) -> None:
    engine.namespace.create_topic("t")
    rules = [
        Rule("all"),
        Rule("also-all", CorrelationFilter(properties={"n": 1})),
        Rule("twice", SqlFilter("n = 1"), action=SqlAction("SET n = n + n; SET sys.Label = 'twice'")),
        Rule("less", SqlFilter("n = 1"), action=SqlAction("REMOVE n")),
        Rule("no-match", SqlFilter("n = 2"), action=SqlAction("SET n = 0")),
    ]
    engine.namespace.create_subscription("t", "s", rules=rules)
    engine.send("t", [Message(b"1", application_properties={"n": 1}, subject="one")])
    seen = [(f.message.subject, dict(f.message.application_properties)) for f in engine.peek("t/subscriptions/s", 1, 9)]
    assert seen == [
        ("one", {"n": 1}),
        ("twice", {"n": 2, "RuleName": "twice"}),
        ("one", {"RuleName": "less"}),
    ]


@pytest.mark.parametrize("dead_letter", [True, False])
def test_a_rule_that_fails_dead_letters_or_drops_the_message(engine: Engine, dead_letter: bool) -> None:
    engine.namespace.create_topic("t")
    settings = SubscriptionSettings(dead_letter_on_filter_error=dead_letter)
    engine.namespace.create_subscription("t", "s", settings, [Rule("bad", SqlFilter("n / 0 = 1"))])
    engine.send("t", [Message(b"1", application_properties={"n": 1})])
    dead = engine.peek("t/subscriptions/s/$DeadLetterQueue", 1, 9)
    assert [found.modified_properties["DeadLetterReason"] for found in dead] == (
        ["FilterEvaluationException"] if dead_letter else []
    )


# Settings


@pytest.mark.parametrize(
    ("element", "settings"),
    [
        ("AutoDeleteOnIdle", QueueSettings(auto_delete_on_idle_seconds=0)),
        ("LockDuration", QueueSettings(lock_seconds=301)),
        ("MaxDeliveryCount", QueueSettings(max_delivery_count=0)),
        ("DefaultMessageTimeToLive", QueueSettings(ttl_seconds=-1)),
        ("MaxSizeInMegabytes", QueueSettings(max_size_megabytes=0)),
        ("MaxMessageSizeInKilobytes", QueueSettings(max_message_kilobytes=0)),
    ],
)
def test_a_refused_setting_is_named(engine: Engine, element: str, settings: QueueSettings) -> None:
    with pytest.raises(InvalidArgument, match=f"^{element}: "):
        engine.namespace.create_queue("q", settings)


def test_transfer_dead_letters_have_an_address(engine: Engine) -> None:
    engine.namespace.create_queue("q")
    assert engine.resolve("Q/$transfer/$deadletterqueue").path == "q/$Transfer/$DeadLetterQueue"
    with pytest.raises(EntityExists):
        engine.namespace.create_topic("q")
