"""The notifier's own process on a real bus: kill -9 at any moment, and dead letters of other services' queues."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fusebus.blobs import Blobs, BlobSettings, layout
from fusebus.bus import Bus, BusSettings, Context
from fusebus.contracts import identity
from fusebus.contracts.messages import (
    BlobReference,
    ImageAccepted,
    ImageRejected,
    JobKind,
    Lane,
    RejectReason,
    RunCheck,
)
from fusebus.contracts.outcomes import Outcome, Outgoing, Reject
from fusebus.contracts.topology import broker_configuration
from fusebus.host import Secret
from fusebus.ledger import FinalKind, Ledger, LedgerSettings, MailState, RunState, UploadEntry

LOCK_SECONDS = 2.0
pytestmark = pytest.mark.timeout(90)


class System:
    """Storage, a bus and one notifier process that can be killed and started again."""

    def __init__(self, bus: Bus, ledger: Ledger, environment: dict[str, str], mail: Path, log: Path) -> None:
        self.bus, self.ledger, self.mail = bus, ledger, mail
        self._environment, self._log = environment, log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "fusebus.notifier", env={**os.environ, **self._environment}, stderr=log
            )

    async def end(self, how: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(how)
        return await self._process.wait()

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            await self.end(signal.SIGKILL)

    async def publish(self, *messages: Any, enqueue_at: datetime | None = None) -> None:
        await self.bus.publisher().publish([Outgoing(message=found, enqueue_at=enqueue_at) for found in messages])

    async def state(self, run_id: str) -> RunState | None:
        run = await self.ledger.run(run_id)
        return run.state if run else None

    def log(self) -> str:
        return self._log.read_text()


@pytest.fixture
async def system(
    start_broker: Any, ledger_settings: LedgerSettings, blob_settings: BlobSettings, tmp_path: Path
) -> AsyncIterator[System]:
    broker = start_broker(broker_configuration(lock_seconds=LOCK_SECONDS))
    settings = BusSettings(connection=Secret(broker.connection_string), ca_file=str(broker.ca_path))
    environment = {
        "FUSEBUS_BUS_CONNECTION": broker.connection_string,
        "FUSEBUS_BUS_CA_FILE": str(broker.ca_path),
        "FUSEBUS_BLOBS_CONNECTION": blob_settings.connection.reveal(),
        "FUSEBUS_LEDGER_CONNECTION": ledger_settings.connection.reveal(),
        "FUSEBUS_LEDGER_TABLE_PREFIX": ledger_settings.table_prefix,
        "FUSEBUS_NOTIFIER_MAIL_FOLDER": str(tmp_path / "mail"),
        "FUSEBUS_NOTIFIER_RUN_QUIET_SECONDS": "1",
        "FUSEBUS_NOTIFIER_RECHECK_SECONDS": "1",
        "FUSEBUS_NOTIFIER_MAIL_TIMEOUT_SECONDS": "2",
        "FUSEBUS_NOTIFIER_DEAD_LETTER_INTERVAL_SECONDS": "1",
    }
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(Bus(settings))
        ledger = await stack.enter_async_context(Ledger(ledger_settings))
        blobs = await stack.enter_async_context(Blobs(blob_settings))
        await ledger.create_tables()
        await blobs.create_container(layout.RESULTS)
        found = System(bus, ledger, environment, tmp_path / "mail", tmp_path / "notifier.log")
        stack.push_async_callback(found.stop)
        yield found


async def until(condition: Callable[[], Awaitable[bool]], system: System, seconds: float = 100) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"did not happen within {seconds} s:\n{system.log()[-6000:]}"
        await asyncio.sleep(0.1)


async def enter(system: System, supplier: str, count: int) -> tuple[str, list[str]]:
    """`count` uploads in a new run: its id and theirs."""
    now, run_id = datetime.now(UTC), ""
    uploads = [identity.upload_id(f"in-{supplier}", f"{number}.jpg", "e") for number in range(count)]
    for number, upload in enumerate(uploads):
        entered = await system.ledger.enter_upload(
            UploadEntry(
                upload_id=upload,
                supplier=supplier,
                container=f"in-{supplier}",
                blob_name=f"{number}.jpg",
                blob_etag="e",
                size=1,
                uploaded_at=now,
                reject_reason=RejectReason.DAMAGED,
            ),
            now,
        )
        run_id = entered.run_id
    return run_id, uploads


def rejected(supplier: str, run_id: str, upload: str) -> ImageRejected:
    return ImageRejected(
        upload_id=upload,
        run_id=run_id,
        supplier=supplier,
        reason=RejectReason.DAMAGED,
        explanation="Damaged.",
        rejected_at=datetime.now(UTC),
    )


@pytest.mark.long
async def test_a_run_completes_with_one_mail_although_the_notifier_is_killed_again_and_again(system, supplier):
    run_id, uploads = await enter(system, supplier, 20)
    await system.publish(
        RunCheck(run_id=run_id, supplier=supplier), enqueue_at=datetime.now(UTC) + timedelta(seconds=1)
    )
    await system.publish(*(rejected(supplier, run_id, upload) for upload in uploads[:-1]))
    await system.start()
    for _ in range(3):

        async def some_final(
            before: int = sum(row.final is not None for row in await system.ledger.uploads(run_id)),
        ) -> bool:
            finals = sum(row.final is not None for row in await system.ledger.uploads(run_id))
            return finals > before or finals == len(uploads) - 1

        await until(some_final, system)
        await system.end(signal.SIGKILL)
        await system.start()

    async def closed() -> bool:
        return await system.state(run_id) is RunState.CLOSED

    await until(closed, system)
    await system.publish(rejected(supplier, run_id, uploads[-1]))

    async def complete() -> bool:
        return await system.state(run_id) is RunState.COMPLETE

    await until(complete, system)
    assert all(row.final.kind is FinalKind.REJECTED for row in await system.ledger.uploads(run_id))
    assert len(list(system.mail.glob("*.eml"))) == 1
    marker = await system.ledger.mail_marker(run_id)
    assert marker.state is MailState.DONE

    async def empty() -> bool:
        depth = await system.bus.depth("results", "notifier")
        return depth is not None and (depth.active, depth.scheduled, depth.dead_letter) == (0, 0, 0)

    await until(empty, system)
    assert await system.end(signal.SIGTERM) == 0


async def test_an_image_that_was_given_up_fails_its_upload_and_stays_a_dead_letter(system, supplier):
    run_id, [upload] = await enter(system, supplier, 1)
    now = datetime.now(UTC)
    accepted = ImageAccepted(
        upload_id=upload,
        run_id=run_id,
        supplier=supplier,
        image_id="i",
        job_kind=JobKind.DETECT,
        lane=Lane.NORMAL,
        deadline=now,
        blob=BlobReference(container=f"in-{supplier}", name="0.jpg", etag="e", sha256="0" * 64, size=1),
        width=1,
        height=1,
        format="jpeg",
        accepted_at=now,
    )
    await system.publish(accepted)
    await system.publish(RunCheck(run_id=run_id, supplier=supplier))
    stop = asyncio.Event()

    async def give_up(message: ImageAccepted, context: Context) -> Outcome:
        stop.set()
        return Reject(reason="worker_broke", description="the model would not load")

    await system.bus.consume("images", "detect", give_up, stop=stop)
    await system.start()

    async def complete() -> bool:
        return await system.state(run_id) is RunState.COMPLETE

    await until(complete, system)
    [row] = await system.ledger.uploads(run_id)
    assert (row.final.kind, row.final.reason) == (FinalKind.FAILED, "worker_broke")
    depth = await system.bus.depth("images", "detect")
    assert depth.dead_letter == 1
