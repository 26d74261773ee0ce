"""The broker through the unmodified blocking SDK, its security, and its command line."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.core.credentials import AccessToken, AzureSasCredential
from azure.core.exceptions import ServiceRequestError
from azure.servicebus import ServiceBusClient, ServiceBusMessage, ServiceBusSubQueue
from azure.servicebus.exceptions import MessageLockLostError, ServiceBusAuthenticationError, ServiceBusError
from azure.servicebus.management import ServiceBusAdministrationClient

from fusebus.servicebus import sas
from fusebus.servicebus.broker import KEY_NAME
from fusebus.servicebus.testing import BrokerThread

TOPOLOGY = {
    "queues": [{"name": "work"}, {"name": "other"}],
    "topics": [{"name": "images", "subscriptions": [{"name": "detect"}]}],
}
START_SECONDS = 60
WAIT_SECONDS = 20


def client_of(connection_string: str, **options: Any) -> ServiceBusClient:
    return ServiceBusClient.from_connection_string(connection_string, retry_total=0, **options)


def token_for(broker: BrokerThread, path: str, seconds: int = 60, key: str | None = None) -> AzureSasCredential:
    """A token as a client makes it, for one entity."""
    expires_at = int(datetime.now(UTC).timestamp()) + seconds
    uri = f"sb://127.0.0.1:{broker.port}/{path}"
    return AzureSasCredential(sas.make_token(uri, KEY_NAME, key or broker.broker.gateway.key, expires_at))


def send_with(broker: BrokerThread, credential: Any, queue: str) -> None:
    address = f"127.0.0.1:{broker.port}"
    with (
        ServiceBusClient(address, credential, use_tls=False, retry_total=0) as client,
        client.get_queue_sender(queue) as sender,
    ):
        sender.send_messages(ServiceBusMessage("a"))


def test_send_receive_and_each_settlement_work_from_blocking_code(broker: BrokerThread) -> None:
    with client_of(broker.connection_string) as client:
        with client.get_topic_sender("images") as sender:
            sender.send_messages([ServiceBusMessage(str(number), message_id=str(number)) for number in range(4)])
        with client.get_subscription_receiver("images", "detect") as receiver:
            first, second, third, fourth = receiver.receive_messages(4, max_wait_time=WAIT_SECONDS)
            receiver.renew_message_lock(first)
            receiver.complete_message(first)
            receiver.abandon_message(second)
            receiver.defer_message(third)
            receiver.dead_letter_message(fourth, reason="why", error_description="because")
            (again,) = receiver.receive_messages(1, max_wait_time=WAIT_SECONDS)
            assert (again.message_id, again.delivery_count) == ("1", 1)
            (deferred,) = receiver.receive_deferred_messages(third.sequence_number)
            receiver.complete_message(deferred)
            assert broker.lose_locks("images/Subscriptions/detect") == 1
            with pytest.raises(MessageLockLostError):
                receiver.complete_message(again)
        dead = client.get_subscription_receiver("images", "detect", sub_queue=ServiceBusSubQueue.DEAD_LETTER)
        with dead:
            (message,) = dead.receive_messages(1, max_wait_time=WAIT_SECONDS)
            assert (message.dead_letter_reason, message.dead_letter_error_description) == ("why", "because")


def test_a_token_for_one_entity_opens_that_entity_only(broker: BrokerThread) -> None:
    send_with(broker, token_for(broker, "work"), "work")
    with pytest.raises(ServiceBusAuthenticationError):
        send_with(broker, token_for(broker, "work"), "other")


def test_expired_and_forged_tokens_are_refused(broker: BrokerThread) -> None:
    for credential in (token_for(broker, "work", seconds=-5), token_for(broker, "work", key="guessed")):
        with pytest.raises(ServiceBusAuthenticationError):
            send_with(broker, credential, "work")


def test_an_insecure_broker_takes_any_token(start_broker: Any) -> None:
    broker = start_broker(TOPOLOGY, insecure=True)
    send_with(broker, token_for(broker, "other", key="guessed"), "work")


class JsonWebToken:
    """Credentials as Microsoft Entra ID gives them."""

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        return AccessToken("e30.e30.c2ln", int(datetime.now(UTC).timestamp()) + 3600)


@pytest.mark.parametrize("insecure", [True, False])
def test_a_json_web_token_is_taken_unread_or_refused(start_broker: Any, insecure: bool) -> None:
    broker = start_broker(TOPOLOGY, insecure=insecure)
    if insecure:
        send_with(broker, JsonWebToken(), "work")
    else:
        with pytest.raises(ServiceBusAuthenticationError):
            send_with(broker, JsonWebToken(), "work")


def test_the_connection_string_serves_data_and_administration_alike(broker: BrokerThread) -> None:
    with client_of(broker.connection_string) as client, client.get_queue_sender("work") as sender:
        sender.send_messages(ServiceBusMessage("a"))
    with ServiceBusAdministrationClient.from_connection_string(
        broker.connection_string, connection_verify=str(broker.ca_path)
    ) as administration:
        assert administration.get_queue_runtime_properties("work").active_message_count == 1


def test_an_administration_client_that_does_not_trust_the_authority_is_not_served(broker: BrokerThread) -> None:
    with (
        ServiceBusAdministrationClient.from_connection_string(
            broker.connection_string, retry_total=0
        ) as administration,
        pytest.raises(ServiceRequestError, match="certificate"),
    ):
        administration.get_queue_runtime_properties("work")


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The command, with a topology file and orders for failures open."""
    config = tmp_path / "topology.json"
    config.write_text(json.dumps(TOPOLOGY))
    command = [sys.executable, "-m", "fusebus.servicebus", "--port", "0", "--admin-port", "0", "--faults"]
    command += ["--config", str(config), "--ca-dir", str(tmp_path / "ca"), "--key", "a key"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        if process.poll() is None:
            process.kill()


def lines_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    assert process.stdout is not None
    return process.stdout.readline().strip(), process.stdout.readline().strip()


def test_the_command_says_how_to_connect_and_stops_on_sigterm(process: subprocess.Popen[str]) -> None:
    connection_string, ca_path = lines_of(process)
    assert "SharedAccessKey=a key;" in connection_string
    assert "BEGIN CERTIFICATE" in Path(ca_path).read_text()
    assert (Path(ca_path).parent / "ca.key").stat().st_mode & 0o077 == 0
    with client_of(connection_string) as client, client.get_queue_sender("work") as sender:
        sender.send_messages(ServiceBusMessage("a"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_SECONDS) == 0


def test_failures_can_be_ordered_over_http(process: subprocess.Popen[str]) -> None:
    connection_string, _ = lines_of(process)
    found = re.search(r"sb://([^;]+);", connection_string)
    assert found is not None
    address = f"http://{found.group(1)}/$faults"

    def order(**fault: Any) -> int:
        request = urllib.request.Request(address, json.dumps(fault).encode())
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
            return int(json.load(answer)["count"])

    with client_of(connection_string) as client, client.get_queue_sender("work") as sender:
        sender.send_messages(ServiceBusMessage("a"))
        with client.get_queue_receiver("work") as receiver:
            (message,) = receiver.receive_messages(1, max_wait_time=WAIT_SECONDS)
            assert order(action="fail-renewals", count=1) == 1
            with pytest.raises(ServiceBusError):
                receiver.renew_message_lock(message)
            assert order(action="lose-locks", entity="work") == 1
            assert order(action="detach", entity="WORK") == 2
            with pytest.raises(urllib.error.HTTPError):
                order(action="explode")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "exit codes:"),
        (["--port", "x"], 2, "--port"),
        (["--config", "missing.json"], 1, "missing.json"),
        (["--config", "wrong.json"], 2, "queues[0].nmae"),
    ],
)
def test_wrong_arguments_are_explained(arguments: list[str], code: int, said: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.json").write_text('{"queues": [{"name": "a", "nmae": "b"}]}')
    done = subprocess.run(
        [sys.executable, "-m", "fusebus.servicebus", "--port", "0", "--ca-dir", str(tmp_path / "ca"), *arguments],
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "200"},
        check=False,
    )
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stderr


def test_a_token_expires_into_a_refusal_at_the_next_attach(broker: BrokerThread) -> None:
    claim = broker.broker.gateway.verify(token_for(broker, "work", seconds=10).signature)
    now = datetime.now(UTC)
    assert claim.covers("work/$DeadLetterQueue", now.timestamp())
    assert not claim.covers("workshop", now.timestamp())
    assert not claim.covers("work", (now + timedelta(seconds=11)).timestamp())
