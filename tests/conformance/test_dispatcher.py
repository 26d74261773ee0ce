"""The dispatcher against what is real: local Batch through both SDKs, broker, tables, and workers as processes."""

import asyncio
import hashlib
import itertools
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fusebus.bus import Bus, BusSettings
from fusebus.contracts.messages import BlobReference, FleetChanged, ImageAccepted, JobKind, Lane
from fusebus.contracts.outcomes import Done, Outgoing, done
from fusebus.contracts.topology import broker_configuration
from fusebus.dispatcher.adapters import BatchFleet, FleetError
from fusebus.dispatcher.loop import Dispatcher
from fusebus.dispatcher.policy import AddWorkers, Fleet, RemoveNodes, Resize, StopWaiting
from fusebus.dispatcher.settings import DispatcherSettings
from fusebus.host import Secret, SettingsError, load_settings
from fusebus.ledger import Ledger, LedgerSettings
from fusebus.localbatch import AccountLimits, LocalBatch, LocalBatchOptions

LIMITS = AccountLimits(
    boot_seconds=0.2, leave_seconds=0.05, terminate_grace_seconds=2, preempted_seconds=0.1, capacity=3
)
DEADLINE_SECONDS = 90.0
TOPOLOGY = broker_configuration(lock_seconds=10)

# Takes messages off images/detect until none came for a second.
WORKER = """
import asyncio, os
from fusebus.bus import Bus, BusSettings
from fusebus.contracts.outcomes import done
from fusebus.host import Secret

async def handle(message, context):
    await asyncio.sleep(0.05)
    return done()

async def main():
    async with Bus(BusSettings(connection=Secret(os.environ["CONNECTION"]))) as bus:
        await bus.consume("images", "detect", handle, stop=asyncio.Event(), slots=4, idle_exit=1.0)

asyncio.run(main())
"""


def now() -> datetime:
    return datetime.now(UTC)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not await holds():
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.05)


def settings_for(batch: LocalBatch, **more: object) -> DispatcherSettings:
    chosen = {
        "batch_url": batch.url,
        "pool": "gpu",
        "worker_command": f"{sys.executable} -c 'import time; time.sleep(60)'",
    }
    return DispatcherSettings(
        bus=BusSettings(),
        ledger=LedgerSettings(),
        **{**chosen, "interval_seconds": 0.2, **more},  # type: ignore[arg-type]
    )


@pytest.fixture
async def batch(tmp_path: Path) -> AsyncIterator[LocalBatch]:
    async with LocalBatch(LocalBatchOptions(work_dir=tmp_path / "batch", limits=LIMITS)) as batch:
        yield batch


@pytest.fixture
async def fleet(batch: LocalBatch) -> AsyncIterator[BatchFleet]:
    async with BatchFleet(settings_for(batch)) as fleet:
        await fleet.ensure()
        yield fleet


async def fleet_with(fleet: BatchFleet, holds: Callable[[Fleet], bool]) -> Fleet:
    async def check() -> bool:
        return holds(await fleet.read(now()))

    await until(check)
    return await fleet.read(now())


async def test_ensure_may_be_repeated(fleet: BatchFleet) -> None:
    await fleet.ensure()
    assert await fleet.read(now()) == Fleet(steady=True, target=0)


async def test_a_fleet_grows_works_and_shrinks_to_nothing(fleet: BatchFleet) -> None:
    await fleet.carry_out(AddWorkers(1))
    await fleet.carry_out(Resize(2))
    assert (await fleet.read(now())).coming == 2
    seen = await fleet_with(fleet, lambda found: found.busy == 1 and len(found.idle) == 1)
    assert (seen.present, seen.running, seen.billed) == (2, 1, 2)
    await fleet.carry_out(RemoveNodes(seen.idle))
    seen = await fleet_with(fleet, lambda found: found.steady)
    assert (seen.present, seen.busy, seen.target) == (1, 1, 1)


async def test_workers_that_wait_are_called_off(fleet: BatchFleet) -> None:
    await fleet.carry_out(AddWorkers(2))
    waiting = (await fleet.read(now())).waiting
    await fleet.carry_out(StopWaiting((*waiting, waiting[0])))
    seen = await fleet.read(now())
    assert (seen.live, seen.failures) == (0, 0)


async def test_failed_workers_are_counted(batch: LocalBatch) -> None:
    async with BatchFleet(settings_for(batch, worker_command="/no/such/worker")) as fleet:
        await fleet.ensure()
        await fleet.carry_out(AddWorkers(2))
        await fleet.carry_out(Resize(1))
        assert (await fleet_with(fleet, lambda found: found.failures == 2)).live == 0
        assert (await fleet.read(now() + timedelta(hours=1))).failures == 0


