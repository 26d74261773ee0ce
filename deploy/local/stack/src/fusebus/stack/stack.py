"""Starts the embedded stack in the order of its needs, keeps it up, and stops it in reverse."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fusebus.blobs import Blobs, BlobSettings
from fusebus.blobs.layout import RESULTS
from fusebus.contracts.messages import JobKind
from fusebus.contracts.topology import broker_configuration
from fusebus.host import Secret
from fusebus.ledger import Ledger, LedgerSettings
from fusebus.stack.azurite import Azurite, AzuriteOptions
from fusebus.stack.processes import POLL_SECONDS, ProcessFailed, Supervised

SERVICES = ("ingest", "dispatcher", "notifier")
"""Those that always run; inferencers come and go as Batch tasks."""
READY_LIMIT_SECONDS = 60.0
POOL = "local-gpu"
EVICTION_VARIABLE = "FUSEBUS_INFERENCER_SCHEDULED_EVENTS"  # by which a worker learns where its node is told of its end
SWEEP_SECONDS = 1.0
RECHECK_SECONDS = 2.0
MODEL_WATCH_SECONDS = 2.0
DEADLINE_SECONDS = 20.0
"""Short, so that a delivery of a few dozen photos is worth a second node."""

SECONDS_PER_IMAGE = 1.0
INSTANCE = "local"
"""There is only one dispatcher here: killed and started again it leads at once."""
HASTE = {
    "margin_seconds": 1.0,
    "least_use_seconds": 1.0,
    "settle_seconds": 0.5,
    "fallback_seconds": 2.0,
    "retry_resize_seconds": 10.0,
    "storm_seconds": 30.0,
    "ledger_seconds": 1.0,
    "quota_seconds": 10.0,
    "breaker_seconds": 10.0,
}
"""What takes minutes in Azure takes seconds here."""

Tables = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class StackOptions:
    """How fast things happen here; in Azure the same settings have minutes instead of seconds."""

    folder: Path = Path(".fusebus")
    """Settings file, logs, task output, own certificate authority."""
    lock_seconds: float = 10.0
    """Peek-lock of every subscription: what a killed process holds comes back after it."""
    run_quiet_seconds: float = 10.0
    boot_seconds: float = 2.0
    idle_exit_seconds: float = 4.0
    dispatcher_interval_seconds: float = 1.0
    max_nodes: int = 2
    converters: int = 0
    """Conversion workers; from one on, uploads are converted instead of analysed."""
    mail_folder: Path | None = None
    """Where mails are written; None: `mail` in the stack's folder."""
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Further settings by section, over ours."""
    progress: Callable[[str], None] = lambda _: None
    """Is told each step that takes a moment."""


class Stack:
    """The running stack, as an async context manager. Raises ProcessFailed or AzuriteError where a part can't start."""

    def __init__(self, options: StackOptions) -> None:
        self.options = options
        self.folder = options.folder.resolve()
        self.children: dict[str, Supervised] = {}
        self.batch_url = ""
        self._exits = AsyncExitStack()

    @property
    def settings_file(self) -> Path:
        """What FUSEBUS_SETTINGS must name for everything that talks to this stack."""
        return self.folder / "settings.toml"

    @property
    def mail_folder(self) -> Path:
        """Where the notifier puts its mails."""
        return (self.options.mail_folder or self.folder / "mail").resolve()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._exits.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exits.aclose()

    def metrics(self) -> dict[str, str]:
        """Where each service's metrics can be scraped."""
        ports = {name: child.environment.get("FUSEBUS_HEALTH_PORT") for name, child in self.children.items()}
        return {name: f"http://127.0.0.1:{port}/metrics" for name, port in ports.items() if port}

    def failures(self) -> list[str]:
        """One text for each part that is no longer kept up."""
        return [str(child.failure) for child in self.children.values() if child.failure is not None]

    async def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._exits.callback(lambda: self.settings_file.unlink(missing_ok=True))
        self.options.progress("starting storage (Azurite)")
        azurite = await self._exits.enter_async_context(Azurite(AzuriteOptions(progress=self.options.progress)))
        await _provision(azurite.connection_string)
        self.options.progress("starting the broker and Batch")
        broker, authority = await self._start_broker()
        self.batch_url = await self._start_batch()
        _write_private(self.settings_file, _toml(self._tables(azurite, broker, authority)))
        self.options.progress("starting ingest, dispatcher and notifier")
        await self._start_services()

    async def _start_broker(self) -> tuple[str, str]:
        """Its connection string and the path of its certificate authority."""
        topology = self.folder / "topology.json"
        topology.write_text(json.dumps(broker_configuration(self.options.lock_seconds), indent=1))
        own = self.folder / "ca"
        # Its output is kept as a log: the key is read from where the broker keeps it.
        arguments = ["--port", "0", "--config", str(topology), "--ca-dir", str(own), "--hide-key"]
        broker = self._child("broker", "fusebus.servicebus", arguments, restart=False)
        connection = (await broker.line(READY_LIMIT_SECONDS, "Endpoint=sb://")).strip()
        key = (own / "sas.key").read_text(encoding="ascii").strip()
        return connection[connection.index("Endpoint=") :].replace("***", key), str(own / "ca.pem")

    async def _start_batch(self) -> str:
        arguments = ["--port", "0", "--boot-seconds", str(self.options.boot_seconds)]
        arguments += ["--work-dir", str(self.folder / "batch")]
        arguments += ["--metadata-variable", EVICTION_VARIABLE]
        batch = self._child("batch", "fusebus.localbatch", arguments, restart=False)
        line = await batch.line(READY_LIMIT_SECONDS, "http://")
        return line[line.index("http://") :].split()[0]

    async def _start_services(self) -> None:
        converters = [f"convert-{number}" for number in range(1, self.options.converters + 1)]
        ports = {name: free_port() for name in (*SERVICES, *converters)}
        for name, port in ports.items():
            module = f"fusebus.{name.partition('-')[0]}"
            self._child(name, module, [], environment={"FUSEBUS_HEALTH_PORT": str(port)})
        async with asyncio.TaskGroup() as group:
            for name, port in ports.items():
                group.create_task(self._until_ready(name, port))

    def _child(
        self,
        name: str,
        module: str,
        arguments: list[str],
        environment: Mapping[str, str] | None = None,
        restart: bool = True,
    ) -> Supervised:
        log = self.folder / "logs" / f"{name}.log"
        log.unlink(missing_ok=True)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("FUSEBUS_")}
        child = Supervised(
            name,
            [sys.executable, "-m", module, *arguments],
            {**inherited, "FUSEBUS_SETTINGS": str(self.settings_file), **(environment or {})},
            log,
            restart=restart,
        )
        self.children[name] = child
        child.start()
        self._exits.push_async_callback(child.stop)
        return child

    async def _until_ready(self, name: str, port: int) -> None:
        deadline = time.monotonic() + READY_LIMIT_SECONDS
        while not await asyncio.to_thread(answers, f"http://127.0.0.1:{port}/readyz"):
            child = self.children[name]
            if child.failure is not None or time.monotonic() > deadline:
                raise ProcessFailed(f"{name} does not become ready: {child.output()[-2000:]}")
            await asyncio.sleep(POLL_SECONDS)

    def _tables(self, azurite: Azurite, broker: str, authority: str) -> Tables:
        options = self.options
        tables: Tables = {
            "bus": {"connection": broker, "ca_file": authority},
            "blobs": {"connection": azurite.connection_string},
            "ledger": {"connection": azurite.connection_string},
            "console": {"pool": POOL},
            "ingest": {"run_quiet_seconds": options.run_quiet_seconds, "sweep_interval_seconds": SWEEP_SECONDS},
            "notifier": {
                "run_quiet_seconds": options.run_quiet_seconds,
                "recheck_seconds": RECHECK_SECONDS,
                "dead_letter_interval_seconds": RECHECK_SECONDS,
                "mailer": "folder",
                "mail_folder": str(self.mail_folder),
            },
            "dispatcher": {
                "batch_url": self.batch_url,
                "pool": POOL,
                "interval_seconds": options.dispatcher_interval_seconds,
                "max_nodes": options.max_nodes,
                "boot_seconds": options.boot_seconds,
                "deadline_seconds": DEADLINE_SECONDS,
                "assumed_seconds_per_image": SECONDS_PER_IMAGE,
                "instance": INSTANCE,
                **HASTE,
                "worker_command": f"{sys.executable} -m fusebus.inferencer",
                "worker_environment": {"FUSEBUS_SETTINGS": str(self.settings_file)},
            },
            "inferencer": {"idle_exit_seconds": options.idle_exit_seconds, "follow_registry": True},
            "models": {"cache": str(self.folder / "models"), "watch_seconds": MODEL_WATCH_SECONDS},
        }
        if options.converters:
            tables["ingest"]["job_kind"] = JobKind.CONVERT.value
        for section, values in options.overrides.items():
            tables.setdefault(section, {}).update(values)
        return tables


