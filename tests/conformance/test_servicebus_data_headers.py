"""Header, delivery annotations and time to live as the unmodified SDK shows them, before and after a restart."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage, ServiceBusReceivedMessage, ServiceBusReceiver
from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageHeader
from either_client import all_closed
from either_client import opened as entered

from fusebus.servicebus.broker import BrokerOptions
from fusebus.servicebus.testing import BrokerThread

WAIT_SECONDS = 20
LONGEST = timedelta(milliseconds=2**32 - 1)  # that the header has room for
LIMIT, HOUR, SHORT = timedelta(seconds=600), timedelta(hours=1), timedelta(seconds=300)
TOPOLOGY: dict[str, Any] = {
    "queues": [
        {"name": "work"},
        {"name": "limited", "ttl_seconds": LIMIT.total_seconds()},
        {"name": "ages", "ttl_seconds": 100 * 86400},
    ],
    "topics": [
        {
            "name": "news",
            "ttl_seconds": HOUR.total_seconds(),
            "subscriptions": [{"name": "all"}, {"name": "limited", "ttl_seconds": LIMIT.total_seconds()}],
        }
    ],
}
HEADER = AmqpMessageHeader(durable=True, priority=7, first_acquirer=True, delivery_count=3, time_to_live=50_000)
LOCK_TOKEN = b"x-opt-lock-token"


@pytest.fixture
def options(tmp_path: Path) -> BrokerOptions:
    return BrokerOptions(topology=TOPOLOGY, data=tmp_path / "data", ca_directory=tmp_path / "authority")


@pytest.fixture
def durable(options: BrokerOptions) -> Iterator[BrokerThread]:
    with BrokerThread(options) as running:
        yield running


def opened(broker: BrokerThread) -> ServiceBusClient:
    return ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0)


def one(receiver: ServiceBusReceiver) -> ServiceBusReceivedMessage:
    (found,) = receiver.receive_messages(1, max_wait_time=WAIT_SECONDS)
    return found


def header(message: ServiceBusReceivedMessage) -> dict[str, Any]:
    found = message.raw_amqp_message.header
    assert found is not None
    return dict(found)


def test_header_and_delivery_annotations_come_as_they_were_sent_before_and_after_a_restart(
    options: BrokerOptions,
) -> None:
    annotations: dict[Any, Any] = {b"own": b"text", b"long": b"x" * 300, b"number": 2**30}
    both = AmqpAnnotatedMessage(data_body=b"both", header=HEADER, delivery_annotations=annotations, footer={b"f": b"v"})
    given = {"durable": True, "priority": 7, "time_to_live": 50_000}
    with BrokerThread(options) as first, opened(first) as client:
        with client.get_queue_sender("work") as sender:
            sender.send_messages(both)
            sender.send_messages([AmqpAnnotatedMessage(data_body=b"low", header=AmqpMessageHeader(priority=0))])
            sender.send_messages(AmqpAnnotatedMessage(data_body=b"annotated", delivery_annotations={b"d": 1}))
        with client.get_queue_receiver("work") as receiver:
            (peeked, *_) = receiver.peek_messages(1)
            assert header(peeked) == {**given, "first_acquirer": True, "delivery_count": 0}
            assert peeked.raw_amqp_message.delivery_annotations == annotations
            received = one(receiver)
            assert header(received) == header(peeked)
            assert received.raw_amqp_message.footer == {b"f": b"v"}
            receiver.abandon_message(received)
    with BrokerThread(options) as second, opened(second) as client, client.get_queue_receiver("work") as receiver:
        again = one(receiver)
        assert header(again) == {**given, "first_acquirer": False, "delivery_count": 1}
        shown = again.raw_amqp_message.delivery_annotations
        assert shown == {**annotations, LOCK_TOKEN: again.lock_token}
        receiver.complete_message(again)
        low = one(receiver)
        expected = {"durable": None, "priority": 0, "time_to_live": None, "first_acquirer": None, "delivery_count": 0}
        assert header(low) == expected
        assert one(receiver).raw_amqp_message.delivery_annotations[b"d"] == 1


def test_what_is_sent_on_carries_no_lock_of_its_last_delivery(durable: BrokerThread) -> None:
    with opened(durable) as client, client.get_queue_sender("work") as sender:
        sender.send_messages(AmqpAnnotatedMessage(data_body=b"x", delivery_annotations={b"d": 1, LOCK_TOKEN: b"old"}))
        with client.get_queue_receiver("work") as receiver:
            first = one(receiver)
            assert first.raw_amqp_message.delivery_annotations == {b"d": 1, LOCK_TOKEN: first.lock_token}
            sender.send_messages(first)
            receiver.complete_message(first)
            (peeked,) = receiver.peek_messages(1)
            assert peeked.raw_amqp_message.delivery_annotations == {b"d": 1}


async def lifetimes(client: ServiceBusClient) -> dict[str, list[timedelta | None]]:
    """The times to live that browsers are shown, by entity."""
    receivers = {name: client.get_queue_receiver(name) for name in ("work", "limited", "ages")}
    receivers |= {f"news {name}": client.get_subscription_receiver("news", name) for name in ("all", "limited")}
    async with entered(*receivers.values()):
        return {
            name: [message.time_to_live for message in receiver.peek_messages(9)]
            for name, receiver in receivers.items()
        }


async def test_the_time_to_live_shown_is_the_one_that_holds(options: BrokerOptions) -> None:
    with BrokerThread(options) as first, opened(first) as client:
        dead_letters = client.get_queue_receiver("limited", sub_queue="deadletter")
        queues = [client.get_queue_sender(name) for name in ("work", "limited", "ages")]
        async with entered(
            client.get_queue_receiver("limited"), dead_letters, client.get_topic_sender("news"), *queues
        ) as (receiver, _, *senders):
            for sender in senders:
                sender.send_messages([ServiceBusMessage("x", time_to_live=own) for own in (None, 2 * HOUR, SHORT)])
            before = await lifetimes(client)
            _, dead = receiver.receive_messages(2, max_wait_time=WAIT_SECONDS)
            assert dead.time_to_live == LIMIT
            receiver.dead_letter_message(dead)
            assert one(dead_letters).time_to_live == 2 * HOUR  # nothing expires there: the sender's own
        await all_closed()
    assert before == {
        "work": [None, 2 * HOUR, SHORT],
        "limited": [LIMIT, LIMIT, SHORT],
        "ages": [LONGEST, 2 * HOUR, SHORT],
        "news all": [HOUR, HOUR, SHORT],
        "news limited": [LIMIT, LIMIT, SHORT],
    }
    with BrokerThread(options) as second, opened(second) as client:
        assert await lifetimes(client) == {**before, "limited": [LIMIT, SHORT]}
        await all_closed()
