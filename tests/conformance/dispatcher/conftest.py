"""A local Batch, and the dispatcher's settings for it."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fusebus.blobs import BlobSettings
from fusebus.bus import BusSettings
from fusebus.costs.settings import CostSettings
from fusebus.dispatcher.adapters import BatchFleet
from fusebus.dispatcher.settings import DispatcherSettings
from fusebus.ledger import LedgerSettings
from fusebus.localbatch import AccountLimits, LocalBatch, LocalBatchOptions

LIMITS = AccountLimits(
    boot_seconds=0.2, leave_seconds=0.05, terminate_grace_seconds=2, preempted_seconds=0.1, capacity=3
)
DEADLINE_SECONDS = 90.0


@pytest.fixture
async def batch(tmp_path: Path) -> AsyncIterator[LocalBatch]:
    async with LocalBatch(LocalBatchOptions(work_dir=tmp_path / "batch", limits=LIMITS)) as batch:
        yield batch


@pytest.fixture
def settings_for(batch: LocalBatch) -> Callable[..., DispatcherSettings]:
    """The dispatcher's settings for this Batch, with whatever is given over them."""

    def make(**more: Any) -> DispatcherSettings:
        chosen = {
            "batch_url": batch.url,
            "pool": "gpu",
            "worker_command": f"{sys.executable} -c 'import time; time.sleep(60)'",
            "interval_seconds": 0.2,
            "bus": BusSettings(),
            "ledger": LedgerSettings(),
            "blobs": BlobSettings(),
            "costs": CostSettings(),
        }
        return DispatcherSettings(**{**chosen, **more})

    return make


@pytest.fixture
async def fleet(settings_for: Callable[..., DispatcherSettings]) -> AsyncIterator[BatchFleet]:
    async with BatchFleet(settings_for()) as fleet:
        await fleet.ensure()
        yield fleet


@pytest.fixture
def until() -> Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]:
    """Wait for something to hold."""

    async def wait(holds: Callable[[], Awaitable[bool]]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not await holds():
            assert time.monotonic() < deadline, "did not happen in time"
            await asyncio.sleep(0.05)

    return wait
