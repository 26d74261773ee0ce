"""`fusebus run-now`, `cancel` and a window's opening: ingest and notifier as they run, a real broker, real storage."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from fusebus.blobs import Blobs, BlobSettings, layout
from fusebus.bus import Bus, BusSettings, ConsumerSettings, taking_out
from fusebus.console.__main__ import fusebus
from fusebus.contracts.messages import BlobReference, ImageAccepted, JobKind, Lane
from fusebus.contracts.outcomes import Outgoing
from fusebus.contracts.topology import TOPICS, broker_configuration
from fusebus.host import Health, HealthSettings, Life, Secret
from fusebus.ingest import __main__ as ingest
from fusebus.ingest.settings import IngestSettings
from fusebus.ledger import FinalKind, Ledger, LedgerSettings, RunRow, RunState, SupplierRecord
from fusebus.notifier import __main__ as notifier
from fusebus.notifier.settings import NotifierSettings, SmtpSettings
from fusebus.vision import encode_jpeg

NOW = datetime(2026, 5, 6, tzinfo=UTC)


def photo(seed: int) -> bytes:
    """A small JPEG that no other seed makes."""
    coarse = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    return encode_jpeg(np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)))


@dataclass
class System:
    """Everything but workers and dispatcher."""

    blobs: Blobs
    ledger: Ledger
    bus: Bus
    broker: Any
    supplier: str
    mail: Path

    async def supply(self, count: int, first: int = 0, **terms: Any) -> None:
        record = SupplierRecord(name=self.supplier, added_at=NOW, changed_at=NOW, changed_by="me", **terms)
        await self.ledger.add_supplier(record)
        box = layout.supplier_container(self.supplier)
        for number in range(first, first + count):
            await self.blobs.write(box, f"{number}.jpg", photo(number), "image/jpeg")

    async def run_of(self, uploads: int) -> RunRow:
        """The supplier's run, once it has so many uploads."""
        async with asyncio.timeout(60):
            while True:
                for run in await self.ledger.runs(self.supplier):
                    if len(await self.ledger.uploads(run.run_id)) == uploads:
                        return run
                await asyncio.sleep(0.1)

    def queued(self) -> dict[str, int]:
        """What lies in each subscription of images now, without other tests' suppliers, whom the sweep finds too."""
        subscriptions = next(topic.subscriptions for topic in TOPICS if topic.name == "images")
        return {found.name: count for found in subscriptions if (count := self._of_ours(found.name))}

    def _of_ours(self, subscription: str) -> int:
        path = f"images/Subscriptions/{subscription}"
        found = self.broker.call(lambda: self.broker.broker.engine.peek(path, 1, 1000))
        suppliers = [one.message.application_properties.get("supplier") for one in found]
        return sum(supplier in (self.supplier, "another") for supplier in suppliers)

    async def until_queued(self, **wanted: int) -> None:
        deadline = time.monotonic() + 60
        while (found := self.queued()) != wanted:
            assert time.monotonic() < deadline, f"{found} is not {wanted}"
            await asyncio.sleep(0.1)

    async def until_scheduled(self, wanted: int) -> None:
        """One message for each run and window."""
        async with asyncio.timeout(60):
            while (depth := await self.bus.depth("uploads", "ingest")) is None or depth.scheduled != wanted:
                await asyncio.sleep(0.2)

    async def fusebus(self, *arguments: str) -> Result:
        """A command, as a person at another machine."""
        return await asyncio.to_thread(CliRunner().invoke, fusebus, arguments)


