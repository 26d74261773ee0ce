"""The broker's cost beside its client's: CPU per message and rates, in memory and durable, in one run.

    python tests/benchmarks/servicebus_bench.py [--quick] [--only speed|size|churn] [--output FILE]

CPU times are those of the two processes (user and system); "per core" is what one fully used core of the broker does.
Figures of one run compare with each other; the absolute ones belong to the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from azure.servicebus import ServiceBusClient, ServiceBusMessage, ServiceBusReceiveMode
from azure.servicebus.aio import ServiceBusClient as AsyncClient

sys.path.insert(0, str(Path(__file__).parents[1] / "plugins"))
from raw_amqp import RawClient, envelope, message

BODY = b"x" * 1024
BATCH = 100  # messages
ROUNDS = 5  # of each pattern, in memory and durable in turn: what else the machine does hits both
PAGE = os.sysconf("SC_PAGE_SIZE")
QUEUES = ("a", "b", "c", "d", "e", "f", "g", "h", "i")
TOPOLOGY = {"queues": [{"name": name, "max_size_megabytes": 5120, "lock_seconds": 300} for name in QUEUES]}
MARK_RATIO, MARK_DURABLE, MARK_RATE, MARK_GIGABYTES = 0.4, 1.3, 60_000, 2.0


class BrokerProcess:
    """A broker of its own, measured from outside."""

    def __init__(self, folder: Path, durable: bool) -> None:
        topology = folder / "topology.json"
        topology.write_text(json.dumps(TOPOLOGY))
        arguments = ["--port", "0", "--insecure", "--config", str(topology), "--ca-dir", str(folder / "ca")]
        if durable:
            arguments += ["--data", str(folder / "data")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fusebus.servicebus", *arguments], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.connection_string = self.process.stdout.readline().strip()
        self.port = int(self.connection_string.split(";")[0].rsplit(":", 1)[1])
        self.process.stdout.readline()

    def cpu_seconds(self) -> float:
        """User and system time so far, of the one thread that a broker has; the kernel counts nanoseconds."""
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0]) / 1e9

    def resident_bytes(self) -> int:
        """Memory in use now."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@contextmanager
def broker(durable: bool = False) -> Iterator[BrokerProcess]:
    with tempfile.TemporaryDirectory(prefix="servicebus-bench-") as folder:
        running = BrokerProcess(Path(folder), durable)
        try:
            yield running
        finally:
            running.stop()


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

    @property
    def ratio(self) -> float:
        return self.broker_us / self.client_us

    @property
    def per_core(self) -> float:
        return 1e6 / self.broker_us


def own_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


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
    single, batched = int(3000 * scale), int(20_000 * scale)
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
            yield measured(running, "SDK receive and delete", store, 2 * single, lambda: take_all(receiver, 2 * single))
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


def taken(receiver: RawClient, count: int, complete: bool = False, window: int = 2000) -> None:
    for start in range(0, count, window):
        receiver.grant(min(window, count - start), start)
        receiver.receive_all(min(window, count - start), complete=complete)


# --- size and growth


