"""Message sessions through the unmodified asyncio SDK."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusMessage, ServiceBusReceiveMode, ServiceBusSubQueue
from azure.servicebus.aio import AutoLockRenewer, ServiceBusClient
from azure.servicebus.exceptions import (
    OperationTimeoutError,
    ServiceBusError,
    SessionCannotBeLockedError,
    SessionLockLostError,
)

from fusebus.servicebus.amqp.codec import encode
from fusebus.servicebus.broker import BrokerOptions
from fusebus.servicebus.engine import Message, QueueSettings, SubscriptionSettings
from fusebus.servicebus.testing import BrokerThread
from fusebus.servicebus.wire_messages import engine_message

LOCK_SECONDS = 2.0
WAIT_SECONDS = 20.0
QUIET_SECONDS = 0.3

_closing: set[asyncio.Task[None]] = set()
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerThread]:
    directory = tmp_path_factory.getbasetemp() / "broker-authority"
    with BrokerThread(BrokerOptions(ca_directory=directory)) as broker:
        yield broker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(broker: BrokerThread) -> AsyncIterator[ServiceBusClient]:
    async with ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0) as client:
        yield client
        await asyncio.gather(*_closing)


@pytest.fixture
def queue(broker: BrokerThread, request: pytest.FixtureRequest) -> str:
    """A queue with sessions that only this test uses; `lock_seconds` by parameter."""
    name = f"queue-{abs(hash(request.node.name)):x}"
    settings = QueueSettings(lock_seconds=getattr(request, "param", 30.0), max_delivery_count=3, requires_session=True)
    broker.call(lambda: broker.broker.engine.namespace.create_queue(name, settings))
    return name


short = pytest.mark.parametrize("queue", [LOCK_SECONDS], indirect=True, ids=["short"])


Send = Callable[..., None]


@pytest.fixture
def send(broker: BrokerThread, queue: str) -> Send:
    """`send(("session", "body"), ...)`, past the SDK, which takes half a second to open a sender."""

    def message(session_id: str, body: str) -> Message:
        properties = encode([*[None] * 10, session_id])
        return engine_message(b"\x00\x53\x73" + properties + b"\x00\x53\x75" + encode(body.encode()))

    def sent(*pairs: tuple[str, str]) -> None:
        messages = [message(session_id, body) for session_id, body in pairs]
        broker.call(lambda: broker.broker.engine.send(queue, messages))

    return sent


@asynccontextmanager
async def opened(handler: Any) -> AsyncIterator[Any]:
    """Closes it later: the SDK takes up to a second for that."""
    await handler.__aenter__()
    try:
        yield handler
    finally:
        _closing.add(asyncio.create_task(handler.close()))


async def bodies(receiver: Any, count: int) -> list[str]:
    """The next messages, each completed."""
    messages = await receiver.receive_messages(count, max_wait_time=WAIT_SECONDS)
    for message in messages:
        await receiver.complete_message(message)
    return [str(message) for message in messages]


async def test_a_session_receiver_gets_only_its_session_in_order(
    client: ServiceBusClient, queue: str, send: Send
) -> None:
    send(("a", "1"), ("b", "2"), ("a", "3"))
    async with opened(client.get_queue_receiver(queue, session_id="a")) as receiver:
        assert receiver.session.session_id == "a"
        assert abs(receiver.session.locked_until_utc - datetime.now(UTC) - timedelta(seconds=30)) < timedelta(
            seconds=10
        )
        messages = await receiver.receive_messages(2, max_wait_time=WAIT_SECONDS)
        assert [(str(message), message.session_id) for message in messages] == [("1", "a"), ("3", "a")]
        assert {message.locked_until_utc for message in messages} == {None}  # the session has the lock
        for message in messages:
            await receiver.complete_message(message)
        assert await receiver.receive_messages(max_wait_time=QUIET_SECONDS) == []


async def test_the_next_session_is_one_that_has_messages_and_is_free(
    client: ServiceBusClient, queue: str, send: Send
) -> None:
    send(("a", "1"), ("b", "2"))
    async with (
        client.get_queue_receiver(queue, session_id="a"),
        client.get_queue_receiver(queue, session_id=NEXT_AVAILABLE_SESSION) as receiver,
    ):
        assert receiver.session.session_id == "b"
        assert await bodies(receiver, 1) == ["2"]


async def test_waiting_for_a_session_ends_when_one_comes(client: ServiceBusClient, queue: str, send: Send) -> None:
    receiver = client.get_queue_receiver(queue, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=WAIT_SECONDS)
    waiting = asyncio.create_task(receiver.__aenter__())
    await asyncio.sleep(QUIET_SECONDS)
    assert not waiting.done()
    send(("late", "1"))
    await waiting
    async with opened(receiver):
        (message,) = await receiver.receive_messages(1, max_wait_time=WAIT_SECONDS)
        assert (str(message), message.session_id) == ("1", "late")


async def test_waiting_for_a_session_ends_with_a_timeout_when_none_comes(
    client: ServiceBusClient, queue: str, send: Send
) -> None:
    with pytest.raises(OperationTimeoutError):
        async with opened(
            client.get_queue_receiver(queue, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=1)
        ) as receiver:
            await receiver.receive_messages()


async def test_a_locked_session_is_refused_until_its_receiver_closes(
    client: ServiceBusClient, queue: str, send: Send
) -> None:
    send(("a", "1"))
    async with client.get_queue_receiver(queue, session_id="a") as first:
        (message,) = await first.receive_messages(1, max_wait_time=WAIT_SECONDS)
        with pytest.raises(SessionCannotBeLockedError):
            async with client.get_queue_receiver(queue, session_id="a"):
                pass
    async with client.get_queue_receiver(queue, session_id="a") as second:
        (again,) = await second.receive_messages(1, max_wait_time=WAIT_SECONDS)
        assert again.sequence_number == message.sequence_number
        await second.complete_message(again)


async def test_the_empty_string_is_a_session_too(client: ServiceBusClient, queue: str, send: Send) -> None:
    async with opened(client.get_queue_receiver(queue, session_id="")) as receiver:
        await receiver.session.set_state("s")
        assert await receiver.session.get_state() == b"s"


async def test_state_is_kept_between_receivers(client: ServiceBusClient, queue: str, send: Send) -> None:
    async with client.get_queue_receiver(queue, session_id="a") as receiver:
        assert await receiver.session.get_state() is None
        await receiver.session.set_state(b"\x00step 1")
    async with client.get_queue_receiver(queue, session_id="a") as receiver:
        assert await receiver.session.get_state() == b"\x00step 1"
        await receiver.session.set_state(None)
        assert await receiver.session.get_state() is None


@short
async def test_a_renewed_session_lock_holds(client: ServiceBusClient, queue: str, send: Send) -> None:
    send(("a", "1"))
    async with opened(client.get_queue_receiver(queue, session_id="a")) as receiver:
        (message,) = await receiver.receive_messages(1, max_wait_time=WAIT_SECONDS)
        before = receiver.session.locked_until_utc
        while datetime.now(UTC) < before + timedelta(seconds=0.8):
            assert await receiver.session.renew_lock() == receiver.session.locked_until_utc
            await asyncio.sleep(LOCK_SECONDS / 4)
        assert receiver.session.locked_until_utc > before
        await receiver.complete_message(message)


@pytest.mark.parametrize("queue", [5.0], indirect=True, ids=["longer"])  # the SDK looks once a second
async def test_the_sdks_own_renewer_keeps_a_session(client: ServiceBusClient, queue: str, send: Send) -> None:
    send(("a", "1"))
    async with AutoLockRenewer() as renewer, client.get_queue_receiver(queue, session_id="a") as receiver:
        renewer.register(receiver, receiver.session, max_lock_renewal_duration=30)
        (message,) = await receiver.receive_messages(1, max_wait_time=WAIT_SECONDS)
        await asyncio.sleep(5.8)
        await receiver.complete_message(message)


@short
async def test_a_lost_session_lock_is_told_and_the_messages_come_again(
    client: ServiceBusClient, queue: str, send: Send
) -> None:
    send(("a", "1"))
    async with client.get_queue_receiver(queue, session_id="a") as receiver:
        (message,) = await receiver.receive_messages(1, max_wait_time=WAIT_SECONDS)
        await asyncio.sleep(LOCK_SECONDS + 0.8)
        with pytest.raises(SessionLockLostError):
            await receiver.complete_message(message)
        with pytest.raises(SessionLockLostError):
            await receiver.session.renew_lock()
    async with client.get_queue_receiver(queue, session_id="a") as receiver:
        (again,) = await receiver.receive_messages(1, max_wait_time=WAIT_SECONDS)
        assert (again.sequence_number, again.delivery_count) == (message.sequence_number, 1)


@short
async def test_a_waiting_receiver_is_detached_when_its_session_lock_is_lost(
    client: ServiceBusClient, queue: str
) -> None:
    async with opened(client.get_queue_receiver(queue, session_id="a")) as receiver:
        with pytest.raises(SessionLockLostError):
            await receiver.receive_messages(max_wait_time=LOCK_SECONDS * 3)


async def test_deferred_and_peeked_messages_of_a_session(client: ServiceBusClient, queue: str, send: Send) -> None:
    send(("a", "1"), ("b", "2"), ("a", "3"))
    async with opened(client.get_queue_receiver(queue, session_id="a")) as receiver:
        assert [str(message) for message in await receiver.peek_messages(10)] == ["1", "3"]
        (message,) = await receiver.receive_messages(1, max_wait_time=WAIT_SECONDS)
        await receiver.defer_message(message)
        (deferred,) = await receiver.receive_deferred_messages(message.sequence_number)
        assert (str(deferred), deferred.session_id) == ("1", "a")
        await receiver.complete_message(deferred)
        assert await bodies(receiver, 1) == ["3"]


async def test_abandoned_and_dead_lettered_messages_of_a_session(
    client: ServiceBusClient, queue: str, send: Send
) -> None:
    send(("a", "1"), ("a", "2"))
    async with opened(client.get_queue_receiver(queue, session_id="a")) as receiver:
        (message,) = await receiver.receive_messages(1, max_wait_time=WAIT_SECONDS)
        await receiver.abandon_message(message)
        (again,) = await receiver.receive_messages(1, max_wait_time=WAIT_SECONDS)
        assert (str(again), again.delivery_count) == ("1", 1)  # before the second: order holds
        await receiver.dead_letter_message(again, reason="poison")
        assert await bodies(receiver, 1) == ["2"]
    async with opened(client.get_queue_receiver(queue, sub_queue=ServiceBusSubQueue.DEAD_LETTER)) as dead_letters:
        (dead,) = await dead_letters.receive_messages(1, max_wait_time=WAIT_SECONDS)
        assert (str(dead), dead.session_id, dead.dead_letter_reason) == ("1", "a", "poison")


async def test_receive_and_delete_works_in_a_session(client: ServiceBusClient, queue: str, send: Send) -> None:
    send(("a", "1"), ("a", "2"))
    mode = ServiceBusReceiveMode.RECEIVE_AND_DELETE
    async with opened(client.get_queue_receiver(queue, session_id="a", receive_mode=mode)) as receiver:
        messages = await receiver.receive_messages(2, max_wait_time=WAIT_SECONDS)
        assert [str(message) for message in messages] == ["1", "2"]


async def test_a_message_without_a_session_is_refused(client: ServiceBusClient, queue: str, send: Send) -> None:
    async with opened(client.get_queue_sender(queue)) as sender:
        with pytest.raises(ServiceBusError):
            await sender.send_messages(ServiceBusMessage("a"))


async def test_a_plain_receiver_is_refused(client: ServiceBusClient, queue: str, send: Send) -> None:
    with pytest.raises(ServiceBusError, match="session"):
        async with opened(client.get_queue_receiver(queue)) as receiver:
            await receiver.receive_messages(max_wait_time=QUIET_SECONDS)


async def test_a_session_survives_a_scheduled_message(client: ServiceBusClient, queue: str, send: Send) -> None:
    async with opened(client.get_queue_sender(queue)) as sender:
        message = ServiceBusMessage("1", session_id="a")
        await sender.schedule_messages(message, datetime.now(UTC) + timedelta(seconds=0.5))
    async with opened(client.get_queue_receiver(queue, session_id="a")) as receiver:
        assert await bodies(receiver, 1) == ["1"]


async def test_sessions_are_listed_with_messages_or_a_state(client: ServiceBusClient, queue: str, send: Send) -> None:
    assert [name async for name in client.list_queue_sessions(queue)] == []
    send(*((f"s{number:03}", "x") for number in range(3)))
    before = datetime.now(UTC)
    async with opened(client.get_queue_receiver(queue, session_id="stateful")) as receiver:
        await receiver.session.set_state("x")
    assert sorted([name async for name in client.list_queue_sessions(queue)]) == ["s000", "s001", "s002", "stateful"]
    updated = client.list_queue_sessions(queue, state_updated_after=before - timedelta(seconds=1))
    assert [name async for name in updated] == ["stateful"]


async def test_more_sessions_than_a_page_holds_are_listed(client: ServiceBusClient, queue: str, send: Send) -> None:
    send(*((f"s{number:03}", "x") for number in range(250)))
    names = [name async for name in client.list_queue_sessions(queue)]
    assert sorted(names) == [f"s{number:03}" for number in range(250)]


async def test_a_subscription_has_sessions_of_its_own(broker: BrokerThread, client: ServiceBusClient) -> None:
    def create() -> None:
        namespace = broker.broker.engine.namespace
        namespace.create_topic("images")
        for name in ("one", "two"):
            namespace.create_subscription("images", name, SubscriptionSettings(requires_session=True))

    broker.call(create)
    async with opened(client.get_topic_sender("images")) as sender:
        await sender.send_messages(ServiceBusMessage("1", session_id="a"))
    for name in ("one", "two"):
        async with opened(
            client.get_subscription_receiver("images", name, session_id=NEXT_AVAILABLE_SESSION)
        ) as receiver:
            assert receiver.session.session_id == "a"
            assert await bodies(receiver, 1) == ["1"]
    assert [name async for name in client.list_subscription_sessions("images", "one")] == []
