"""kill -9 of a durable broker under load: what it acknowledged holds, and what was completed stays away."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.exceptions import ServiceBusError
from raw_amqp import RawClient, Refused, envelope, message

from fusebus.servicebus.amqp import sections
from fusebus.servicebus.amqp.decoding import decode, decode_exactly

KILLS = int(os.environ.get("BROKER_KILLS", "8"))
LIFE_SECONDS = 0.3  # at most, from when a new broker has served the clients; also where kills fall within their work
PROGRESS_SECONDS = 20.0  # what clients may take to find a new broker
SDK_EVERY = 4  # kills wait for the raw clients' work, every so many for the SDK's too: its connections take a while
DRAIN_SECONDS = 30.0
MAX_BACKLOG = 2000  # messages; starts shall be quick
TOPOLOGY = {
    "queues": [
        {"name": "raw", "lock_seconds": 300, "max_delivery_count": 1000},
        {"name": "sdk", "lock_seconds": 300, "max_delivery_count": 1000},
    ]
}


class Brokers:
    """One durable broker after the other on the same data and the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "topology.json").write_text(json.dumps(TOPOLOGY))
        self.port = 0
        self.complaints: list[str] = []
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        folder = self.folder
        arguments = ["--port", str(self.port), "--insecure", "--config", str(folder / "topology.json")]
        arguments += ["--ca-dir", str(folder / "ca"), "--data", str(folder / "data")]
        with (folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fusebus.servicebus", *arguments], stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._process.stdout is not None
        self.connection_string = self._process.stdout.readline().strip()
        assert self.connection_string, (folder / "log").read_text()
        self.port = int(self.connection_string.split(";")[0].rsplit(":", 1)[1])

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(30)


class Account:
    """What clients were told, and what they saw. Bodies are unique."""

    def __init__(self) -> None:
        self.tried: set[bytes] = set()
        self.accepted: set[bytes] = set()
        self.completed: set[bytes] = set()
        """The broker confirmed the completion."""
        self.maybe_completed: set[bytes] = set()
        self.numbers: dict[int, bytes] = {}
        self.faults: list[str] = []

    def seen(self, body: bytes, number: int) -> None:
        if body not in self.tried:
            self.faults.append(f"{body!r} was never sent")
        if body in self.completed:
            self.faults.append(f"{body!r} came back after its completion was confirmed")
        if self.numbers.setdefault(number, body) != body:
            self.faults.append(f"sequence number {number}: {self.numbers[number]!r} and then {body!r}")

    def lost(self, left: set[bytes]) -> set[bytes]:
        return self.accepted - self.completed - self.maybe_completed - left


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[Brokers]:
    running = Brokers(tmp_path)
    yield running
    running.stop()


def raw_sender(brokers: Brokers, account: Account, stop: threading.Event) -> None:
    """Single messages and batches, several ahead of their answers."""
    serial = 0
    while not stop.is_set():
        with suppress(OSError, Refused):
            client = RawClient(brokers.port, timeout=2)
            client.attach_sender("raw")
            while not stop.is_set():
                if len(account.accepted) > len(account.completed) + MAX_BACKLOG:
                    time.sleep(0.01)
                    continue
                bodies = [b"raw %d" % (serial + offset) for offset in range(20)]
                serial += 20
                account.tried.update(bodies)
                if serial % 40:
                    client.send(envelope([message(body) for body in bodies]), batch=True)
                else:
                    client.send_all([message(body) for body in bodies])
                account.accepted.update(bodies)
        time.sleep(0.02)


def raw_receiver(brokers: Brokers, account: Account, stop: threading.Event) -> None:
    """Completes what it gets, but leaves the newest so that there is always something to lose."""
    while not stop.is_set():
        with suppress(OSError):
            client = RawClient(brokers.port, timeout=2)
            client.attach_receiver("raw")
            granted = 0
            while not stop.is_set():
                client.grant(10, granted)
                got: list[bytes] = []
                pending = [*receive(client, 10, account, got)]
                account.maybe_completed.update(got)
                client.socket.sendall(b"".join(pending))
                client.confirmed(len(pending))
                account.completed.update(got)
                granted += 10
        time.sleep(0.02)


def receive(client: RawClient, count: int, account: Account, got: list[bytes]) -> Iterator[bytes]:
    """Frames that complete the next `count` messages, whose bodies go to `got`."""
    for delivery_id, payload in client.deliveries(count):
        body, number = content(payload)
        account.seen(body, number)
        got.append(body)
        yield client.accept(delivery_id)


def content(payload: bytes) -> tuple[bytes, int]:
    """Body and sequence number of an encoded delivery."""
    number = decode_exactly(sections.parse_message(payload).annotations["x-opt-sequence-number"])
    body = next(decode(payload, start)[0] for code, start, _ in sections.sections_of(payload) if code == sections.DATA)
    return body, number


async def sdk_clients(brokers: Brokers, account: Account, stop: threading.Event) -> None:
    """The Python SDK sends and completes, as applications do."""
    serial = 0
    while not stop.is_set():
        with suppress(ServiceBusError, OSError, ValueError):
            async with ServiceBusClient.from_connection_string(
                brokers.connection_string, retry_total=0, socket_timeout=1
            ) as client:
                sender, receiver = client.get_queue_sender("sdk"), client.get_queue_receiver("sdk")
                async with sender, receiver:
                    while not stop.is_set():
                        serial += 1
                        await sdk_round(sender, receiver, account, b"sdk %d" % serial)
        await asyncio.sleep(0.02)


async def sdk_round(sender, receiver, account: Account, body: bytes) -> None:  # type: ignore[no-untyped-def]
    account.tried.add(body)
    await sender.send_messages(ServiceBusMessage(body))
    account.accepted.add(body)
    for received in await receiver.receive_messages(max_message_count=1, max_wait_time=0.5):
        got = b"".join(received.body)
        account.seen(got, received.sequence_number)
        account.maybe_completed.add(got)
        await receiver.complete_message(received)
        account.completed.add(got)


def drained(brokers: Brokers, queue: str, account: Account) -> set[bytes]:
    """Everything that is left; the last message is one sent for the purpose."""
    sender = RawClient(brokers.port)
    sender.attach_sender(queue)
    account.tried.add(b"last " + queue.encode())
    sender.send(message(b"last " + queue.encode()))
    client = RawClient(brokers.port, timeout=DRAIN_SECONDS)
    client.attach_receiver(queue, settled=True)
    left: set[bytes] = set()
    granted = 0
    while b"last " + queue.encode() not in left:
        client.grant(1, granted)
        granted += 1
        for _, payload in client.deliveries(1):
            body, number = content(payload)
            account.seen(body, number)
            left.add(body)
    return left


def served(account: Account) -> None:
    """Waits until something more was completed."""
    before, deadline = len(account.completed), time.monotonic() + PROGRESS_SECONDS
    while len(account.completed) == before:
        assert time.monotonic() < deadline, "the clients get nowhere"
        time.sleep(0.005)


@pytest.mark.long  # `make test-broker-kills` has more of it
@pytest.mark.timeout(900)
def test_what_was_acknowledged_outlives_kill_9_at_any_moment(brokers: Brokers) -> None:
    accounts, stop = {"raw": Account(), "sdk": Account()}, threading.Event()
    chance = random.Random(20260)
    brokers.start()
    workers = [
        threading.Thread(target=raw_sender, args=(brokers, accounts["raw"], stop)),
        threading.Thread(target=raw_receiver, args=(brokers, accounts["raw"], stop)),
        threading.Thread(target=lambda: asyncio.run(sdk_clients(brokers, accounts["sdk"], stop))),
    ]
    for worker in workers:
        worker.start()
    try:
        for kill in range(KILLS):
            served(accounts["raw"])
            if kill % SDK_EVERY == 0:
                served(accounts["sdk"])
            time.sleep(chance.uniform(0, LIFE_SECONDS))
            brokers.kill()
            brokers.start()
    finally:
        stop.set()
        for worker in workers:
            worker.join(30)
    brokers.kill()
    brokers.start()
    report = Counter[str]()
    for queue, account in accounts.items():
        left = drained(brokers, queue, account)
        assert account.faults == []
        assert account.lost(left) == set()
        report.update({f"{queue} accepted": len(account.accepted), f"{queue} completed": len(account.completed)})
        assert account.completed, "nothing was completed: the test tested nothing"
    print(f"{KILLS} kills: {dict(report)}")
    assert "damaged" not in (brokers.folder / "log").read_text()
