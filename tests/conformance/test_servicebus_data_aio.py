"""The broker's data plane through the unmodified asyncio SDK."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from azure.servicebus import ServiceBusMessage, ServiceBusReceiveMode, ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.exceptions import (
    MessageLockLostError,
    MessageSizeExceededError,
    MessagingEntityNotFoundError,
    ServiceBusAuthenticationError,
    ServiceBusError,
)

from fusebus.servicebus.broker import BrokerOptions
from fusebus.servicebus.engine import QueueSettings
from fusebus.servicebus.testing import BrokerThread

LOCK_SECONDS = 2.0
WAIT_SECONDS = 20.0  # as long as a message that is there may take to come
QUIET_SECONDS = 0.3  # as long as we wait for a message that must not come
# The SDK takes half a second to open a sender or receiver, and up to a second to close it. So a pair for
# each test is opened early, all at once, and closed in the background.
EARLY = [f"work/{number}" for number in range(15)]
TOPOLOGY = {
    "queues": [{"name": "spare"}, *({"name": name, "lock_seconds": 30} for name in EARLY)],
    "topics": [
        {
            "name": "images",
            "subscriptions": [
                {"name": "detect", "rules": [{"name": "kind", "correlation": {"kind": "detect"}}]},
                {"name": "all"},
            ],
        }
    ],
}


pytestmark = pytest.mark.asyncio(loop_scope="module")
_unused = iter(EARLY)
_opened: dict[str, tuple[Any, ...]] = {}
_closing: set[asyncio.Task[None]] = set()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerThread]:
    """One for all tests of the module: each has a queue of its own."""
    directory = tmp_path_factory.getbasetemp() / "broker-authority"
    with BrokerThread(BrokerOptions(topology=TOPOLOGY, ca_directory=directory)) as broker:
        yield broker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(broker: BrokerThread) -> AsyncIterator[ServiceBusClient]:
    client = ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0)
    await asyncio.gather(*(_open_early(client, name) for name in EARLY))
    yield client
    _closing.update(asyncio.create_task(handler.close()) for pair in _opened.values() for handler in pair)
    await asyncio.gather(*_closing)
    await client.close()


async def _open_early(client: ServiceBusClient, name: str) -> None:
    handlers = (client.get_queue_sender(name), client.get_queue_receiver(name))
    await asyncio.gather(*(handler.__aenter__() for handler in handlers))
    _opened[name] = handlers


@pytest.fixture
def queue(client: ServiceBusClient) -> str:
    """A queue with long locks that no other test uses."""
    return next(_unused)


@pytest.fixture
def short(broker: BrokerThread) -> str:
    """A new queue with short locks and two deliveries."""
    name = f"short-{uuid4().hex[:8]}"
    settings = QueueSettings(lock_seconds=LOCK_SECONDS, max_delivery_count=2)
    broker.call(lambda: broker.broker.engine.namespace.create_queue(name, settings))
    return name


async def send(client: ServiceBusClient, name: str, *messages: ServiceBusMessage) -> None:
    async with together(client.get_queue_sender(name)) as (sender,):
        await sender.send_messages(list(messages))


@asynccontextmanager
async def together(*handlers: Any) -> AsyncIterator[tuple[Any, ...]]:
    """Opens senders and receivers at the same time, and closes them later."""
    await asyncio.gather(*(handler.__aenter__() for handler in handlers))
    async with _lent(handlers):
        yield handlers


@asynccontextmanager
async def _lent(handlers: tuple[Any, ...]) -> AsyncIterator[tuple[Any, ...]]:
    try:
        yield handlers
    finally:
        _closing.update(asyncio.create_task(handler.close()) for handler in handlers)


def both(client: ServiceBusClient, name: str, **options: Any) -> AbstractAsyncContextManager[tuple[Any, ...]]:
    """A sender and a receiver of one queue; those that were opened early, unless they need options."""
    if not options and name in _opened:
        return _lent(_opened.pop(name))
    return together(client.get_queue_sender(name), client.get_queue_receiver(name, **options))


async def receive(receiver: Any, count: int = 1) -> list[Any]:
    """Exactly `count` messages; an AssertionError if they do not come."""
    found: list[Any] = []
    async with asyncio.timeout(WAIT_SECONDS):
        while len(found) < count:
            found += await receiver.receive_messages(count - len(found), max_wait_time=WAIT_SECONDS)
    return found


async def test_everything_a_sender_sets_arrives_unchanged(client: ServiceBusClient, queue: str) -> None:
    properties = {"s": "é", "i": -5, "f": 1.5, "b": True, "u": uuid4(), "t": datetime(2026, 1, 2, tzinfo=UTC)}
    await send(
        client,
        queue,
        ServiceBusMessage(
            b"\x00body",
            application_properties=properties,
            message_id="id",
            correlation_id="corr",
            subject="label",
            to="to",
            reply_to="back",
            content_type="application/json",
            session_id="group",
            time_to_live=timedelta(hours=1),
        ),
    )
    async with together(client.get_queue_receiver(queue)) as (receiver,):
        (message,) = await receive(receiver)
        assert b"".join(message.body) == b"\x00body"
        sent = {key.encode(): value.encode() if isinstance(value, str) else value for key, value in properties.items()}
        sent[b"t"] = int(properties["t"].timestamp() * 1000)
        assert message.application_properties == sent
        assert (message.message_id, message.correlation_id, message.subject) == ("id", "corr", "label")
        assert (message.to, message.reply_to, message.content_type) == ("to", "back", "application/json")
        assert message.session_id == "group"
        assert message.time_to_live == timedelta(hours=1)
        assert (message.sequence_number, message.delivery_count) == (1, 0)
        assert message.expires_at_utc == message.enqueued_time_utc + timedelta(hours=1)
        assert abs((message.locked_until_utc - datetime.now(UTC)).total_seconds() - 30) < 5
        await receiver.complete_message(message)


async def test_a_body_of_any_allowed_size_arrives(client: ServiceBusClient, queue: str) -> None:
    async with both(client, queue) as (sender, receiver):
        for size in (0, 1, 65_000, 250_000):
            body = bytes(index % 251 for index in range(size))
            await sender.send_messages(ServiceBusMessage(body))
            (message,) = await receive(receiver)
            assert b"".join(message.body) == body
            await receiver.complete_message(message)


async def test_a_message_that_is_too_large_is_refused(client: ServiceBusClient, queue: str) -> None:
    async with together(client.get_queue_sender(queue)) as (sender,):
        with pytest.raises(MessageSizeExceededError):
            await sender.send_messages(ServiceBusMessage(b"x" * 270_000))


async def test_a_batch_arrives_whole_and_in_order(client: ServiceBusClient, queue: str) -> None:
    async with together(client.get_queue_sender(queue)) as (sender,):
        batch = await sender.create_message_batch()
        for number in range(150):
            batch.add_message(ServiceBusMessage(str(number)))
        await sender.send_messages(batch)
    async with together(client.get_queue_receiver(queue, prefetch_count=50)) as (receiver,):
        messages = await receive(receiver, 150)
        assert [str(message) for message in messages] == [str(number) for number in range(150)]
        assert [message.sequence_number for message in messages] == list(range(1, 151))


async def test_a_completed_message_is_gone(client: ServiceBusClient, queue: str) -> None:
    async with both(client, queue) as (sender, receiver):
        await sender.send_messages(ServiceBusMessage("a"))
        (message,) = await receive(receiver)
        await receiver.complete_message(message)
        assert await receiver.receive_messages(max_wait_time=QUIET_SECONDS) == []
        assert await receiver.peek_messages(sequence_number=1) == []


async def test_a_dead_lettered_message_says_why_and_where_from(client: ServiceBusClient, queue: str) -> None:
    async with both(client, queue) as (sender, receiver):
        await sender.send_messages(ServiceBusMessage("a", application_properties={"own": "kept"}))
        (message,) = await receive(receiver)
        await receiver.dead_letter_message(message, reason="poison", error_description="no JSON")
    async with together(client.get_queue_receiver(queue, sub_queue=ServiceBusSubQueue.DEAD_LETTER)) as (receiver,):
        (peeked,) = await receiver.peek_messages()
        (dead,) = await receive(receiver)
        for found in (peeked, dead):
            assert (found.dead_letter_reason, found.dead_letter_error_description) == ("poison", "no JSON")
            assert found.application_properties[b"own"] == b"kept"
        assert dead.dead_letter_source == queue
        await receiver.complete_message(dead)


async def test_a_message_is_dead_lettered_when_its_deliveries_are_used_up(client: ServiceBusClient, short: str) -> None:
    async with both(client, short) as (sender, receiver):
        await sender.send_messages(ServiceBusMessage("a"))
        for _ in range(2):
            (message,) = await receive(receiver)
            await receiver.abandon_message(message)
    async with together(client.get_queue_receiver(short, sub_queue=ServiceBusSubQueue.DEAD_LETTER)) as (receiver,):
        (dead,) = await receive(receiver)
        assert dead.dead_letter_reason == "MaxDeliveryCountExceeded"


async def test_receive_and_delete_leaves_nothing_to_settle(client: ServiceBusClient, queue: str) -> None:
    async with both(client, queue, receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE) as (sender, receiver):
        await sender.send_messages(ServiceBusMessage("a"))
        (message,) = await receive(receiver)
        assert message.lock_token is None
        assert message.locked_until_utc is None
        assert await receiver.peek_messages(sequence_number=1) == []


async def test_an_expired_lock_is_lost_and_the_message_comes_again(client: ServiceBusClient, short: str) -> None:
    async with both(client, short) as (sender, receiver):
        await sender.send_messages(ServiceBusMessage("a"))
        (first,) = await receive(receiver)
        (second,) = await receive(receiver)
        assert second.delivery_count == 1
        with pytest.raises(MessageLockLostError):
            await receiver.complete_message(first)
        with pytest.raises(MessageLockLostError):
            await receiver.renew_message_lock(first)
        await receiver.complete_message(second)


async def test_a_renewed_lock_holds(client: ServiceBusClient, short: str) -> None:
    async with both(client, short) as (sender, receiver):
        await sender.send_messages(ServiceBusMessage("a"))
        (message,) = await receive(receiver)
        before = message.locked_until_utc
        while datetime.now(UTC) < before + timedelta(seconds=0.2):
            await receiver.renew_message_lock(message)
            await asyncio.sleep(LOCK_SECONDS / 4)
        assert message.locked_until_utc > before
        await receiver.complete_message(message)


async def test_messages_left_over_when_a_receiver_closes_come_again_uncounted(
    client: ServiceBusClient, queue: str
) -> None:
    async with both(client, queue, prefetch_count=5) as (sender, receiver):
        await sender.send_messages([ServiceBusMessage(str(number)) for number in range(5)])
        (message,) = await receive(receiver)
        await receiver.complete_message(message)
        await receiver.close()
    async with together(client.get_queue_receiver(queue)) as (receiver,):
        messages = await receive(receiver, 4)
        assert [str(message) for message in messages] == ["1", "2", "3", "4"]
        assert {message.delivery_count for message in messages} == {0}


async def test_peek_shows_locked_messages_and_takes_nothing(client: ServiceBusClient, queue: str) -> None:
    async with both(client, queue) as (sender, receiver):
        await sender.send_messages([ServiceBusMessage(str(number)) for number in range(3)])
        await receive(receiver)
        peeked = await receiver.peek_messages(10, sequence_number=1)
        assert [str(message) for message in peeked] == ["0", "1", "2"]
        assert await receive(receiver, 2)


async def test_a_topic_gives_each_subscription_what_its_rules_admit(client: ServiceBusClient) -> None:
    async with together(client.get_topic_sender("images")) as (sender,):
        for kind in ("detect", "convert"):
            await sender.send_messages(ServiceBusMessage(kind, application_properties={"kind": kind}))
    async with together(client.get_subscription_receiver("images", "detect")) as (receiver,):
        assert [str(message) for message in await receiver.receive_messages(5, max_wait_time=1)] == ["detect"]
    async with together(client.get_subscription_receiver("images", "all")) as (receiver,):
        messages = await receive(receiver, 2)
        assert [str(message) for message in messages] == ["detect", "convert"]
        await receiver.dead_letter_message(messages[0], reason="r")
    dead_letters = client.get_subscription_receiver("images", "all", sub_queue=ServiceBusSubQueue.DEAD_LETTER)
    async with together(dead_letters) as (dead,):
        (message,) = await receive(dead)
        assert message.dead_letter_source == "images/Subscriptions/all"


async def test_two_receivers_share_a_queue_without_overlap(client: ServiceBusClient, queue: str) -> None:
    await send(client, queue, *(ServiceBusMessage(str(number)) for number in range(20)))
    async with together(client.get_queue_receiver(queue), client.get_queue_receiver(queue)) as (one, two):
        first, second = await asyncio.gather(receive(one, 10), receive(two, 10))
        assert sorted(int(str(message)) for message in first + second) == list(range(20))


async def test_many_settlements_at_once_are_each_confirmed(client: ServiceBusClient, queue: str) -> None:
    async with both(client, queue) as (sender, receiver):
        await sender.send_messages([ServiceBusMessage(str(number)) for number in range(100)])
        messages = await receive(receiver, 100)
        async with asyncio.timeout(WAIT_SECONDS):
            await asyncio.gather(*(receiver.complete_message(message) for message in messages))
        assert await receiver.peek_messages(sequence_number=1) == []


async def test_an_unknown_entity_is_refused_clearly(client: ServiceBusClient) -> None:
    with pytest.raises((ServiceBusAuthenticationError, MessagingEntityNotFoundError)):
        await send(client, "nowhere", ServiceBusMessage("a"))


async def test_sessions_are_refused_clearly(client: ServiceBusClient, queue: str) -> None:
    with pytest.raises(ServiceBusError, match="session"):
        async with together(client.get_queue_receiver(queue, session_id="s")) as (receiver,):
            await receiver.receive_messages(max_wait_time=QUIET_SECONDS)


async def test_nothing_can_be_received_from_a_topic(client: ServiceBusClient) -> None:
    with pytest.raises(ServiceBusError):
        async with together(client.get_queue_receiver("images")) as (receiver,):
            await receiver.receive_messages(max_wait_time=QUIET_SECONDS)


async def test_a_forced_detach_reaches_the_client_and_it_reconnects(broker: BrokerThread) -> None:
    async with (
        ServiceBusClient.from_connection_string(
            broker.connection_string, retry_total=3, retry_backoff_factor=0.05
        ) as client,
        together(client.get_queue_sender("spare"), client.get_queue_receiver("spare")) as (sender, receiver),
    ):
        await sender.send_messages(ServiceBusMessage("a"))
        (message,) = await receive(receiver)
        assert broker.detach_links("spare") == 2
        await sender.send_messages(ServiceBusMessage("b"))
        (other,) = await receive(receiver)
        assert str(other) == "b"
        await receiver.complete_message(message)


async def test_a_lost_lock_and_a_failed_renewal_can_be_ordered(
    broker: BrokerThread, client: ServiceBusClient, queue: str
) -> None:
    async with both(client, queue) as (sender, receiver):
        await sender.send_messages(ServiceBusMessage("a"))
        (message,) = await receive(receiver)
        broker.fail_renewals(1, queue)
        with pytest.raises(ServiceBusError):
            await receiver.renew_message_lock(message)
        await receiver.renew_message_lock(message)
        assert broker.lose_locks(queue) == 1
        with pytest.raises(MessageLockLostError):
            await receiver.complete_message(message)


async def test_lock_tokens_are_the_same_on_link_and_management(client: ServiceBusClient, queue: str) -> None:
    async with both(client, queue) as (sender, receiver):
        await sender.send_messages(ServiceBusMessage("a"))
        (message,) = await receive(receiver)
        assert isinstance(message.lock_token, UUID)
        assert (
            message.lock_token.bytes_le
            == message._raw_amqp_message.delivery_annotations.get(b"x-opt-lock-token", message.lock_token).bytes_le
        )
        await receiver.renew_message_lock(message)  # by the token, through management
        await receiver.complete_message(message)
