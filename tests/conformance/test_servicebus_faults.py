"""Failures on order: what `POST /$faults` makes the broker do, seen through the SDK."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient as AsyncClient
from azure.servicebus.exceptions import (
    MessageLockLostError,
    ServiceBusError,
    ServiceBusServerBusyError,
    SessionLockLostError,
)

from fusebus.servicebus.testing import BrokerThread

TOPOLOGY = {"queues": [{"name": "work"}, {"name": "other"}, {"name": "steps", "requires_session": True}]}
Order = Callable[..., dict[str, Any]]


@pytest.fixture
def broker(start_broker: Callable[..., BrokerThread]) -> BrokerThread:
    return start_broker(TOPOLOGY, faults=True, insecure=True)


@pytest.fixture
def order(broker: BrokerThread) -> Order:
    """POSTs one order; returns the answer."""

    def post(action: str, **fields: Any) -> dict[str, Any]:
        body = json.dumps({"action": action, **fields}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{broker.port}/$faults", body, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            return dict(json.load(error))

    return post


@pytest.fixture
def client(broker: BrokerThread) -> Any:
    with ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0) as made:
        yield made


@pytest.fixture
def patient(broker: BrokerThread) -> Any:
    """A client that retries, soon."""
    with ServiceBusClient.from_connection_string(
        broker.connection_string, retry_total=3, retry_backoff_factor=0.05, retry_mode="fixed"
    ) as made:
        yield made


def received(client: Any, queue: str = "work") -> list[bytes]:
    with client.get_queue_receiver(queue) as receiver:
        found = receiver.receive_messages(10, max_wait_time=1)
        for each in found:
            receiver.complete_message(each)
        return [b"".join(each.body) for each in found]


def test_sends_are_refused_as_often_as_ordered(order: Order, client: Any) -> None:
    assert order("fail-sends", count=1, entity="work") == {"count": 1}
    with client.get_queue_sender("work") as sender:
        with pytest.raises(ServiceBusServerBusyError):
            sender.send_messages(ServiceBusMessage("refused"))
        sender.send_messages(ServiceBusMessage("taken"))
    assert received(client) == [b"taken"]


def test_a_retrying_client_gets_through_a_busy_broker(order: Order, patient: Any) -> None:
    order("fail-sends", count=2)
    with patient.get_queue_sender("work") as sender:
        sender.send_messages(ServiceBusMessage("third time"))
    assert received(patient) == [b"third time"]


def test_orders_for_one_entity_leave_the_others_alone(order: Order, client: Any) -> None:
    order("fail-sends", count=1, entity="other")
    with client.get_queue_sender("work") as sender:
        sender.send_messages(ServiceBusMessage("taken"))
    assert received(client) == [b"taken"]


def test_a_throttle_makes_the_broker_busy_until_it_ends(order: Order, client: Any) -> None:
    order("throttle", per_second=2, entity="work")
    with client.get_queue_sender("work") as sender:
        with pytest.raises(ServiceBusServerBusyError, match="2 messages a second"):
            for _ in range(10):
                sender.send_messages(ServiceBusMessage("fast"))
        order("throttle", per_second=0, entity="work")
        for _ in range(10):
            sender.send_messages(ServiceBusMessage("free"))


def test_a_settlement_fails_with_the_condition_that_was_ordered(order: Order, client: Any) -> None:
    with client.get_queue_sender("work") as sender:
        sender.send_messages(ServiceBusMessage("m"))
    order("fail-settlements", count=1, entity="work")
    with client.get_queue_receiver("work") as receiver:
        (message,) = receiver.receive_messages(1, max_wait_time=2)
        with pytest.raises(MessageLockLostError):
            receiver.complete_message(message)


def test_lost_locks_and_a_forced_detach_reach_the_client(order: Order, client: Any) -> None:
    with client.get_queue_sender("work") as sender:
        sender.send_messages(ServiceBusMessage("m"))
    with client.get_queue_receiver("work") as receiver:
        (message,) = receiver.receive_messages(1, max_wait_time=2)
        assert order("lose-locks", entity="work") == {"count": 1}
        with pytest.raises(MessageLockLostError):
            receiver.complete_message(message)
        assert order("detach", entity="work")["count"] >= 1
        with pytest.raises(ServiceBusError):
            for _ in range(3):
                receiver.receive_messages(1, max_wait_time=1)


def test_locks_are_lost_and_links_end_everywhere_where_no_entity_is_named(order: Order, client: Any) -> None:
    with (
        client.get_queue_sender("work") as work,
        client.get_queue_sender("other") as other,
        client.get_queue_receiver("work") as receiver,
        client.get_queue_receiver("steps", session_id="a"),
    ):
        work.send_messages(ServiceBusMessage("m"))
        other.send_messages(ServiceBusMessage("m"))
        (message,) = receiver.receive_messages(1, max_wait_time=2)
        assert order("lose-locks") == {"count": 2}  # that of the message and that of the session
        with pytest.raises(MessageLockLostError):
            receiver.complete_message(message)
        assert order("detach") == {"count": 3}  # the session's has ended
        for sender in (work, other):
            with pytest.raises(ServiceBusError):
                sender.send_messages(ServiceBusMessage("lost"))


def test_a_session_can_be_taken_from_its_receiver(order: Order, client: Any) -> None:
    with client.get_queue_sender("steps") as sender:
        sender.send_messages(ServiceBusMessage("m", session_id="a"))
    with client.get_queue_receiver("steps", session_id="a") as receiver:
        (message,) = receiver.receive_messages(1, max_wait_time=2)
        assert order("lose-locks", entity="steps") == {"count": 1}
        assert order("lose-locks", entity="steps") == {"count": 0}
        with pytest.raises(SessionLockLostError):
            receiver.complete_message(message)
    with client.get_queue_receiver("steps", session_id="a") as receiver:
        (message,) = receiver.receive_messages(1, max_wait_time=2)
        assert message.delivery_count == 1
        receiver.complete_message(message)


def test_a_session_link_can_end_with_the_condition_of_a_lost_session(order: Order, client: Any) -> None:
    with client.get_queue_receiver("steps", session_id="b") as receiver:
        assert order("detach", entity="steps", condition="com.microsoft:session-lock-lost") == {"count": 1}
        with pytest.raises(SessionLockLostError):
            receiver.receive_messages(1, max_wait_time=2)
    with client.get_queue_receiver("steps", session_id="b") as receiver:
        assert receiver.session.session_id == "b"


async def test_every_failure_reaches_a_client_with_asyncio(order: Order, broker: BrokerThread) -> None:
    async with (
        AsyncClient.from_connection_string(broker.connection_string, retry_total=0) as client,
        client.get_queue_sender("work") as sender,
        client.get_queue_receiver("work") as receiver,
        client.get_queue_receiver("steps", session_id="a") as session,
    ):
        order("throttle", per_second=1, entity="work")
        with pytest.raises(ServiceBusServerBusyError):
            for _ in range(5):
                await sender.send_messages(ServiceBusMessage("fast"))
        order("clear")
        order("latency", seconds=0.2)
        started = time.monotonic()
        (message,) = await receiver.receive_messages(1, max_wait_time=2)
        await receiver.renew_message_lock(message)
        assert time.monotonic() - started > 0.2
        order("clear")
        order("fail-renewals", count=1)
        with pytest.raises(ServiceBusServerBusyError):
            await receiver.renew_message_lock(message)
        assert order("lose-locks", entity="work") == {"count": 1}
        with pytest.raises(MessageLockLostError):
            await receiver.complete_message(message)
        assert order("lose-locks", entity="steps") == {"count": 1}
        with pytest.raises(SessionLockLostError):
            await session.session.renew_lock()
        for action in ("detach", "reset-connections"):
            assert order(action, entity="work")["count"] >= 1
            with pytest.raises(ServiceBusError):
                await sender.send_messages(ServiceBusMessage("lost"))
            await sender.send_messages(ServiceBusMessage("on a new link"))
        order("drop-acknowledgements", count=1, entity="work")
        with pytest.raises(ServiceBusError):
            await sender.send_messages(ServiceBusMessage("sent, but who knows"), timeout=1)
    assert broker.call(lambda: broker.broker.engine.counts("work").active) >= 2


def test_a_dropped_acknowledgement_leaves_the_message_with_the_broker(
    order: Order, broker: BrokerThread, client: Any
) -> None:
    order("drop-acknowledgements", count=1, entity="work")
    with client.get_queue_sender("work") as sender, pytest.raises(ServiceBusError):
        sender.send_messages(ServiceBusMessage("sent, but who knows"), timeout=1)
    assert received(client) == [b"sent, but who knows"]


def test_a_dropped_confirmation_of_a_settlement_leaves_it_done(order: Order, client: Any) -> None:
    with client.get_queue_sender("work") as sender:
        sender.send_messages(ServiceBusMessage("m"))
    with client.get_queue_receiver("work", timeout=1) as receiver:  # else the SDK waits a minute
        (message,) = receiver.receive_messages(1, max_wait_time=2)
        order("drop-acknowledgements", count=1, entity="work")
        with pytest.raises(MessageLockLostError):  # it asks again, by the management link, and nobody holds the lock
            receiver.complete_message(message)
        assert receiver.peek_messages(sequence_number=1) == []


def test_a_reset_connection_is_found_again(order: Order, patient: Any) -> None:
    with patient.get_queue_sender("work") as sender:
        sender.send_messages(ServiceBusMessage("before"))
        assert order("reset-connections", entity="work")["count"] >= 1
        sender.send_messages(ServiceBusMessage("after"))
    assert received(patient) == [b"before", b"after"]


def test_latency_holds_answers_back_and_ends(order: Order, client: Any) -> None:
    with client.get_queue_sender("work") as sender:
        sender.send_messages(ServiceBusMessage("m"))
        order("latency", seconds=1.5)  # far above what a slow machine takes without it
        started = time.monotonic()
        sender.send_messages(ServiceBusMessage("m"))
        assert 1.5 <= time.monotonic() - started < 20
        order("clear")
        started = time.monotonic()
        sender.send_messages(ServiceBusMessage("m"))
        assert time.monotonic() - started < 1.5


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"action": "explode"}, "action must be one of"),
        ({"action": "fail-sends", "count": 0}, "count"),
        ({"action": "fail-sends", "entity": "unknown"}, "unknown"),
        ({"action": "throttle"}, "per_second"),
        ({"action": "latency", "seconds": -1}, "negative"),
        ({"action": "detach", "entity": 5}, "entity must be a string"),
        ({"action": "reset-connections", "entity": ["work"]}, "entity must be a string"),
        ({"action": "lose-locks", "entity": "unknown"}, "unknown"),
        ({"action": "detach", "condition": 5}, "condition must be a string"),
        ({"action": "detach", "condition": "ü"}, "condition must be ASCII"),
        ({"action": "fail-sends", "condition": {}}, "condition must be a string"),
        ({"action": "fail-settlements", "condition": True}, "condition must be a string"),
        ({"action": "fail-renewals", "condition": 5}, "condition must be a string"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(order: Order, fields: dict[str, Any], said: str) -> None:
    assert said in order(**fields)["error"]


def test_without_the_option_there_are_no_orders(start_broker: Callable[..., BrokerThread]) -> None:
    port = start_broker(TOPOLOGY, insecure=True).port
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/$faults", b"{}", method="POST"))
