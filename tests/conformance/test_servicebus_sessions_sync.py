"""Message sessions through the unmodified SDK with threads."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.servicebus import NEXT_AVAILABLE_SESSION, AutoLockRenewer, ServiceBusClient, ServiceBusMessage
from azure.servicebus.exceptions import OperationTimeoutError, SessionCannotBeLockedError, SessionLockLostError

from fusebus.servicebus.broker import BrokerOptions
from fusebus.servicebus.engine import QueueSettings
from fusebus.servicebus.testing import BrokerThread

WAIT_SECONDS = 20.0
LOCKS = {"long": 30.0, "renewed": 5.0, "short": 1.5, "empty": 30.0}  # seconds, one queue each


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerThread]:
    directory = tmp_path_factory.getbasetemp() / "broker-authority"
    with BrokerThread(BrokerOptions(ca_directory=directory)) as broker:
        namespace = broker.broker.engine.namespace
        for name, seconds in LOCKS.items():
            settings = QueueSettings(lock_seconds=seconds, requires_session=True)
            broker.call(lambda name=name, settings=settings: namespace.create_queue(name, settings))
        yield broker


@pytest.fixture(scope="module")
def client(broker: BrokerThread) -> Iterator[ServiceBusClient]:
    with ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0) as client:
        with ThreadPoolExecutor() as threads:
            list(threads.map(lambda name: _fill(client, name), LOCKS.keys() - {"empty"}))
        yield client


def _fill(client: ServiceBusClient, queue: str) -> None:
    with client.get_queue_sender(queue) as sender:
        sender.send_messages([ServiceBusMessage(body, session_id="a") for body in ("1", "2")])
        sender.send_messages(ServiceBusMessage("3", session_id="b"))


def next_of(receiver: Any) -> Any:
    (message,) = receiver.receive_messages(1, max_wait_time=WAIT_SECONDS)
    return message


def test_sessions_are_taken_one_after_the_other_each_in_order(client: ServiceBusClient) -> None:
    with (
        client.get_queue_receiver("long", session_id=NEXT_AVAILABLE_SESSION) as first,
        client.get_queue_receiver("long", session_id=NEXT_AVAILABLE_SESSION) as second,
    ):
        assert (first.session.session_id, second.session.session_id) == ("a", "b")
        with pytest.raises(SessionCannotBeLockedError), client.get_queue_receiver("long", session_id="b"):
            pass
        assert [str(message) for message in first.peek_messages(5)] == ["1", "2"]
        for receiver, expected in ((first, "1"), (second, "3"), (first, "2")):
            message = next_of(receiver)
            assert str(message) == expected
            receiver.complete_message(message)


def test_the_sdks_own_renewer_keeps_a_session(client: ServiceBusClient) -> None:
    with AutoLockRenewer() as renewer, client.get_queue_receiver("renewed", session_id="a") as receiver:
        renewer.register(receiver, receiver.session, max_lock_renewal_duration=30)
        message = next_of(receiver)
        end = message.enqueued_time_utc + timedelta(seconds=LOCKS["renewed"] + 1)
        while datetime.now(UTC) < end or receiver.session.locked_until_utc < end:
            time.sleep(0.1)
        receiver.complete_message(message)


def test_a_lost_session_lock_is_told(client: ServiceBusClient) -> None:
    with client.get_queue_receiver("short", session_id="a") as receiver:
        message = next_of(receiver)
        until = receiver.session.renew_lock()
        while datetime.now(UTC) < until + timedelta(seconds=0.7):
            time.sleep(0.05)
        with pytest.raises(SessionLockLostError):
            receiver.complete_message(message)
    with client.get_queue_receiver("short", session_id="a") as receiver:
        again = next_of(receiver)
        assert (again.sequence_number, again.delivery_count) == (message.sequence_number, 1)


def test_no_session_in_time_is_a_timeout(client: ServiceBusClient) -> None:
    with (
        pytest.raises(OperationTimeoutError),
        client.get_queue_receiver("empty", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=1),
    ):
        pass