async def _provision(connection: str) -> None:
    """What deployment does once for a new storage account: the results container and the ledger's tables."""
    async with Blobs(BlobSettings(connection=Secret(connection))) as blobs:
        await blobs.create_container(RESULTS)
    async with Ledger(LedgerSettings(connection=Secret(connection))) as ledger:
        await ledger.create_tables()


def free_port() -> int:
    """A TCP port on loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    """Whether `url` answers 200 within a second."""
    with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 - ours
        return bool(answer.status == 200)
    return False


def _write_private(path: Path, text: str) -> None:
    """The file holds keys: readable by its owner alone, from its first byte."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def _toml(tables: Tables) -> str:
    """JSON's strings, numbers, booleans and lists are TOML's as well; a mapping becomes an inline table."""

    def value(of: Any) -> str:
        if isinstance(of, dict):
            return "{" + ", ".join(f"{json.dumps(key)} = {value(inner)}" for key, inner in of.items()) + "}"
        if isinstance(of, list | tuple):
            return "[" + ", ".join(value(inner) for inner in of) + "]"
        return json.dumps(of, ensure_ascii=False)

    return "\n".join(
        f"[{section}]\n" + "".join(f"{key} = {value(of)}\n" for key, of in table.items())
        for section, table in tables.items()
    )
