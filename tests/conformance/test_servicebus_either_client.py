"""What the Python SDK can do, by its client with threads and by the one with asyncio alike."""

import ast
import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import either_client
import pytest
import pytest_asyncio
from azure.servicebus import (
    AutoLockRenewer,
    ServiceBusClient,
    ServiceBusMessage,
    ServiceBusReceiveMode,
    ServiceBusReceiver,
    ServiceBusSender,
    ServiceBusSession,
    ServiceBusSubQueue,
    aio,
)
from azure.servicebus.exceptions import MessageNotFoundError, ServiceBusError
from either_client import CLIENTS, RENEWERS, all_closed, at, done, every, opened, receive, texts

from fusebus.servicebus.broker import BrokerOptions
from fusebus.servicebus.testing import BrokerThread

WAIT_SECONDS = 20.0  # as long as a message that is there may take to come
QUIET_SECONDS = 0.3  # as long as we wait for one that must not come
RENEWED_LOCK_SECONDS = 4.0  # the SDK's renewer looks once a second
DESTROY = ServiceBusReceiveMode.RECEIVE_AND_DELETE
SHARED = {
    "lock_seconds": 30,
    "max_delivery_count": 5,
}


def queues(kind: str) -> list[dict[str, Any]]:
    """Each client has its own."""
    return [
        {"name": f"{kind}/work", **SHARED},
        {"name": f"{kind}/iterated", **SHARED},
        {"name": f"{kind}/later", **SHARED},
        {"name": f"{kind}/peeked", **SHARED},
        {"name": f"{kind}/once", "duplicate_detection_seconds": 600},
        {"name": f"{kind}/mortal", "dead_letter_on_expiry": True},
        {"name": f"{kind}/fading"},
        {"name": f"{kind}/renewed", "lock_seconds": RENEWED_LOCK_SECONDS},
        {"name": f"{kind}/graves"},
        {"name": f"{kind}/third", "forward_dead_lettered_to": f"{kind}/graves"},
        {"name": f"{kind}/second", "forward_to": f"{kind}/third"},
        {"name": f"{kind}/first", "forward_to": f"{kind}/second"},
    ]


TOPOLOGY = {
    "queues": [queue for kind in CLIENTS for queue in queues(kind)],
    "topics": [
        {"name": f"{kind}/head", "subscriptions": [{"name": "on", "forward_to": f"{kind}/first"}]} for kind in CLIENTS
    ],
}
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerThread]:
    directory = tmp_path_factory.getbasetemp() / "broker-authority"
    with BrokerThread(BrokerOptions(topology=TOPOLOGY, ca_directory=directory, key="key")) as broker:
        yield broker


