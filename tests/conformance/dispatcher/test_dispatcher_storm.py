"""Everything goes wrong at once, for a while: the work is done all the same, and nothing is left behind."""

import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fusebus.blobs import BlobSettings
from fusebus.bus import Bus, BusSettings
from fusebus.contracts.outcomes import Outgoing
from fusebus.contracts.topology import broker_configuration
from fusebus.dispatcher.adapters import BlobLeader, Fleets
from fusebus.dispatcher.loop import Dispatcher
from fusebus.dispatcher.settings import DispatcherSettings
from fusebus.host import Secret
from fusebus.ledger import Ledger, LedgerSettings
from fusebus.localbatch import LocalBatch
from fusebus.localbatch.entities import BatchProblem

pytestmark = pytest.mark.long
TOPOLOGY = broker_configuration(lock_seconds=10)
STORM_SECONDS = 25.0
DELIVERIES = 0.4  # how likely one is at each turn
FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("throttle", {"plane": "arm", "retry_after": 1}),
    ("throttle", {"plane": "data", "retry_after": 1}),
    ("error", {"status": 500, "next": 2}),
    ("error", {"plane": "arm", "status": 409, "code": "PoolBeingResized", "method": "PATCH"}),
    ("lose", {"plane": "arm", "method": "PATCH"}),
    ("lose", {"plane": "data", "method": "POST"}),
    ("delay", {"seconds": 1.0}),
    ("preempt", {"pool": "gpu", "notice": 0.0}),
    ("unusable", {"pool": "gpu", "next": 1}),
    ("resize-error", {"pool": "gpu", "next": 1}),
]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_storm_of_faults_ends_with_all_work_done_and_no_node_left(
    batch: LocalBatch,
    broker: Any,
    ledger_settings: LedgerSettings,
    blob_settings: BlobSettings,
    settings_for: Callable[..., DispatcherSettings],
    until: Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]],
    worker_script: Path,
    image: Callable[[int], Any],
    tmp_path: Path,
    seed: int,
) -> None:
    chosen = settings_for(
        worker_command=f"{sys.executable} {worker_script}",
        worker_environment={"CONNECTION": broker.connection_string},
        leader_blob=f"storm-{tmp_path.name}",
        max_nodes=3,
        request_seconds=2.0,
        deadline_seconds=30.0,
        boot_seconds=0.5,
        margin_seconds=1.0,
        least_use_seconds=0.5,
        settle_seconds=0.1,
        fallback_seconds=0.5,
        storm_seconds=3.0,
        retry_resize_seconds=1.0,
        breaker_seconds=2.0,
        ledger_seconds=1.0,
    )
    chance, stop = random.Random(seed), asyncio.Event()
    bus_settings = BusSettings(connection=Secret(broker.connection_string), ca_file=str(broker.ca_path))
    async with AsyncExitStack() as open_:
        bus = await open_.enter_async_context(Bus(bus_settings))
        ledger = await open_.enter_async_context(Ledger(ledger_settings))
        await ledger.create_tables()
        loops = []
        for _ in range(2):  # the second one waits, and never acts
            fleet = await open_.enter_async_context(Fleets(chosen))
            leader = await open_.enter_async_context(BlobLeader(chosen, blob_settings))
            dispatcher = Dispatcher(chosen, bus, bus.publisher(), ledger, fleet, leader)
            await dispatcher.begin()
            loops.append(asyncio.create_task(dispatcher.run(stop)))
        numbers = iter(range(10_000))
        end = time.monotonic() + STORM_SECONDS
        while time.monotonic() < end:
            fault, fields = chance.choice(FAULTS)
            with suppress(BatchProblem):  # no node to take away just now
                batch.inject(fault, **fields)
            if chance.random() < DELIVERIES:
                images = [image(next(numbers)) for _ in range(chance.choice([1, 5, 40]))]
                await bus.publisher().publish([Outgoing(message=one) for one in images])
            await asyncio.sleep(chance.uniform(0.2, 1.0))
        async with aiohttp.ClientSession() as http, http.delete(f"{batch.url}/local/faults") as answer:
            assert answer.ok

        async def all_over() -> bool:
            depth = await bus.depth("images", "detect")
            pool = batch.state.pool("gpu")
            return depth is not None and depth.active == 0 and not pool.nodes and not batch.state.runs

        await until(all_over)
        stop.set()
        await asyncio.gather(*loops)
        decisions = await ledger.decisions("gpu", 1)
    assert (decisions[0].nodes, decisions[0].workers) == (0, 0)
    names = list(batch.state.job("workers").tasks)
    assert len(names) == len(set(names))
