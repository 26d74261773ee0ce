"""A local Batch, and the dispatcher's settings for it."""

import asyncio
import hashlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fusebus.blobs import BlobSettings
from fusebus.bus import BusSettings
from fusebus.contracts.messages import BlobReference, ImageAccepted, JobKind, Lane
from fusebus.costs.settings import CostSettings
from fusebus.dispatcher.adapters import BatchFleet
from fusebus.dispatcher.settings import DispatcherSettings
from fusebus.ledger import LedgerSettings
from fusebus.localbatch import AccountLimits, LocalBatch, LocalBatchOptions

LIMITS = AccountLimits(
    boot_seconds=0.2, leave_seconds=0.05, terminate_grace_seconds=2, preempted_seconds=0.1, capacity=3
)
DEADLINE_SECONDS = 90.0

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


@pytest.fixture
def worker_script(tmp_path: Path) -> Path:
    """Takes messages off images/detect until none came for a second."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    return script


@pytest.fixture
def image() -> Callable[[int], ImageAccepted]:
    """The message of one of many images."""

    def make(number: int) -> ImageAccepted:
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        blob = BlobReference(container="in-acme", name=f"{number}.jpg", etag="1", sha256=digest, size=10)
        return ImageAccepted(
            upload_id=f"u{number}",
            run_id="run",
            supplier="acme",
            image_id=digest,
            job_kind=JobKind.DETECT,
            lane=Lane.NORMAL,
            deadline=datetime.now(UTC) + timedelta(hours=1),
            blob=blob,
            width=10,
            height=10,
            format="jpeg",
            accepted_at=datetime.now(UTC),
        )

    return make
