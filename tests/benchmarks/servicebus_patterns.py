"""What the broker is measured with: the SDK, a thin client and rhea, each in its patterns of sending and receiving."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azure.servicebus import ServiceBusClient, ServiceBusMessage, ServiceBusReceiveMode
from azure.servicebus.aio import ServiceBusClient as AsyncClient
from raw_amqp import RawClient, envelope, message
from servicebus_broker import BATCH, BODY, BrokerProcess, taken

RHEA_CACHE = Path(os.environ.get("FUSEBUS_CACHE", Path(__file__).parents[2] / ".cache" / "fusebus"))


@dataclass
class Figure:
    """One pattern on one kind of broker; times in microseconds of CPU per message."""

    pattern: str
    store: str
    messages: int
    broker_us: float
    client_us: float
    per_second: float
    sdk: bool
    ratio: float = 0.0
    """Broker's time to client's; median of what each round gave."""
    of_memory: float = 1.0
    """Broker's time to that of the broker in memory, likewise."""

    @property
    def per_core(self) -> float:
        return 1e6 / self.broker_us


def own_cpu_seconds() -> float:
    return time.process_time()


def measured(running: BrokerProcess, pattern: str, store: str, count: int, work: Callable[[], None]) -> Figure:
    gc.collect()
    broker_before, own_before, started = running.cpu_seconds(), own_cpu_seconds(), time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    own = own_cpu_seconds() - own_before
    served = running.cpu_seconds() - broker_before
    sdk = pattern.startswith("SDK")
    return Figure(pattern, store, count, served / count * 1e6, own / count * 1e6, count / seconds, sdk)


# --- the SDK's patterns


def sdk_patterns(running: BrokerProcess, store: str, scale: float) -> Iterator[Figure]:
    single = int(3000 * scale)
    batched = -(-max(int(20_000 * scale), 5 * single) // BATCH) * BATCH
    deleted = batched - single - 1  # with the other two receiving patterns: all that was sent, so that rounds are alike
    with ServiceBusClient.from_connection_string(running.connection_string) as client:
        with client.get_queue_sender("a") as sender:
            sender.send_messages(ServiceBusMessage(BODY))
            yield measured(running, "SDK single sends", store, single, lambda: send_singly(sender, single))
            yield measured(running, "SDK batches of 100", store, batched, lambda: send_batches(sender, batched))
        with client.get_queue_receiver("a") as receiver:
            receiver.receive_messages(1)
            yield measured(
                running, "SDK receive 100, complete each", store, single, lambda: complete_all(receiver, single)
            )
        with client.get_queue_receiver("a", receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE) as receiver:
            receiver.receive_messages(1)
            yield measured(running, "SDK receive and delete", store, deleted, lambda: take_all(receiver, deleted))
    yield asyncio.run(prefetching(running, store, single))


def send_singly(sender: Any, count: int) -> None:
    for _ in range(count):
        sender.send_messages(ServiceBusMessage(BODY))


def send_batches(sender: Any, count: int) -> None:
    for _ in range(count // BATCH):
        sender.send_messages([ServiceBusMessage(BODY) for _ in range(BATCH)])


def complete_all(receiver: Any, count: int) -> None:
    done = 0
    while done < count:
        for received in receiver.receive_messages(min(BATCH, count - done), max_wait_time=5):
            receiver.complete_message(received)
            done += 1


def take_all(receiver: Any, count: int) -> None:
    done = 0
    while done < count:
        done += len(receiver.receive_messages(min(BATCH, count - done), max_wait_time=5))


async def prefetching(running: BrokerProcess, store: str, count: int) -> Figure:
    client = AsyncClient.from_connection_string(running.connection_string)
    async with client, client.get_queue_receiver("a", prefetch_count=100) as receiver:
        broker_before, own_before, started = running.cpu_seconds(), own_cpu_seconds(), time.perf_counter()
        done = 0
        while done < count:
            for received in await receiver.receive_messages(min(BATCH, count - done), max_wait_time=5):
                await receiver.complete_message(received)
                done += 1
        seconds = time.perf_counter() - started
        own, served = own_cpu_seconds() - own_before, running.cpu_seconds() - broker_before
    name = "SDK aio, prefetch 100, complete"
    return Figure(name, store, count, served / count * 1e6, own / count * 1e6, count / seconds, True)


# --- the thin client's patterns


def raw_patterns(running: BrokerProcess, store: str, scale: float) -> Iterator[Figure]:
    count = int(60_000 * scale) // BATCH * BATCH
    single, batch = message(BODY), envelope([message(BODY) for _ in range(BATCH)])
    sender = RawClient(running.port)
    sender.attach_sender("b")
    yield measured(running, "pipelined single sends", store, count, lambda: sender.send_all([single] * count))
    batches = [batch] * (count // BATCH)
    yield measured(
        running, "pipelined batches of 100", store, count, lambda: sender.send_all(batches, batch=True, ahead=40)
    )
    receiver = RawClient(running.port)
    receiver.attach_receiver("b", settled=True)
    yield measured(running, "receive and delete, credit ahead", store, count, lambda: taken(receiver, count))
    receiver.close()
    receiver = RawClient(running.port)
    receiver.attach_receiver("b")
    yield measured(
        running, "peek-lock and complete, pipelined", store, count, lambda: taken(receiver, count, complete=True)
    )
    receiver.close()
    sender.close()


# --- rhea's patterns, from a process of its own


def rhea_patterns(running: BrokerProcess, store: str, scale: float) -> Iterator[Figure]:
    """Nothing without Node, or before the conformance test of the JavaScript SDK has installed rhea."""
    found = [*RHEA_CACHE.glob("servicebus-javascript-*/node_modules/rhea/package.json")]
    if shutil.which("node") is None or not found:
        return
    count = int(60_000 * scale) // BATCH * BATCH
    for name, pattern in (("single sends", "single"), ("batches of 100", "batch"), ("receive and delete", "take")):
        yield by_rhea(running, found[0].parent, f"rhea {name}, pipelined", store, pattern, count)
    drain = RawClient(running.port)  # what was sent is twice what was received
    drain.attach_receiver("e", settled=True)
    taken(drain, count)
    drain.close()


def by_rhea(running: BrokerProcess, rhea: Path, name: str, store: str, pattern: str, count: int) -> Figure:
    script = Path(__file__).with_name("servicebus_rhea.mjs")
    command = ["node", str(script), str(rhea), str(running.port), pattern, str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
        before = running.cpu_seconds()
        client.stdin.write("go\n")
        client.stdin.flush()
        told = json.loads(client.stdout.readline())
        served = running.cpu_seconds() - before
    per_second = count / told["seconds"]
    return Figure(name, store, count, served / count * 1e6, told["cpu_us"] / count, per_second, False)
