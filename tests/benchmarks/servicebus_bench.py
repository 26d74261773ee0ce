"""The broker's cost beside its client's: CPU per message and rates, in memory and durable (both kinds), in one run.

    python tests/benchmarks/servicebus_bench.py [--quick] [--only speed|size|churn] [--churn-seconds N] [--output FILE]

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
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from azure.servicebus import ServiceBusClient, ServiceBusMessage, ServiceBusReceiveMode
from azure.servicebus.aio import ServiceBusClient as AsyncClient

sys.path.insert(0, str(Path(__file__).parents[1] / "plugins"))
from raw_amqp import RawClient, envelope, message

BODY = b"x" * 1024
BATCH = 100  # messages
ROUNDS = 7  # of each pattern, one store after the other: what else the machine does hits all of them
RHEA_CACHE = Path(os.environ.get("FUSEBUS_CACHE", Path(__file__).parents[2] / ".cache" / "fusebus"))
PAGE = os.sysconf("SC_PAGE_SIZE")
QUEUES = ("a", "b", "c", "d", "e", "g", "h")
TOPOLOGY = {"queues": [{"name": name, "max_size_megabytes": 5120, "lock_seconds": 300} for name in QUEUES]}
CHURN_MESSAGES, CHURN_CONNECTIONS = 4000, 4  # of one round
WARM_UP_ROUNDS = 150  # not counted: what closed connections leave waits for the collector, which comes seldom
BLOCKS = 12  # stretches of the rest
T_95 = 2.23  # Student's t for twelve points and two parameters, two-sided
MARK_RATIO, MARK_DURABLE, MARK_RATE = 0.4, 1.3, 60_000
MARK_GROWTH = 6.0  # megabytes an hour, the upper end of the interval: a tenth of what a broker has at its start


STORES: dict[str, Callable[[Path], list[str]]] = {
    "memory": lambda _: [],
    "durable": lambda folder: ["--data", str(folder)],
    "power": lambda folder: ["--data", str(folder), "--data-sync", "power"],
}
SHARES = {"memory": 1.0, "durable": 1.0, "power": 0.2}  # of the messages: waiting for the disk takes its time


class BrokerProcess:
    """A broker of its own, measured from outside."""

    def __init__(self, folder: Path, store: str) -> None:
        topology = folder / "topology.json"
        topology.write_text(json.dumps(TOPOLOGY))
        arguments = ["--port", "0", "--insecure", "--config", str(topology), "--ca-dir", str(folder / "ca")]
        arguments += STORES[store](folder / "data")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fusebus.servicebus", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
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
def broker(store: str = "memory") -> Iterator[BrokerProcess]:
    with tempfile.TemporaryDirectory(prefix="servicebus-bench-") as folder:
        running = BrokerProcess(Path(folder), store)
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
    batched = -(-max(int(20_000 * scale), 5 * single) // BATCH) * BATCH  # the receiving patterns take 4 * single
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
    """Connections, sends, completions over and over; how memory grows once everything is warm."""
    samples: list[tuple[float, float]] = []
    with broker("durable" if durable else "memory") as running:
        first = running.resident_bytes() / 1e6
        for _ in range(WARM_UP_ROUNDS):
            churn_once(running.port)
        started = time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            churn_once(running.port)
            samples.append((elapsed, running.resident_bytes() / 1e6))
    rounds = len(samples)
    per_hour, margin = (each * 3600 for each in trend(samples))
    return {
        "store": "durable" if durable else "memory",
        "seconds": seconds,
        "messages": rounds * CHURN_MESSAGES,
        "connections": rounds * CHURN_CONNECTIONS,
        "first_megabytes": first,
        "warm_megabytes": samples[0][1],
        "last_megabytes": samples[-1][1],
        "slope_megabytes_per_hour": per_hour,
        "confidence_95_megabytes_per_hour": margin,
        "slope_bytes_per_message": per_hour * 1e6 / 3600 / (rounds * CHURN_MESSAGES / seconds),
    }


def trend(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Slope and half of its 95 % interval, units of the second per unit of the first.

    Least squares over the medians of BLOCKS stretches: what follows closely upon one another is not independent.
    """
    size = max(1, len(points) // BLOCKS)
    stretches = [points[start : start + size] for start in range(0, len(points) - size + 1, size)]
    middles = [(median(x for x, _ in each), median(y for _, y in each)) for each in stretches]
    count = len(middles)
    x_mean, y_mean = sum(x for x, _ in middles) / count, sum(y for _, y in middles) / count
    spread = sum((x - x_mean) ** 2 for x, _ in middles)
    if count < 3 or not spread:
        return 0.0, float("inf")
    slope = sum((x - x_mean) * (y - y_mean) for x, y in middles) / spread
    left = sum((y - y_mean - slope * (x - x_mean)) ** 2 for x, y in middles)
    return slope, T_95 * (left / (count - 2) / spread) ** 0.5


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


# --- the run


def speed(scale: float) -> list[Figure]:
    """Each pattern in turn on a broker for each store, ROUNDS times; medians of the rounds."""
    rounds: dict[tuple[str, str], list[Figure]] = {}
    with ExitStack() as stack:
        brokers = {store: stack.enter_context(broker(store)) for store in STORES}
        for _ in range(ROUNDS):
            for patterns in (sdk_patterns, raw_patterns, rhea_patterns):
                turns = [patterns(running, name, SHARES[name] * scale / ROUNDS) for name, running in brokers.items()]
                for figure in (each for turn in zip(*turns, strict=True) for each in turn):
                    rounds.setdefault((figure.pattern, figure.store), []).append(figure)
    figures = [middle(each, rounds[each[0].pattern, "memory"]) for each in rounds.values()]
    print("\n".join(line(figure) for figure in figures), flush=True)
    return figures


def middle(rounds: list[Figure], in_memory: list[Figure]) -> Figure:
    """The medians of what the rounds measured; ratios are taken within a round, which other load hits as a whole."""
    return Figure(
        rounds[0].pattern,
        rounds[0].store,
        messages=sum(each.messages for each in rounds),
        broker_us=median(each.broker_us for each in rounds),
        client_us=median(each.client_us for each in rounds),
        per_second=median(each.per_second for each in rounds),
        sdk=rounds[0].sdk,
        ratio=median(each.broker_us / each.client_us for each in rounds),
        of_memory=median(each.broker_us / base.broker_us for each, base in zip(rounds, in_memory, strict=True)),
    )


def marks(figure: Figure) -> list[bool]:
    """Whether the row reaches each mark that holds for it."""
    reached = [figure.ratio <= MARK_RATIO] if figure.sdk else [figure.per_core >= MARK_RATE]
    return reached if figure.store == "memory" else [*reached, figure.of_memory <= MARK_DURABLE]


def line(figure: Figure) -> str:
    ratio = f"{figure.ratio:6.2f}" if figure.sdk else "     –"
    of_memory = "     –" if figure.store == "memory" else f"{figure.of_memory:6.2f}"
    return (
        f"{figure.pattern:34} {figure.store:8} {figure.broker_us:8.1f} {figure.client_us:9.1f} {ratio} {of_memory}"
        f" {figure.per_second:10.0f} {figure.per_core:10.0f}"
        f"  {', '.join('reached' if each else 'SHORT' for each in marks(figure))}"
    )


HEAD = (
    f"{'pattern (1 KB bodies)':34} {'store':8} {'broker':>8} {'client':>9} {'ratio':>6} {'of mem':>6} {'msg/s':>10}"
    f" {'per core':>10}  marks: ratio or rate, of memory"
)


def verdicts(figures: list[Figure]) -> list[str]:
    """Each mark and whether it is reached, for each store."""
    return [said for store in STORES for said in verdicts_of([each for each in figures if each.store == store])]


def verdicts_of(figures: list[Figure]) -> list[str]:
    store = figures[0].store
    worst = max((figure for figure in figures if figure.sdk), key=lambda figure: figure.ratio)
    dearest = max(figures, key=lambda figure: figure.of_memory)
    said = [(worst.ratio <= MARK_RATIO, f"broker/SDK CPU at most {MARK_RATIO}: {worst.ratio:.2f} ({worst.pattern})")]
    if store != "memory":
        dear = dearest.of_memory
        said.append((dear <= MARK_DURABLE, f"CPU at most {MARK_DURABLE} of memory: {dear:.2f} ({dearest.pattern})"))
    for client in ("rhea", "pipelined"):
        if fast := [each for each in figures if each.pattern.startswith(client)]:
            best = max(fast, key=lambda figure: figure.per_core)
            text = f"{MARK_RATE} pipelined or batched a second and core: {best.per_core:.0f} ({best.pattern})"
            said.append((best.per_core >= MARK_RATE, text))
    return [f"{'reached' if reached else 'MISSED '}  {store:8} {text}" for reached, text in said]


def grown(result: dict[str, Any]) -> str:
    """What a churn says about growth: decided only if its confidence is narrow enough."""
    slope, margin = result["slope_megabytes_per_hour"], result["confidence_95_megabytes_per_hour"]
    reached = "reached" if slope + margin <= MARK_GROWTH else "MISSED "
    return f"{reached}  {result['store']:8} growth at most {MARK_GROWTH} MB an hour: {slope:.1f} ± {margin:.1f}"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="a tenth of the messages: shows that it runs")
    made.add_argument("--only", choices=("speed", "size", "churn"))
    made.add_argument("--churn-seconds", type=float, default=300.0, help="for each store (default: %(default)s)")
    made.add_argument("--output", type=Path, default=Path("benchmarks/servicebus.json"), help="default: %(default)s")
    return made


def main() -> None:
    given = parser().parse_args()
    kept = json.loads(given.output.read_text()) if given.only and given.output.exists() else {}
    result: dict[str, Any] = kept | {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}"
    }
    if given.only in (None, "speed"):
        print(f"{HEAD}\n{' ' * 43}µs of CPU per message")
        figures = speed(0.1 if given.quick else 1.0)
        result["speed"] = [asdict(figure) | {"per_core": figure.per_core} for figure in figures]
        result["verdicts"] = verdicts(figures)
        print("\n".join(result["verdicts"]))
    if given.only in (None, "size"):
        result["size"] = size(100_000, 500) if given.quick else size(1_000_000, 5_000)
        print(json.dumps(result["size"]))
    if given.only in (None, "churn"):
        result["churn"] = [churn(given.churn_seconds / (10 if given.quick else 1), store) for store in (False, True)]
        print("\n".join(f"{json.dumps(each)}\n{grown(each)}" for each in result["churn"]))
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
