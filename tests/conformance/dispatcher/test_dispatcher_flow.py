"""The dispatcher against what is real: local Batch, broker, tables, leases, and workers as processes."""

import asyncio
import itertools
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from dispatcher_world import World

from fusebus.blobs import BlobSettings
from fusebus.bus import Bus, BusSettings
from fusebus.contracts.messages import FleetChanged, ImageAccepted, WorkLate
from fusebus.contracts.outcomes import Done, Outgoing, done
from fusebus.contracts.topology import broker_configuration
from fusebus.dispatcher.adapters import BlobLeader, Fleets
from fusebus.dispatcher.errors import PoolChanged
from fusebus.dispatcher.loop import Dispatcher
from fusebus.dispatcher.settings import DispatcherSettings
from fusebus.dispatcher.steps import Resize
from fusebus.host import Secret
from fusebus.ledger import Ledger, LedgerSettings
from fusebus.localbatch import LocalBatch

Settings = Callable[..., DispatcherSettings]
Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
TOPOLOGY = broker_configuration(lock_seconds=10)
HASTE = {
    "deadline_seconds": 8,
    "boot_seconds": 0.5,
    "margin_seconds": 0.5,
    "least_use_seconds": 0.5,
    "settle_seconds": 0.1,
    "fallback_seconds": 0.5,
    "assumed_seconds_per_image": 1.0,
    "ledger_seconds": 0.5,
}


def now() -> datetime:
    return datetime.now(UTC)


async def true(value: bool) -> bool:
    return value


async def test_images_bring_nodes_and_workers_and_afterwards_nothing_is_left(
    batch: LocalBatch,
    worker_script: Path,
    broker: Any,
    ledger_settings: LedgerSettings,
    blob_settings: BlobSettings,
    settings_for: Settings,
    until: Until,
    image: Callable[[int], ImageAccepted],
    tmp_path: Path,
) -> None:
    connection = broker.connection_string
    chosen = settings_for(
        worker_command=f"{sys.executable} {worker_script}",
        worker_environment={"CONNECTION": connection},
        max_nodes=2,
        leader_blob=tmp_path.name,
        **HASTE,
    )
    told: list[FleetChanged] = []

    async def listen(message: FleetChanged | WorkLate, context: object) -> Done:
        if isinstance(message, FleetChanged):  # on a slow machine work may turn late
            told.append(message)
        return done()

    stop = asyncio.Event()
    bus_settings = BusSettings(connection=Secret(connection), ca_file=str(broker.ca_path))
    async with AsyncExitStack() as open_:
        bus = await open_.enter_async_context(Bus(bus_settings))
        ledger = await open_.enter_async_context(Ledger(ledger_settings))
        fleet = await open_.enter_async_context(Fleets(chosen))
        leader = await open_.enter_async_context(BlobLeader(chosen, blob_settings))
        await ledger.create_tables()
        dispatcher = Dispatcher(chosen, bus, bus.publisher(), ledger, fleet, leader)
        await dispatcher.begin()
        targets = await dispatcher.look()
        assert (targets["gpu"].nodes, targets["gpu"].workers) == (0, 0)
        await bus.publisher().publish([Outgoing(message=image(number)) for number in range(12)])
        loops = [
            asyncio.create_task(dispatcher.run(stop)),
            asyncio.create_task(bus.consume("fleet", "notifier", listen, stop=stop)),
        ]

        async def all_over() -> bool:
            depth = await bus.depth("images", "detect")
            seen = await fleet.read("gpu")
            made = batch.state.pool("gpu").nodes_made
            last = (await ledger.decisions("gpu", 1))[:1]
            quiet = bool(last) and (last[0].nodes, last[0].workers) == (0, 0)
            return depth is not None and depth.active == 0 and seen.billed == seen.live == 0 and made > 0 and quiet

        await until(all_over)
        await until(lambda: true(bool(told) and told[-1].nodes == 0))
        stop.set()
        await asyncio.gather(*loops)
        decisions = list(reversed(await ledger.decisions("gpu")))
        cost = await ledger.cost_of_month(f"{now():%Y-%m}")
        (status,) = await ledger.pool_statuses()
    assert 1 <= batch.state.pool("gpu").nodes_made <= 2
    assert "12 detect images at 1 s each" in decisions[0].because
    assert [(found.nodes, found.because) for found in told] == [(found.nodes, found.because) for found in decisions]
    # On a slow machine an image may be late: that is told although nothing else changes.
    said = [(found.nodes, found.workers, " late" in found.because) for found in decisions]
    assert all(one != two for one, two in itertools.pairwise(said)), "an unchanged decision was repeated"
    billed = batch.state.billed_node_seconds("gpu")[False]
    assert cost.node_seconds == pytest.approx(billed, rel=0.5, abs=1.0)
    assert (status.term, status.mode, status.problem) == (1, "acting", "")