async def test_old_tasks_are_cleaned_up(batch: LocalBatch) -> None:
    async with BatchFleet(settings_for(batch, worker_command="true", task_retention_seconds=60)) as fleet:
        await fleet.ensure()
        await fleet.carry_out(AddWorkers(1))
        await fleet.carry_out(Resize(1))
        await fleet_with(fleet, lambda found: found.live == 0 and len(found.idle) == 1)
        assert len(batch.state.job("workers").tasks) == 1
        await fleet.read(now() + timedelta(minutes=5))
        assert batch.state.job("workers").tasks == {}


async def test_the_quota_is_read_and_a_resize_above_it_is_seen(fleet: BatchFleet) -> None:
    assert await fleet.quota_nodes() == 3
    await fleet.carry_out(Resize(5))
    seen = await fleet_with(fleet, lambda found: found.steady)
    assert (seen.present, seen.target) == (3, 5)
    assert seen.resize_failed_at is not None
    assert "AccountLowPriorityCoreQuotaReached" in seen.resize_problem


async def test_a_resize_that_batch_refuses_is_a_fleet_error(fleet: BatchFleet) -> None:
    await fleet.carry_out(Resize(1))
    with pytest.raises(FleetError):
        await fleet.carry_out(Resize(2))


async def test_a_resize_after_somebody_elses_change_is_refused(batch: LocalBatch, fleet: BatchFleet) -> None:
    await fleet.read(now())
    batch.state.update_pool("gpu", {"displayName": "changed"})
    with pytest.raises(FleetError):
        await fleet.carry_out(Resize(1))


async def test_a_worker_gets_its_variables_and_nothing_else(batch: LocalBatch, tmp_path: Path) -> None:
    line = f"{sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    chosen = settings_for(batch, worker_command=line, worker_environment={"FUSEBUS_SETTINGS": "x"})
    async with BatchFleet(chosen) as fleet:
        await fleet.ensure()
        await fleet.carry_out(AddWorkers(1))
        await fleet.carry_out(Resize(1))
        await fleet_with(fleet, lambda found: found.live == 0)
    (output,) = (tmp_path / "batch" / "tasks" / "workers").glob("*/stdout.txt")
    seen = json.loads(output.read_text())
    assert {name for name in seen if name.startswith("FUSEBUS")} == {"FUSEBUS_SETTINGS"}
    assert seen["AZ_BATCH_TASK_ID"].startswith("worker-")


async def test_without_an_answer_it_is_a_fleet_error(batch: LocalBatch) -> None:
    chosen = msgspec.structs.replace(settings_for(batch), batch_url="http://127.0.0.1:9", request_seconds=0.5)
    async with BatchFleet(chosen) as fleet:
        with pytest.raises(FleetError):
            await fleet.read(now())
        assert await fleet.quota_nodes() is None, "unknown is not zero"


def test_settings_without_any_batch_say_what_is_missing() -> None:
    with pytest.raises(SettingsError, match="FUSEBUS_DISPATCHER_BATCH_ENDPOINT"):
        load_settings(DispatcherSettings, "dispatcher", {})


def image(number: int) -> ImageAccepted:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    blob = BlobReference(container="in-acme", name=f"{number}.jpg", etag="1", sha256=digest, size=10)
    return ImageAccepted(
        upload_id=f"u{number}",
        run_id="run",
        supplier="acme",
        image_id=digest,
        job_kind=JobKind.DETECT,
        lane=Lane.NORMAL,
        deadline=now() + timedelta(hours=1),
        blob=blob,
        width=10,
        height=10,
        format="jpeg",
        accepted_at=now(),
    )