@pytest.fixture
async def system(
    start_broker: Any,
    blob_settings: BlobSettings,
    ledger_settings: LedgerSettings,
    supplier: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[System]:
    broker = start_broker(broker_configuration(lock_seconds=15.0))
    bus_settings = BusSettings(
        connection=Secret(broker.connection_string), ca_file=str(broker.ca_path), close_seconds=0.1
    )
    environment = {
        "FUSEBUS_BUS_CONNECTION": broker.connection_string,
        "FUSEBUS_BUS_CA_FILE": str(broker.ca_path),
        "FUSEBUS_BUS_CLOSE_SECONDS": "0.1",
        "FUSEBUS_LEDGER_CONNECTION": ledger_settings.connection.reveal(),
        "FUSEBUS_LEDGER_TABLE_PREFIX": ledger_settings.table_prefix,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("FUSEBUS_SETTINGS", raising=False)
    quick = ConsumerSettings(idle_wait_seconds=0.2, retry_seconds=0.1)
    common: dict[str, Any] = {"bus": bus_settings, "consumer": quick, "ledger": ledger_settings}
    life = Life(Health(HealthSettings(port=0)))
    async with Blobs(blob_settings) as blobs, Ledger(ledger_settings) as ledger, Bus(bus_settings) as bus:
        await blobs.create_container(layout.supplier_container(supplier))
        await blobs.create_container(layout.RESULTS)
        await ledger.create_tables()
        of_ingest = IngestSettings(
            **common,
            blobs=blob_settings,
            sweep_interval_seconds=0.5,
            run_quiet_seconds=2.0,
            supplier_refresh_seconds=0.0,
            validators=1,
            coming_seconds=0.5,
        )
        of_notifier = NotifierSettings(
            **common,
            blobs=blob_settings,
            smtp=SmtpSettings(),
            run_quiet_seconds=3600.0,
            recheck_seconds=1.0,
            mail_folder=tmp_path / "mail",
        )
        services = [
            asyncio.create_task(ingest.main(of_ingest, life)),
            asyncio.create_task(notifier.main(of_notifier, life)),
        ]
        try:
            yield System(blobs, ledger, bus, broker, supplier, tmp_path / "mail")
        finally:
            life.stop.set()
            await asyncio.gather(*services)


def answer(result: Result, code: int = 0) -> Any:
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


@pytest.mark.long
async def test_a_window_opens_by_itself_and_everything_of_it_comes_then(system: System) -> None:
    opens = datetime.now(UTC) + timedelta(seconds=10)
    await system.supply(3, when={"any": f"windows {opens:%H:%M:%S} UTC"})
    await system.run_of(uploads=3)
    await system.until_scheduled(1)
    assert not system.queued(), "no worker sees anything of it"
    await system.until_queued(detect=3)
    assert datetime.now(UTC) >= opens.replace(microsecond=0)


@pytest.mark.long
async def test_run_now_does_not_wait_for_the_window_and_goes_first(system: System) -> None:
    await system.supply(4, when={"any": "on-command"})
    run = await system.run_of(uploads=4)
    await system.ledger.close_run(run.run_id, datetime.now(UTC))
    await system.blobs.write(layout.supplier_container(system.supplier), "again.jpg", photo(0), "image/jpeg")
    second = await system.run_of(uploads=1)
    async with asyncio.timeout(60):
        while not (await system.ledger.uploads(second.run_id))[0].waits_for:
            await asyncio.sleep(0.1)
    told = answer(await system.fusebus("run-now", second.run_id, "--json"))
    assert told["waits_for_runs"] == [run.run_id], "the photo came first there"
    told = answer(await system.fusebus("run-now", run.run_id, "--json"))
    assert told == {
        "run_id": run.run_id,
        "lane": "urgent",
        "waited": 4,
        "moved": 0,
        "moved_all": True,
        "taken_up": True,
        "waits_for_runs": [],
    }
    await system.until_queued(**{"detect-urgent": 4})
    await system.supply(1, first=10)
    await system.until_queued(**{"detect-urgent": 5})


@pytest.mark.long
async def test_run_now_moves_what_waits_in_a_queue_already(system: System) -> None:
    await system.supply(3)
    run = await system.run_of(uploads=3)
    await system.until_queued(detect=3)
    await system.bus.publisher().publish([Outgoing(message=_image("another-run"))])
    told = answer(await system.fusebus("run-now", run.run_id, "--json"))
    assert (told["waited"], told["moved"]) == (0, 3)
    await system.until_queued(**{"detect-urgent": 3, "detect": 1})
    again = answer(await system.fusebus("run-now", run.run_id, "--lane", "bulk", "--json"))
    assert again["moved"] == 3
    await system.until_queued(**{"detect-bulk": 3, "detect": 1})


async def test_a_cancelled_run_leaves_an_outcome_for_each_photo_a_summary_and_nothing_in_a_queue(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    await system.supply(3)
    first = await system.run_of(uploads=3)
    await system.until_queued(detect=3)
    with monkeypatch.context() as hurry:
        hurry.setattr(taking_out, "TAKE_SECONDS", -1.0)
        told = answer(await system.fusebus("cancel", first.run_id, "--reason", "sent twice", "--by", "me", "--json"), 3)
        said = await system.fusebus("cancel", first.run_id)
    done = {"run_id": first.run_id, "cancelled": 3, "done_before": 0, "taken_up": True}
    assert told == done | {"taken_out": 0, "taken_out_all": False}, "a queue too long is no queue without it"
    assert (said.exit_code, "say it again" in said.output) == (3, True)
    told = answer(await system.fusebus("cancel", first.run_id, "--json"))
    assert told == done | {"taken_out": 3, "taken_out_all": True}
    assert not system.queued(), "nothing stays"
    finals = [upload.final for upload in await system.ledger.uploads(first.run_id)]
    assert {(final.kind, final.reason) for final in finals if final} == {(FinalKind.FAILED, "cancelled")}
    assert all(final and "sent twice" in final.explanation for final in finals)
    async with asyncio.timeout(60):
        while (run := await system.ledger.run(first.run_id)) is None or run.state is not RunState.COMPLETE:
            await asyncio.sleep(0.1)
    assert (run.cancelled_by, run.cancel_reason) == ("me", "sent twice")
    summary = await system.blobs.read(
        layout.RESULTS, f"report/{first.run_id}/summary.json", etag=None, max_bytes=1_000_000
    )
    counts = json.loads(summary)["counts"]
    assert (counts["uploads"], counts["failed"]) == (3, 3)
    assert len(list(system.mail.glob("*.eml"))) == 1

    again = answer(await system.fusebus("cancel", first.run_id, "--json"))
    assert (again["cancelled"], again["taken_out"]) == (3, 0), "a repeat changes nothing"
    refused = await system.fusebus("run-now", first.run_id)
    assert (refused.exit_code, "was cancelled by me" in refused.output) == (2, True)

    box = layout.supplier_container(system.supplier)  # the same photo once more is processed
    await system.blobs.write(box, "again.jpg", photo(0), "image/jpeg")
    await system.until_queued(detect=1)
    assert len(await system.ledger.runs(system.supplier)) == 2


@pytest.mark.long
async def test_a_cancelled_run_that_waits_for_its_window_is_not_released(system: System) -> None:
    opens = datetime.now(UTC) + timedelta(seconds=12)
    await system.supply(2, when={"any": f"windows {opens:%H:%M:%S} UTC"})
    run = await system.run_of(uploads=2)
    told = answer(await system.fusebus("cancel", run.run_id, "--json"))
    assert (told["cancelled"], told["taken_out"]) == (2, 0)
    await system.until_scheduled(0)
    await asyncio.sleep(1.0)
    assert not system.queued()


@pytest.mark.long
async def test_wrong_usage_ends_with_2_and_says_what_is_right(system: System) -> None:
    for command in ("run-now", "cancel"):
        found = await system.fusebus(command, "20260101T000000Z-nobody-00000000")
        assert (found.exit_code, "there is no run" in found.output) == (2, True)
    assert (await system.fusebus("run-now", "x", "--lane", "fastest")).exit_code == 2


def _image(run: str) -> ImageAccepted:
    return ImageAccepted(
        upload_id="u",
        run_id=run,
        supplier="another",
        image_id="i",
        job_kind=JobKind.DETECT,
        lane=Lane.NORMAL,
        deadline=NOW,
        blob=BlobReference(container="in-acme", name="a", etag="0x1", sha256="0" * 64, size=1),
        width=1,
        height=1,
        format="jpeg",
        accepted_at=NOW,
    )
