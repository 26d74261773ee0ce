"""A durable broker in a process of its own: ended and started again on the same directory."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from azure.servicebus import ServiceBusClient

WAIT_SECONDS = 60.0


class DurableBroker:
    """A broker process on a data directory."""

    def __init__(self, folder: Path, topology: dict[str, Any]) -> None:
        self.folder = folder
        self.data = folder / "data"
        (folder / "topology.json").write_text(json.dumps(topology))
        self.start()

    def start(self) -> None:
        folder = self.folder
        arguments = ["--port", "0", "--insecure", "--config", str(folder / "topology.json"), "--data", str(self.data)]
        with (folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fusebus.servicebus", *arguments, "--ca-dir", str(folder / "ca")],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        self.connection_string = self.process.stdout.readline().strip()
        assert self.connection_string, self.log()
        self.ca_path = self.process.stdout.readline().strip()

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def end(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(WAIT_SECONDS)

    def limit_files(self, size: int) -> None:
        """No file of the process may grow beyond `size` bytes: to it, that is a full disk."""
        _, hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size, hard))

    def client(self) -> ServiceBusClient:
        return ServiceBusClient.from_connection_string(self.connection_string, retry_total=0)