async def test_two_dispatchers_never_fight_and_the_second_goes_on_where_the_first_ended(
    batch: LocalBatch,
    broker: Any,
    ledger_settings: LedgerSettings,
    blob_settings: BlobSettings,
    settings_for: Settings,
    until: Until,
    image: Callable[[int], ImageAccepted],
    tmp_path: Path,
) -> None:
    chosen = settings_for(leader_blob=tmp_path.name, **{**HASTE, "deadline_seconds": 600})
    bus_settings = BusSettings(connection=Secret(broker.connection_string), ca_file=str(broker.ca_path))
    async with AsyncExitStack() as open_:
        bus = await open_.enter_async_context(Bus(bus_settings))
        ledger = await open_.enter_async_context(Ledger(ledger_settings))
        await ledger.create_tables()
        await bus.publisher().publish([Outgoing(message=image(number)) for number in range(3)])
        crews = []
        for _ in range(2):
            fleet = await open_.enter_async_context(Fleets(chosen))
            leader = await open_.enter_async_context(BlobLeader(chosen, blob_settings))
            crews.append((Dispatcher(chosen, bus, bus.publisher(), ledger, fleet, leader), fleet, leader))
        (first, fleet, leads), (second, _, waits) = crews
        await first.begin()

        async def busy() -> bool:
            await asyncio.gather(first.look(), second.look())
            return len(batch.state.runs) == 1

        await until(busy)
        assert (leads.term(), waits.term()) == (1, None)
        held_up = await fleet.read("gpu")  # what the first one saw last, and would still act on
        await leads.__aexit__(None, None, None)
        await waits.tend()
        assert waits.term() == 2
        await asyncio.gather(first.look(), second.look())
        with pytest.raises(PoolChanged):
            await fleet.carry_out(held_up, Resize(0, 3), "the first one, late")
        await asyncio.gather(first.look(), second.look())
        assert (await fleet.read("gpu")).term == 2
        decisions = await ledger.decisions("gpu")
    assert len(batch.state.job("workers").tasks) == 1
    assert batch.state.pool("gpu").nodes_made == 1
    assert [(found.nodes, found.workers) for found in decisions] == [(1, 1)]


async def test_a_killed_dispatcher_takes_up_where_it_was(
    batch: LocalBatch,
    broker: Any,
    ledger_settings: LedgerSettings,
    until: Until,
    image: Callable[[int], ImageAccepted],
    tmp_path: Path,
) -> None:
    """As a process of its own: killed and started again it asks for nothing twice and says nothing twice."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("FUSEBUS_")},
        "FUSEBUS_BUS_CONNECTION": broker.connection_string,
        "FUSEBUS_BUS_CA_FILE": str(broker.ca_path),
        "FUSEBUS_LEDGER_CONNECTION": ledger_settings.connection.reveal(),
        "FUSEBUS_LEDGER_TABLE_PREFIX": ledger_settings.table_prefix,
        "FUSEBUS_BLOBS_CONNECTION": ledger_settings.connection.reveal(),
        "FUSEBUS_DISPATCHER_BATCH_URL": batch.url,
        "FUSEBUS_DISPATCHER_WORKER_COMMAND": f"{sys.executable} -c 'import time; time.sleep(60)'",
        "FUSEBUS_DISPATCHER_INTERVAL_SECONDS": "0.1",
        "FUSEBUS_DISPATCHER_INSTANCE": "replica-1",
        "FUSEBUS_DISPATCHER_LEADER_BLOB": tmp_path.name,
        **{f"FUSEBUS_DISPATCHER_{name.upper()}": str(value) for name, value in HASTE.items()},
        "FUSEBUS_DISPATCHER_DEADLINE_SECONDS": "600",
    }
    log = tmp_path / "dispatcher.log"

    started: list[asyncio.subprocess.Process] = []

    async def start() -> asyncio.subprocess.Process:
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "fusebus.dispatcher", env=environment, stderr=output
            )
        started.append(process)
        return process

    async def end() -> None:
        for process in started:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def tasks() -> int:
        job = batch.state.jobs.get("workers")
        return 0 if job is None else len(job.tasks)

    bus_settings = BusSettings(connection=Secret(broker.connection_string), ca_file=str(broker.ca_path))
    async with AsyncExitStack() as open_:
        bus = await open_.enter_async_context(Bus(bus_settings))
        ledger = await open_.enter_async_context(Ledger(ledger_settings))
        open_.push_async_callback(end)
        await ledger.create_tables()
        await bus.publisher().publish([Outgoing(message=image(number)) for number in range(3)])
        first = await start()
        await until(lambda: true(tasks() == 1 and len(batch.state.runs) == 1))
        first.kill()
        assert await first.wait() == -9
        second = await start()
        await until(lambda: true("leading in term 2" in log.read_text()))
        await asyncio.sleep(2.0)  # a few looks: that nothing happens can only be seen by waiting
        second.terminate()
        assert await second.wait() == 0
        assert (tasks(), batch.state.pool("gpu").nodes_made) == (1, 1)
        decisions = await ledger.decisions("gpu")
        cost = await ledger.cost_of_month(f"{now():%Y-%m}")
    assert cost.node_seconds > 0, "the second one never looked"
    assert [(found.nodes, found.workers) for found in decisions] == [(1, 1)]


async def test_late_work_reaches_the_notifiers_subscription_once_and_a_repeat_is_swallowed(
    broker: Any, settings_for: Settings, until: Until, image: Callable[[int], ImageAccepted]
) -> None:
    chosen, world, told = settings_for(max_nodes=0), World(), list[WorkLate]()

    async def listen(message: WorkLate | FleetChanged, context: object) -> Done:
        if isinstance(message, WorkLate):
            told.append(message)
        return done()

    stop = asyncio.Event()
    bus_settings = BusSettings(connection=Secret(broker.connection_string), ca_file=str(broker.ca_path))
    async with Bus(bus_settings) as bus:
        await bus.publisher().publish([Outgoing(message=image(number)) for number in range(5)])
        listening = asyncio.create_task(bus.consume("fleet", "notifier", listen, stop=stop))
        dispatcher = Dispatcher(chosen, bus, bus.publisher(), world, world, world)

        async def heard() -> bool:
            await dispatcher.look()
            return bool(told)

        await until(heard)
        await bus.publisher().publish([Outgoing(message=told[0])])  # as who died before writing down that it was told
        for _ in range(3):
            await dispatcher.look()
        await asyncio.sleep(0.5)  # that nothing more comes can only be seen by waiting
        stop.set()
        await listening
    (late,) = told
    assert (late.job_kind, late.images) == ("detect", 5)