def size(queued: int, receivers: int) -> dict[str, Any]:
    """Memory with many receivers and a long queue, and after they are gone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, receivers + 1000)), hard))
    with broker() as running:
        start = running.resident_bytes()
        open_receivers = [idle_receiver(running.port) for _ in range(receivers)]
        with_receivers = running.resident_bytes()
        sender = RawClient(running.port, timeout=60)
        sender.attach_sender("h")
        batch = envelope([message(BODY) for _ in range(BATCH)])
        sender.send_all([batch] * (queued // BATCH), batch=True, ahead=40)
        full = running.resident_bytes()
        for each in open_receivers:
            each.close()
        drain = RawClient(running.port, timeout=60)
        drain.attach_receiver("h", settled=True)
        taken(drain, queued)
        drain.close()
        sender.close()
        time.sleep(2.0)  # the broker notices that connections are gone
        after = running.resident_bytes()
    return {
        "receivers": receivers,
        "queued": queued,
        "start_megabytes": start / 1e6,
        "with_receivers_megabytes": with_receivers / 1e6,
        "full_megabytes": full / 1e6,
        "after_drain_megabytes": after / 1e6,
    }


def idle_receiver(port: int) -> RawClient:
    client = RawClient(port)
    client.attach_receiver("g")
    client.grant(10)
    return client


def churn(seconds: float, durable: bool) -> dict[str, Any]:
    """Connections, sends, completions, abandons over and over; the slope of memory over the second half."""
    samples: list[tuple[float, float]] = []
    with broker(durable) as running:
        started = time.perf_counter()
        rounds = 0
        while (elapsed := time.perf_counter() - started) < seconds:
            churn_once(running.port)
            rounds += 1
            samples.append((elapsed, running.resident_bytes() / 1e6))
    half = samples[len(samples) // 2 :]
    return {
        "store": "durable" if durable else "memory",
        "seconds": seconds,
        "messages": rounds * 4000,
        "connections": rounds * 4,
        "first_megabytes": samples[0][1],
        "last_megabytes": samples[-1][1],
        "slope_megabytes_per_hour": slope(half) * 3600,
        "slope_bytes_per_message": slope(half) * 1e6 / (rounds * 4000 / seconds),
    }


def churn_once(port: int) -> None:
    for name in ("c", "d"):
        sender = RawClient(port)
        sender.attach_sender(name)
        sender.send_all([message(BODY, number=index) for index in range(2000)])
        receiver = RawClient(port)
        receiver.attach_receiver(name)
        taken(receiver, 2000, complete=True)
        receiver.close()
        sender.close()


def slope(points: list[tuple[float, float]]) -> float:
    """Least squares, units of the second per unit of the first."""
    count = len(points)
    x_mean, y_mean = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - x_mean) ** 2 for x, _ in points)
    return sum((x - x_mean) * (y - y_mean) for x, y in points) / spread if spread else 0.0


# --- the run


def speed(scale: float) -> list[Figure]:
    """Each pattern in turn on a broker in memory and on a durable one, ROUNDS times; medians of the rounds."""
    rounds: dict[tuple[str, str], list[Figure]] = {}
    with broker() as memory, broker(durable=True) as durable:
        for _ in range(ROUNDS):
            for patterns in (sdk_patterns, raw_patterns):
                pairs = zip(
                    patterns(memory, "memory", scale / ROUNDS),
                    patterns(durable, "durable", scale / ROUNDS),
                    strict=True,
                )
                for figure in (each for pair in pairs for each in pair):
                    rounds.setdefault((figure.pattern, figure.store), []).append(figure)
    figures = [middle(each) for each in rounds.values()]
    print("\n".join(line(figure) for figure in figures), flush=True)
    return figures


def middle(rounds: list[Figure]) -> Figure:
    """The medians of what the rounds measured."""
    return replace(
        rounds[0],
        messages=sum(each.messages for each in rounds),
        broker_us=median(each.broker_us for each in rounds),
        client_us=median(each.client_us for each in rounds),
        per_second=median(each.per_second for each in rounds),
    )


def line(figure: Figure) -> str:
    ratio = f"{figure.ratio:6.2f}" if figure.sdk else "     –"
    return (
        f"{figure.pattern:34} {figure.store:8} {figure.broker_us:8.1f} {figure.client_us:9.1f} {ratio}"
        f" {figure.per_second:10.0f} {figure.per_core:10.0f}"
    )


HEAD = (
    f"{'pattern (1 KB bodies)':34} {'store':8} {'broker':>8} {'client':>9} {'ratio':>6} {'msg/s':>10} {'per core':>10}"
)


def verdicts(figures: list[Figure]) -> list[str]:
    """Each mark and whether it is reached."""
    worst = max((figure for figure in figures if figure.sdk), key=lambda figure: figure.ratio)
    memory = {figure.pattern: figure for figure in figures if figure.store == "memory"}
    dearest = max(
        (figure for figure in figures if figure.store == "durable"),
        key=lambda figure: figure.broker_us / memory[figure.pattern].broker_us,
    )
    dear = dearest.broker_us / memory[dearest.pattern].broker_us
    fast = max((figure for figure in memory.values() if not figure.sdk), key=lambda figure: figure.per_core)
    said = [
        (worst.ratio <= MARK_RATIO, f"broker/SDK CPU at most {MARK_RATIO}: worst {worst.ratio:.2f} ({worst.pattern})"),
        (dear <= MARK_DURABLE, f"durable/memory CPU at most {MARK_DURABLE}: worst {dear:.2f} ({dearest.pattern})"),
        (
            fast.per_core >= MARK_RATE,
            f"{MARK_RATE} pipelined or batched messages/s per core: best {fast.per_core:.0f} ({fast.pattern})",
        ),
    ]
    return [f"{'reached' if reached else 'MISSED '}  {text}" for reached, text in said]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="a tenth of the messages: shows that it runs")
    made.add_argument("--only", choices=("speed", "size", "churn"))
    made.add_argument("--churn-seconds", type=float, default=60.0)
    made.add_argument("--output", type=Path, default=Path("benchmarks/servicebus.json"), help="default: %(default)s")
    return made


def main() -> None:
    given = parser().parse_args()
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}"
    }
    if given.only in (None, "speed"):
        print(f"{HEAD}\n{' ' * 43}µs of CPU per message")
        figures = speed(0.1 if given.quick else 1.0)
        result["speed"] = [asdict(figure) | {"ratio": figure.ratio, "per_core": figure.per_core} for figure in figures]
        result["verdicts"] = verdicts(figures)
        print("\n".join(result["verdicts"]))
    if given.only in (None, "size"):
        result["size"] = size(100_000, 500) if given.quick else size(1_000_000, 5_000)
        print(json.dumps(result["size"]))
    if given.only in (None, "churn"):
        result["churn"] = [churn(given.churn_seconds / (10 if given.quick else 1), store) for store in (False, True)]
        print("\n".join(json.dumps(each) for each in result["churn"]))
    if given.output is not None:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
