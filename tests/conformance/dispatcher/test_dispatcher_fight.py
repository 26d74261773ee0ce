"""Two dispatchers as processes: the one that leads is killed, or stopped for longer than its lease, again and again."""

import asyncio
import importlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fusebus.bus import Bus, BusSettings
from fusebus.contracts.messages import ImageAccepted
from fusebus.contracts.outcomes import Outgoing
from fusebus.contracts.topology import broker_configuration
from fusebus.host import Secret
from fusebus.ledger import Ledger, LedgerSettings
from fusebus.localbatch import LocalBatch

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
TOPOLOGY = broker_configuration(lock_seconds=10)
LEASE_SECONDS = 15
TAKEN_OVER_SECONDS = 2 * LEASE_SECONDS  # and what a crowded machine adds
READINGS = ("GET", "HEAD")


@dataclass
class Writes:
    """What Batch accepted of whom: each dispatcher puts its name into its user agent."""

    accepted: list[tuple[float, str, str]] = field(default_factory=list)
    refused: list[tuple[float, str, str, int]] = field(default_factory=list)

    def of(self, name: str, since: float) -> list[str]:
        return [what for at, author, what in self.accepted if author == name and at >= since]


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Writes:
    module = importlib.import_module("fusebus.localbatch.routes.application")
    found, answer = Writes(), module._answer

    async def recorded(front: Any, request: web.Request, handler: Any) -> web.StreamResponse:
        response = await answer(front, request, handler)
        author = request.headers.get("User-Agent", "").partition("dispatcher=")[2].partition(" ")[0]
        if author and request.method not in READINGS:
            what = f"{request.method} {request.path}"
            if response.status < 400:
                found.accepted.append((time.monotonic(), author, what))
            else:
                found.refused.append((time.monotonic(), author, what, response.status))
        return response

    monkeypatch.setattr(module, "_answer", recorded)
    return found


@dataclass
class Copies:
    """Copies of the dispatcher as processes, each with a log of its own."""

    environment: dict[str, str]
    folder: Path
    running: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    async def start(self, name: str) -> None:
        environment = {
            **self.environment,
            "AZURE_HTTP_USER_AGENT": f"dispatcher={name}",
            "FUSEBUS_DISPATCHER_INSTANCE": name,
        }
        with (self.folder / f"{name}.log").open("ab") as output:
            self.running[name] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "fusebus.dispatcher", env=environment, stderr=output
            )

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def leader(self, term: int) -> str | None:
        return next((name for name in self.running if f"leading in term {term}" in self.log(name)), None)

    async def end(self) -> None:
        for process in self.running.values():
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                await process.wait()


@pytest.fixture
def environment(batch: LocalBatch, broker: Any, ledger_settings: LedgerSettings, tmp_path: Path) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("FUSEBUS_")},
        "FUSEBUS_BUS_CONNECTION": broker.connection_string,
        "FUSEBUS_BUS_CA_FILE": str(broker.ca_path),
        "FUSEBUS_LEDGER_CONNECTION": ledger_settings.connection.reveal(),
        "FUSEBUS_LEDGER_TABLE_PREFIX": ledger_settings.table_prefix,
        "FUSEBUS_BLOBS_CONNECTION": ledger_settings.connection.reveal(),
        "FUSEBUS_DISPATCHER_BATCH_URL": batch.url,
        "FUSEBUS_DISPATCHER_WORKER_COMMAND": f"{sys.executable} -c 'import time; time.sleep(600)'",
        "FUSEBUS_DISPATCHER_INTERVAL_SECONDS": "0.1",
        "FUSEBUS_DISPATCHER_LEASE_SECONDS": str(LEASE_SECONDS),
        "FUSEBUS_DISPATCHER_LEADER_BLOB": f"fight-{tmp_path.name}",
        "FUSEBUS_DISPATCHER_MAX_NODES": "3",
        "FUSEBUS_DISPATCHER_BOOT_SECONDS": "0.5",
        "FUSEBUS_DISPATCHER_DEADLINE_SECONDS": "30",
        "FUSEBUS_DISPATCHER_SETTLE_SECONDS": "0.1",
    }


async def test_whoever_is_stopped_or_killed_the_one_that_leads_acts_alone(
    batch: LocalBatch,
    broker: Any,
    ledger_settings: LedgerSettings,
    environment: dict[str, str],
    writes: Writes,
    until: Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]],
    image: Callable[[int], ImageAccepted],
    tmp_path: Path,
) -> None:
    copies = Copies(environment, tmp_path)
    bus_settings = BusSettings(connection=Secret(broker.connection_string), ca_file=str(broker.ca_path))
    async with AsyncExitStack() as open_:
        bus = await open_.enter_async_context(Bus(bus_settings))
        ledger = await open_.enter_async_context(Ledger(ledger_settings))
        await ledger.create_tables()
        open_.push_async_callback(copies.end)
        await bus.publisher().publish([Outgoing(message=image(number)) for number in range(100)])
        await copies.start("one")
        await copies.start("two")
        for term, how in enumerate((signal.SIGSTOP, signal.SIGKILL, signal.SIGSTOP, signal.SIGSTOP), start=1):

            async def leads(term: int = term) -> bool:
                pool = batch.state.pools.get("gpu")
                carries = pool is not None and {"name": "fusebus-term", "value": str(term)} in (
                    pool.properties.get("metadata") or []
                )
                return carries and copies.leader(term) is not None

            await until(leads)
            leader = copies.leader(term)
            assert leader is not None
            copies.running[leader].send_signal(how)
            began = time.monotonic()
            # Something to do for whoever leads: all nodes are lost.
            for node in list(batch.state.pool("gpu").nodes):
                batch.state.preempt("gpu", node)

            async def taken_over(term: int = term) -> bool:
                return await leads(term + 1)

            await until(taken_over)
            taken = time.monotonic()
            assert taken - began < TAKEN_OVER_SECONDS
            if how is signal.SIGKILL:
                await copies.running[leader].wait()
                await copies.start(leader)
            else:
                copies.running[leader].send_signal(signal.SIGCONT)
            await asyncio.sleep(3.0)  # many looks: that nothing happens can only be seen by waiting
            assert writes.of(leader, since=taken) == [], "a leader of before went on"
        decisions = await ledger.decisions("gpu", 100)
        cost = await ledger.cost_of_month(f"{datetime.now(UTC):%Y-%m}")
    assert {author for _, author, _ in writes.accepted} == {"one", "two"}
    names = list(batch.state.job("workers").tasks)
    assert len(names) == len(set(names))
    assert decisions[0].nodes <= 3
    billed = sum(batch.state.billed_node_seconds("gpu").values())
    assert cost.node_seconds < 1.3 * billed + 10, "nothing is counted by two"