async def test_images_bring_nodes_and_workers_and_afterwards_nothing_is_left(
    batch: LocalBatch, broker: Any, ledger_settings: LedgerSettings, tmp_path: Path
) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    connection = broker.connection_string
    chosen = settings_for(
        batch,
        worker_command=f"{sys.executable} {worker}",
        worker_environment={"CONNECTION": connection},
        deadline_seconds=8,
        boot_seconds=0.5,
        assumed_seconds_per_image=1.0,
        max_nodes=2,
        price_per_node_hour=3600,
    )
    told: list[FleetChanged] = []

    async def listen(message: FleetChanged, context: object) -> Done:
        told.append(message)
        return done()

    stop = asyncio.Event()
    bus_settings = BusSettings(connection=Secret(connection), ca_file=str(broker.ca_path))
    async with Bus(bus_settings) as bus, Ledger(ledger_settings) as ledger, BatchFleet(chosen) as fleet:
        await ledger.create_tables()
        dispatcher = Dispatcher(chosen, bus, bus.publisher(), ledger, fleet)
        await dispatcher.begin()
        plan = await dispatcher.look()
        assert (plan.nodes, plan.workers) == (0, 0)
        await bus.publisher().publish([Outgoing(message=image(number)) for number in range(12)])
        loops = [
            asyncio.create_task(dispatcher.run(stop)),
            asyncio.create_task(bus.consume("fleet", "notifier", listen, stop=stop)),
        ]

        async def all_over() -> bool:
            depth = await bus.depth("images", "detect")
            seen = await fleet.read(now())
            made = batch.state.pool("gpu").nodes_made
            last = (await ledger.decisions("gpu", 1))[:1]
            quiet = bool(last) and (last[0].nodes, last[0].workers) == (0, 0)
            return depth is not None and depth.active == 0 and seen.billed == seen.live == 0 and made > 0 and quiet

        await until(all_over)
        await until(lambda: _true(bool(told) and told[-1].nodes == 0))
        stop.set()
        await asyncio.gather(*loops)
        decisions = list(reversed(await ledger.decisions("gpu")))
        cost = await ledger.cost_of_month(f"{now():%Y-%m}")
    assert batch.state.pool("gpu").nodes_made == 2
    assert next((found.nodes, found.workers) for found in decisions) == (2, 2)
    assert decisions[0].because.startswith("12 images at 1 s each (assumed)")
    assert [(found.nodes, found.because) for found in told] == [(found.nodes, found.because) for found in decisions]
    pairs = [(found.nodes, found.workers) for found in decisions]
    assert all(one != two for one, two in itertools.pairwise(pairs)), "an unchanged decision was repeated"
    billed = batch.state.billed_node_seconds("gpu")[False]
    assert cost.node_seconds == pytest.approx(billed, rel=0.5, abs=1.0)
    assert cost.cost["EUR"] == pytest.approx(cost.node_seconds)


async def _true(value: bool) -> bool:
    return value


async def test_a_killed_dispatcher_takes_up_where_it_was(
    batch: LocalBatch, broker: Any, ledger_settings: LedgerSettings, tmp_path: Path
) -> None:
    """As a process of its own: killed and started again it asks for nothing twice and says nothing twice."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("FUSEBUS_")},
        "FUSEBUS_BUS_CONNECTION": broker.connection_string,
        "FUSEBUS_BUS_CA_FILE": str(broker.ca_path),
        "FUSEBUS_LEDGER_CONNECTION": ledger_settings.connection.reveal(),
        "FUSEBUS_LEDGER_TABLE_PREFIX": ledger_settings.table_prefix,
        "FUSEBUS_DISPATCHER_BATCH_URL": batch.url,
        "FUSEBUS_DISPATCHER_WORKER_COMMAND": f"{sys.executable} -c 'import time; time.sleep(60)'",
        "FUSEBUS_DISPATCHER_INTERVAL_SECONDS": "0.1",
    }
    log = tmp_path / "dispatcher.log"

    async def start() -> asyncio.subprocess.Process:
        with log.open("ab") as output:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-m", "fusebus.dispatcher", env=environment, stderr=output
            )

    def tasks() -> int:
        job = batch.state.jobs.get("workers")
        return 0 if job is None else len(job.tasks)

    bus_settings = BusSettings(connection=Secret(broker.connection_string), ca_file=str(broker.ca_path))
    async with Bus(bus_settings) as bus, Ledger(ledger_settings) as ledger:
        await ledger.create_tables()
        await bus.publisher().publish([Outgoing(message=image(number)) for number in range(3)])
        first = await start()
        await until(lambda: _true(tasks() == 1 and len(batch.state.runs) == 1))
        first.kill()
        assert await first.wait() == -9
        second = await start()
        await until(lambda: _true(log.read_text().count('"message":"started"') == 2))
        await asyncio.sleep(2.0)  # a few looks: that nothing happens can only be seen by waiting
        second.terminate()
        assert await second.wait() == 0
        assert (tasks(), batch.state.pool("gpu").nodes_made) == (1, 1)
        decisions = await ledger.decisions("gpu")
        cost = await ledger.cost_of_month(f"{now():%Y-%m}")
    assert cost.node_seconds > 0, "the second one never looked"
    assert [(found.nodes, found.workers) for found in decisions] == [(1, 1)]
