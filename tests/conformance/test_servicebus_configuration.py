"""Brokers started from files: Microsoft's emulator's and our own, seen by the unmodified SDK."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.exceptions import ServiceBusAuthenticationError, ServiceBusAuthorizationError
from azure.servicebus.management import ServiceBusAdministrationClient

from fusebus.servicebus.broker import BrokerOptions
from fusebus.servicebus.config import ConfigError
from fusebus.servicebus.engine import Message
from fusebus.servicebus.testing import BrokerThread

RULES = [
    {
        "Name": "large",
        "Properties": {
            "FilterType": "Sql",
            "SqlFilter": {"SqlExpression": "size > 10"},
            "Action": {"SqlExpression": "SET large = TRUE"},
        },
    },
    {
        "Name": "urgent",
        "Properties": {
            "FilterType": "Correlation",
            "CorrelationFilter": {"Label": "urgent", "Properties": {"who": "me"}},
        },
    },
]
EMULATORS: dict[str, Any] = {
    "UserConfig": {
        "Namespaces": [
            {
                "Name": "sbemulatorns",
                "Queues": [{"Name": "queue.1", "Properties": {"RequiresSession": True, "LockDuration": "PT30S"}}],
                "Topics": [{"Name": "topic.1", "Subscriptions": [{"Name": "subscription.1", "Rules": RULES}]}],
            }
        ],
        "Logging": {"Type": "File"},
    }
}
READER = {"name": "reader", "rights": ["Listen"], "primary_key": "cmVhZA=="}


def test_the_emulators_entities_work(start_broker: Callable[..., BrokerThread]) -> None:
    broker = start_broker(EMULATORS)
    with ServiceBusClient.from_connection_string(broker.connection_string) as data:
        with data.get_topic_sender("topic.1") as sender:
            sender.send_messages(ServiceBusMessage("small", application_properties={"size": 1}))
            sender.send_messages(ServiceBusMessage("large", application_properties={"size": 11}))
            sender.send_messages(ServiceBusMessage("urgent", subject="urgent", application_properties={"who": "me"}))
        with data.get_subscription_receiver("topic.1", "subscription.1", max_wait_time=5) as receiver:
            found = [next(receiver), next(receiver)]
    assert {str(message): (message.application_properties or {}).get(b"large") for message in found} == {
        "large": True,
        "urgent": None,
    }


def test_entities_are_added_to_the_emulators_at_run_time(start_broker: Callable[..., BrokerThread]) -> None:
    broker = start_broker(EMULATORS)
    with ServiceBusAdministrationClient.from_connection_string(
        broker.connection_string, connection_verify=str(broker.ca_path)
    ) as client:
        client.create_queue("queue.2")
        assert [queue.name for queue in client.list_queues()] == ["queue.1", "queue.2"]
        assert client.get_queue("queue.1").requires_session


def test_a_key_of_the_file_opens_the_whole_namespace_in_its_direction(
    start_broker: Callable[..., BrokerThread],
) -> None:
    broker = start_broker({"queues": [{"name": "a"}, {"name": "b"}], "authorization_rules": [READER]})
    parts = broker.connection_string.split(";")
    limited = ";".join((parts[0], "SharedAccessKeyName=reader", "SharedAccessKey=cmVhZA==", parts[-1]))
    with ServiceBusClient.from_connection_string(limited, retry_total=0) as data:
        for queue in ("a", "b"):
            with data.get_queue_receiver(queue, max_wait_time=0.5) as receiver:
                assert receiver.receive_messages(1) == []
        refused = pytest.raises((ServiceBusAuthenticationError, ServiceBusAuthorizationError))
        with refused, data.get_queue_sender("a") as sender:
            sender.send_messages(ServiceBusMessage("x"))


def forwarding(target: str) -> dict[str, Any]:
    return {"queues": [{"name": "work", "forward_to": target}, {"name": "target"}]}


def test_nothing_is_stored_of_a_file_that_was_refused(
    start_broker: Callable[..., BrokerThread], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    with pytest.raises(ConfigError, match="ForwardTo"):
        start_broker(forwarding("targte"), data=data)
    broker = start_broker(forwarding("target"), data=data)
    assert forwards(broker) == {"work": "target", "target": None}


def test_a_refused_file_leaves_what_is_stored_as_it_is(
    start_broker: Callable[..., BrokerThread], tmp_path: Path
) -> None:
    data, options = tmp_path / "data", {"ca_directory": tmp_path}
    stored: dict[str, Any] = {"queues": [{"name": "kept"}]}
    with BrokerThread(BrokerOptions(topology=stored, data=data, **options)) as broker:
        broker.call(lambda: broker.broker.engine.send("kept", [Message(b"")]))
    with pytest.raises(ConfigError, match="ForwardTo"):
        start_broker(forwarding("targte"), data=data)
    with pytest.raises(FileNotFoundError):
        start_broker(tmp_path / "missing.json", data=data)
    with BrokerThread(BrokerOptions(topology=forwarding("target"), data=data, **options)) as broker:
        assert forwards(broker) == {"kept": None, "work": "target", "target": None}
    again = start_broker(None, data=data)
    assert forwards(again) == {"kept": None, "work": "target", "target": None}
    assert again.call(lambda: again.broker.engine.counts("kept").active) == 1


def forwards(broker: BrokerThread) -> dict[str, str | None]:
    def read() -> dict[str, str | None]:
        return {queue.path: queue.settings.forward_to for queue in broker.broker.engine.namespace.queues()}

    return broker.call(read)


def test_the_command_says_what_is_wrong_in_a_file_and_where(tmp_path: Path) -> None:
    document = json.loads(json.dumps(EMULATORS))
    document["UserConfig"]["Namespaces"][0]["Queues"][0]["Properties"]["LockDuration"] = "1 minute"
    file = tmp_path / "config.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "fusebus.servicebus", "--port", "0", "--config", str(file), "--ca-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert f"{file}: UserConfig.Namespaces[0].Queues[0].Properties.LockDuration: '1 minute' is not" in done.stderr
