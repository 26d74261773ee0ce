"""Everything that a durable broker promises to keep, seen by the SDK after kill -9; and what it says of damage."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage, ServiceBusSubQueue
from azure.servicebus.management import CorrelationRuleFilter, ServiceBusAdministrationClient
from durable_broker import DurableBroker

TOPOLOGY = {
    "queues": [
        {"name": "work", "duplicate_detection_seconds": 600, "lock_seconds": 300},
        {"name": "steps", "requires_session": True},
        {"name": "plain"},
    ],
    "topics": [{"name": "images", "subscriptions": [{"name": "detect"}]}],
}


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[DurableBroker]:
    running = DurableBroker(tmp_path, TOPOLOGY)
    yield running
    if running.process.poll() is None:
        running.end()


def one(receiver: Any) -> Any:
    (message,) = receiver.receive_messages(1, max_wait_time=5)
    return message


def test_messages_of_every_state_sessions_and_rules_outlive_kill_9(durable: DurableBroker) -> None:
    with durable.client() as client:
        numbers = prepare(client)
        with ServiceBusAdministrationClient.from_connection_string(
            durable.connection_string, connection_verify=durable.ca_path
        ) as administration:
            administration.delete_rule("images", "detect", "$Default")
            administration.create_rule("images", "detect", "own", filter=CorrelationRuleFilter(label="wanted"))
            administration.create_queue("made-later", lock_duration=timedelta(seconds=7))
        durable.end(signal.SIGKILL)
    durable.start()
    with durable.client() as client:
        found_again(client, numbers)
        with ServiceBusAdministrationClient.from_connection_string(
            durable.connection_string, connection_verify=durable.ca_path
        ) as administration:
            assert administration.get_queue("made-later").lock_duration == timedelta(seconds=7)
    assert "missing" not in durable.log()


def prepare(client: ServiceBusClient) -> dict[str, int]:
    """One message of each kind; returns their sequence numbers."""
    numbers: dict[str, int] = {}
    with client.get_queue_sender("work") as sender, client.get_queue_receiver("work") as receiver:
        kinds = ("done", "deferred", "dead", "failed", "locked")
        sender.send_messages([ServiceBusMessage(kind, message_id=kind) for kind in kinds])
        found = {str(message): message for message in receiver.receive_messages(5, max_wait_time=5)}
        numbers = {kind: message.sequence_number for kind, message in found.items()}
        receiver.complete_message(found["done"])
        receiver.defer_message(found["deferred"])
        receiver.dead_letter_message(found["dead"], reason="why")
        receiver.abandon_message(found["failed"])
        later = datetime.now(UTC) + timedelta(seconds=3)
        (numbers["scheduled"],) = sender.schedule_messages(ServiceBusMessage("scheduled"), later)
    with (
        client.get_queue_sender("steps") as sender,
        client.get_queue_receiver("steps", session_id="s") as receiver,
    ):
        receiver.session.set_state(b"half way")
        sender.send_messages(ServiceBusMessage("step", session_id="s"))
    return numbers


def found_again(client: ServiceBusClient, numbers: dict[str, int]) -> None:
    with client.get_queue_sender("work") as sender, client.get_queue_receiver("work") as receiver:
        sender.send_messages(ServiceBusMessage("twice", message_id="done"))  # known as a duplicate
        (deferred,) = receiver.receive_deferred_messages(numbers["deferred"])
        received = [one(receiver), one(receiver), one(receiver)]  # the last one when it is due
        assert [(str(message), message.delivery_count) for message in received] == [
            ("failed", 1),
            ("locked", 0),  # its lock did not outlive the broker
            ("scheduled", 0),
        ]
        for message in (deferred, *received):
            receiver.complete_message(message)
        assert receiver.peek_messages(5, sequence_number=1) == []
    with client.get_queue_receiver("work", sub_queue=ServiceBusSubQueue.DEAD_LETTER) as receiver:
        dead = one(receiver)
        assert (str(dead), dead.dead_letter_reason, dead.dead_letter_source) == ("dead", "why", "work")
    with client.get_queue_receiver("steps", session_id="s") as receiver:
        assert receiver.session.get_state() == b"half way"
        assert str(one(receiver)) == "step"
    with client.get_topic_sender("images") as sender, client.get_subscription_receiver("images", "detect") as receiver:
        sender.send_messages([ServiceBusMessage("wanted", subject="wanted"), ServiceBusMessage("not")])
        assert [str(message) for message in receiver.receive_messages(2, max_wait_time=1)] == ["wanted"]


def test_a_cut_journal_is_reported_and_the_rest_is_served(durable: DurableBroker) -> None:
    with durable.client() as client, client.get_queue_sender("plain") as sender:
        for number in range(20):
            sender.send_messages(ServiceBusMessage(str(number)))
    durable.end(signal.SIGKILL)
    journal = durable.data / "journal"
    written = len(journal.read_bytes().rstrip(b"\0"))  # behind it there is only room
    os.truncate(journal, written // 2)
    durable.start()
    assert "commits" in durable.log()
    assert "are missing" in durable.log()
    with durable.client() as client, client.get_queue_receiver("plain") as receiver:
        found = [str(message) for message in receiver.peek_messages(50, sequence_number=1)]
        assert 3 < len(found) < 20
        assert found == [str(number) for number in range(len(found))]