@pytest.fixture(params=CLIENTS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(loop_scope="module")
async def client(broker: BrokerThread, kind: str) -> AsyncIterator[Any]:
    async with opened(CLIENTS[kind].from_connection_string(broker.connection_string, retry_total=0)) as client:
        yield client
    await all_closed()


async def test_every_settlement_of_received_and_of_deferred_messages(client: Any, kind: str) -> None:
    name = f"{kind}/work"
    async with opened(client.get_queue_sender(name), client.get_queue_receiver(name)) as (sender, receiver):
        await done(sender.send_messages([ServiceBusMessage(text) for text in "abcdefg"]))
        complete, abandon, bury, *deferred = await receive(receiver, 7)
        await done(receiver.complete_message(complete))
        await done(receiver.dead_letter_message(bury, reason="why", error_description="because"))
        for message in deferred:
            await done(receiver.defer_message(message))
        await done(receiver.abandon_message(abandon))
        (again,) = await receive(receiver)
        assert (str(again), again.delivery_count) == ("b", 1)
        await done(receiver.renew_message_lock(again))
        await done(receiver.complete_message(again))
        numbers = [message.sequence_number for message in deferred]
        d, e, f, g = await done(receiver.receive_deferred_messages(numbers))
        await done(receiver.complete_message(d))
        await done(receiver.dead_letter_message(e, reason="late"))
        for settle, message in ((receiver.abandon_message, f), (receiver.defer_message, g)):
            await done(settle(message))
        left = await done(receiver.receive_deferred_messages(numbers[2:]))
        assert [(str(message), message.delivery_count) for message in left] == [("f", 2), ("g", 2)]
        with pytest.raises(MessageNotFoundError):
            await done(receiver.receive_deferred_messages(numbers[:1]))
    dead = client.get_queue_receiver(name, sub_queue=ServiceBusSubQueue.DEAD_LETTER, receive_mode=DESTROY)
    async with opened(dead) as dead_letters:
        found = await receive(dead_letters, 2)
        told = [(str(message), message.dead_letter_reason, message.dead_letter_source) for message in found]
        assert told == [("c", "why", name), ("e", "late", name)]
        assert found[0].dead_letter_error_description == "because"


async def test_receiving_by_iteration_and_destructively(client: Any, kind: str) -> None:
    name = f"{kind}/iterated"
    sender = client.get_queue_sender(name, client_identifier="me")
    async with opened(sender, client.get_queue_receiver(name, receive_mode="peeklock")) as (_, receiver):
        await done(sender.send_messages(ServiceBusMessage("put aside")))
        (message,) = await receive(receiver)
        await done(receiver.defer_message(message))
        batch = await done(sender.create_message_batch())
        for number in range(10):
            batch.add_message(ServiceBusMessage(str(number)))
        await done(sender.send_messages(batch))
    options = {"receive_mode": DESTROY, "max_wait_time": QUIET_SECONDS, "prefetch_count": 3}
    async with opened(client.get_queue_receiver(name, **options)) as receiver:
        first = receiver.next() if kind == "threads" else await receiver.__anext__()
        assert texts([first, *await every(receiver)]) == [str(number) for number in range(10)]
        (found,) = await done(receiver.receive_deferred_messages(message.sequence_number))
        assert (str(found), found.lock_token) == ("put aside", None)
        assert await done(receiver.peek_messages(sequence_number=1)) == []
        assert (sender.client_identifier, bool(receiver.client_identifier)) == ("me", True)


async def test_scheduled_messages_are_cancelled_or_come(client: Any, kind: str) -> None:
    name = f"{kind}/later"
    async with opened(client.get_queue_sender(name), client.get_queue_receiver(name)) as (sender, receiver):
        due = at(0.8)
        first, second = await done(sender.schedule_messages([ServiceBusMessage("no"), ServiceBusMessage("yes")], due))
        (third,) = await done(sender.schedule_messages(ServiceBusMessage("neither"), at(60)))
        await done(sender.cancel_scheduled_messages([first, third]))
        with pytest.raises(ServiceBusError):
            await done(sender.cancel_scheduled_messages(third))
        (peeked,) = await done(receiver.peek_messages(5))
        assert (peeked.sequence_number, peeked.state.name) == (second, "SCHEDULED")
        (message,) = await receive(receiver)
        assert str(message) == "yes"
        assert datetime.now(UTC) >= due - timedelta(milliseconds=1)  # AMQP knows no parts of milliseconds
        await done(receiver.complete_message(message))


async def test_more_messages_than_an_answer_holds_are_peeked_in_pages(client: Any, kind: str) -> None:
    name = f"{kind}/peeked"
    async with opened(client.get_queue_sender(name), client.get_queue_receiver(name)) as (sender, receiver):
        await done(sender.send_messages([ServiceBusMessage(str(number)) for number in range(300)]))
        seen: list[str] = []
        while page := await done(receiver.peek_messages(200)):  # each goes on where the last one ended
            seen += texts(page)
        assert seen == [str(number) for number in range(300)]
        assert texts(await done(receiver.peek_messages(1, sequence_number=251))) == ["250"]
        assert await _delete(receiver, 100) == 100
        assert texts(await done(receiver.peek_messages(1, sequence_number=1))) == ["100"]
        assert await _delete(receiver, 4000) == 200
        assert await done(receiver.peek_messages(sequence_number=1)) == []


async def _delete(receiver: Any, count: int) -> int:
    """Batch deletion, and purging if `count` is large: this version of the SDK has it below its methods only."""
    body = {
        "message-count": {"TYPE": "INT", "VALUE": count},
        "enqueued-time-utc": {"TYPE": "TIMESTAMP", "VALUE": int(time.time() * 1000) + 1000},
    }

    def answered(status: int, message: Any, description: Any, amqp_transport: Any) -> int:
        assert status == 200, description
        return int(message.value[b"message-count"])

    operation = b"com.microsoft:batch-delete-messages"
    return int(await done(receiver._mgmt_request_response_with_retry(operation, body, answered)))


async def test_a_repeated_id_is_taken_once(client: Any, kind: str) -> None:
    name = f"{kind}/once"
    async with opened(client.get_queue_sender(name), client.get_queue_receiver(name)) as (sender, receiver):
        for body in ("first", "again"):
            await done(sender.send_messages(ServiceBusMessage(body, message_id="same")))
        repeated = [ServiceBusMessage("batch", message_id="same"), ServiceBusMessage("other", message_id="other")]
        await done(sender.send_messages(repeated))
        await done(sender.schedule_messages(ServiceBusMessage("late", message_id="same"), at(60)))
        assert texts(await done(receiver.peek_messages(10))) == ["first", "other"]


async def test_messages_expire_and_are_dead_lettered_where_asked(client: Any, kind: str) -> None:
    names = [f"{kind}/mortal", f"{kind}/fading"]
    dead = ServiceBusSubQueue.DEAD_LETTER
    async with opened(*(client.get_queue_sender(name) for name in names)) as senders:
        for sender in senders:
            short = ServiceBusMessage("short", time_to_live=timedelta(seconds=0.5))
            await done(sender.send_messages([short, ServiceBusMessage("long", time_to_live=timedelta(hours=1))]))
    receivers = (
        *(client.get_queue_receiver(name) for name in names),
        client.get_queue_receiver(names[0], sub_queue=dead),
    )
    async with opened(*receivers) as (*alive, dead_letters):
        (expired,) = await receive(dead_letters)
        assert (str(expired), expired.dead_letter_reason) == ("short", "TTLExpiredException")
        await done(dead_letters.complete_message(expired))
        for receiver in alive:
            assert texts(await done(receiver.peek_messages(5))) == ["long"]
    async with opened(client.get_queue_receiver(names[1], sub_queue=dead)) as dead_letters:
        assert await done(dead_letters.peek_messages(5)) == []


async def test_the_sdks_own_renewer_keeps_a_message_and_tells_of_a_lost_one(
    client: Any, kind: str, broker: BrokerThread
) -> None:
    name = f"{kind}/renewed"
    told: list[Any] = []

    def failed(renewable: Any, error: Any) -> None:
        told.append(renewable)

    async def failed_too(renewable: Any, error: Any) -> None:
        told.append(renewable)

    async with opened(client.get_queue_sender(name), client.get_queue_receiver(name)) as (sender, receiver):
        await done(sender.send_messages([ServiceBusMessage("kept"), ServiceBusMessage("lost")]))
        kept, lost = await receive(receiver, 2)
        callback = failed if kind == "threads" else failed_too
        renewer = RENEWERS[kind](max_lock_renewal_duration=60, on_lock_renew_failure=callback)
        end = kept.locked_until_utc + timedelta(seconds=0.3)
        renewer.register(receiver, kept)
        while datetime.now(UTC) < end:
            await asyncio.sleep(0.1)
        await done(receiver.complete_message(kept))
        (lost,) = await receive(receiver)
        renewer.register(receiver, lost)
        assert broker.lose_locks(name) == 1
        end = datetime.now(UTC) + timedelta(seconds=WAIT_SECONDS)
        while not told and datetime.now(UTC) < end:
            await asyncio.sleep(0.1)
        assert told == [lost]
        await done(renewer.close())


async def test_a_chain_of_forwards_ends_where_it_should(client: Any, kind: str) -> None:
    async with opened(client.get_topic_sender(f"{kind}/head"), client.get_queue_sender(f"{kind}/second")) as senders:
        for sender, text in zip(senders, ("from the topic", "from the middle"), strict=True):
            await done(sender.send_messages(ServiceBusMessage(text)))
    async with opened(client.get_queue_receiver(f"{kind}/third")) as receiver:
        found = await receive(receiver, 2)
        assert sorted(texts(found)) == ["from the middle", "from the topic"]
        assert sorted(message.sequence_number for message in found) == [1, 2]
        numbers = {str(message): message.enqueued_sequence_number for message in found}
        assert numbers == {"from the topic": 1, "from the middle": 2}  # where each was sent to first
        for message in found:
            await done(receiver.dead_letter_message(message, reason=str(message)))
    async with opened(client.get_queue_receiver(f"{kind}/graves")) as receiver:
        for message in await receive(receiver, 2):
            assert (message.dead_letter_source, message.dead_letter_reason) == (f"{kind}/third", str(message))
            assert message.enqueued_sequence_number == numbers[str(message)]
            await done(receiver.complete_message(message))


PUBLIC = {
    "clients": (ServiceBusClient, aio.ServiceBusClient),
    "senders": (ServiceBusSender, aio.ServiceBusSender),
    "receivers": (ServiceBusReceiver, aio.ServiceBusReceiver),
    "sessions": (ServiceBusSession, aio.ServiceBusSession),
    "renewers": (AutoLockRenewer, aio.AutoLockRenewer),
}


@pytest.mark.parametrize("kinds", PUBLIC)
async def test_every_public_method_of_the_sdk_is_called_by_both_clients(kinds: str) -> None:
    """Here or beside it; a new version of the SDK that can do more fails here."""
    files = [*Path(__file__).parent.glob("test_servicebus_either_*.py"), Path(either_client.__file__)]
    trees = [ast.parse(file.read_text()) for file in files]
    used = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for public in PUBLIC[kinds]:
        assert {name for name in dir(public) if not name.startswith("_")} - used == set()
