"""A durable broker as a process: restarts, and disks that fill up, through the SDK."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.exceptions import ServiceBusError, ServiceBusQuotaExceededError
from durable_broker import WAIT_SECONDS, DurableBroker

TOPOLOGY = {"queues": [{"name": "work"}]}


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[DurableBroker]:
    running = DurableBroker(tmp_path, TOPOLOGY)
    yield running
    if running.process.poll() is None:
        running.end()


def send(client: ServiceBusClient, body: str) -> None:
    with client.get_queue_sender("work") as sender:
        sender.send_messages(ServiceBusMessage(body))


def taken(client: ServiceBusClient) -> list[str]:
    with client.get_queue_receiver("work", receive_mode="receiveanddelete") as receiver:
        found: list[str] = []
        while batch := receiver.receive_messages(100, max_wait_time=1):
            found += [str(each) for each in batch]
        return found


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_messages_and_locks_after_a_restart(durable: DurableBroker, how: int) -> None:
    with durable.client() as client:
        send(client, "first")
        send(client, "second")
        with client.get_queue_receiver("work") as receiver:
            (message,) = receiver.receive_messages(1, max_wait_time=2)
            number = message.sequence_number
            durable.end(how)
    durable.start()
    with durable.client() as client, client.get_queue_receiver("work") as receiver:
        again = receiver.receive_messages(2, max_wait_time=2)
        assert [str(each) for each in again] == ["first", "second"]
        assert again[0].sequence_number == number
        for each in again:
            receiver.complete_message(each)
    durable.end(how)
    durable.start()
    with durable.client() as client:
        assert taken(client) == []
        send(client, "third")
        with client.get_queue_receiver("work") as receiver:
            (last,) = receiver.receive_messages(1, max_wait_time=2)
            assert last.sequence_number is not None and number is not None
            assert last.sequence_number > number + 1


def test_a_second_broker_on_the_directory_says_that_it_is_in_use(durable: DurableBroker) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "fusebus.servicebus", "--port", "0", "--data", str(durable.data)],
        cwd=durable.folder,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert second.returncode == 1
    assert "in use by another broker" in second.stderr


@pytest.mark.long  # the SDK tries what is not answered again, for minutes
def test_a_full_disk_refuses_sends_and_goes_on_when_there_is_room(durable: DurableBroker) -> None:
    accepted: list[str] = []
    with durable.client() as client:
        send(client, "before")
        durable.limit_files(300_000)
        refusal = fill_up(client, accepted)
        assert "disk" in str(refusal)
        durable.limit_files(resource.RLIM_INFINITY)
        send_when_possible(client, "after")
    durable.end(signal.SIGKILL)
    durable.start()
    with durable.client() as client:
        found = taken(client)
    assert found[0] == "before"
    assert found[-1] == "after"
    assert set(accepted) <= set(found)


def fill_up(client: ServiceBusClient, accepted: list[str]) -> Any:
    """Sends until the broker says no; the first send that cannot be written is not answered at all."""
    for number in range(200):
        body = f"{number} " + "x" * 60_000
        try:
            send(client, body)
            accepted.append(body)
        except ServiceBusQuotaExceededError as refusal:
            return refusal
        except ServiceBusError:
            continue
    raise AssertionError("nothing was refused")


def send_when_possible(client: ServiceBusClient, body: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            send(client, body)
            return
        except ServiceBusQuotaExceededError:
            assert time.monotonic() < deadline, "the broker does not find its room again"
            time.sleep(0.2)


def small_disk(folder: Path) -> bool:
    """Whether this machine lets an ordinary user mount a small file system."""
    probe = subprocess.run(
        ["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True, check=False
    )
    return probe.returncode == 0


def test_what_was_taken_in_is_kept_by_the_reserve_of_a_small_disk(tmp_path: Path) -> None:
    """On a real file system without room; the script runs where only it sees that file system."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not small_disk(folder):
        pytest.skip("mounting is not allowed here")
    script = Path(__file__).with_name("full_disk.py")
    command = f'mount -t tmpfs -o size=4m tmpfs "{folder}" && exec "{sys.executable}" "{script}" "{folder}"'
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
