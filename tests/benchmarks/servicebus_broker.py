"""A broker in a process of its own, measured from outside, for the benchmarks of the broker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from raw_amqp import RawClient

BODY = b"x" * 1024
BATCH = 100  # messages
PAGE = os.sysconf("SC_PAGE_SIZE")
QUEUES = ("a", "b", "c", "d", "e", "g", "h")
TOPOLOGY = {"queues": [{"name": name, "max_size_megabytes": 5120, "lock_seconds": 300} for name in QUEUES]}

STORES: dict[str, Callable[[Path], list[str]]] = {
    "memory": lambda _: [],
    "durable": lambda folder: ["--data", str(folder)],
    "power": lambda folder: ["--data", str(folder), "--data-sync", "power"],
}


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


def taken(receiver: RawClient, count: int, complete: bool = False, window: int = 2000) -> None:
    for start in range(0, count, window):
        receiver.grant(min(window, count - start), start)
        receiver.receive_all(min(window, count - start), complete=complete)
