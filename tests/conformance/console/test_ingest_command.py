"""`fusebus ingest` on Azurite and a broker: what no event announced is found, told and announced."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fusebus.blobs import Blobs, BlobSettings, layout
from fusebus.bus import Bus, BusSettings
from fusebus.console.__main__ import fusebus
from fusebus.contracts import identity
from fusebus.contracts.topology import TOPICS, broker_configuration
from fusebus.host import Secret
from fusebus.ledger import Held, HeldBecause, Ledger, LedgerSettings, SupplierRecord, UploadEntry

NOW = datetime.now(UTC)
NAMES = ("=known.jpg", "missing\u202egpj.exe.jpg", "held.jpg")
LANES = [one.name for topic in TOPICS if topic.name == "uploads" for one in topic.subscriptions]


@pytest.fixture
def bus_settings(start_broker: Any) -> BusSettings:
    broker = start_broker(broker_configuration())
    return BusSettings(connection=Secret(broker.connection_string), ca_file=str(broker.ca_path), close_seconds=0.1)


@pytest.fixture
def run(
    ledger_settings: LedgerSettings, bus_settings: BusSettings, supplier: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """The command, with three uploads: one in a run, one held, one of which nobody knows."""
    for section in ("LEDGER", "BLOBS"):
        monkeypatch.setenv(f"FUSEBUS_{section}_CONNECTION", ledger_settings.connection.reveal())
    monkeypatch.setenv("FUSEBUS_LEDGER_TABLE_PREFIX", ledger_settings.table_prefix)
    monkeypatch.setenv("FUSEBUS_BUS_CONNECTION", bus_settings.connection.reveal())
    monkeypatch.setenv("FUSEBUS_BUS_CA_FILE", bus_settings.ca_file)
    monkeypatch.setenv("FUSEBUS_BLOBS_RETRIES", "0")  # a listing that fails is asked for at once again, which takes 3 s
    monkeypatch.delenv("FUSEBUS_SETTINGS", raising=False)
    asyncio.run(_fill(ledger_settings, layout.supplier_container(supplier), supplier))
    return lambda *arguments: CliRunner().invoke(fusebus, ["ingest", "--supplier", supplier, *arguments])


async def _fill(ledger_settings: LedgerSettings, container: str, supplier: str) -> None:
    async with Blobs(BlobSettings(connection=ledger_settings.connection)) as blobs, Ledger(ledger_settings) as ledger:
        await blobs.create_container(container)
        await ledger.create_tables()
        earlier = NOW - timedelta(days=1)
        await ledger.add_supplier(
            SupplierRecord(name=supplier, added_at=earlier, changed_at=earlier, changed_by="me", images_per_day=1)
        )
        for name in NAMES:
            await blobs.write(container, name, b"x", "image/jpeg")
        async for blob in blobs.list(container):
            upload = {"upload_id": identity.upload_id(container, blob.name, blob.etag), "supplier": supplier}
            place = {"container": container, "blob_name": blob.name}
            if blob.name == NAMES[0]:
                entry = UploadEntry(**upload, **place, blob_etag=blob.etag, size=1, uploaded_at=NOW)
                await ledger.enter_upload(entry, NOW)
            elif blob.name == NAMES[2]:
                until = NOW + timedelta(days=1)
                await ledger.hold(Held(**upload, **place, because=HeldBecause.QUOTA, held_at=NOW, until=until))


async def _waiting(bus_settings: BusSettings) -> int:
    async with Bus(bus_settings) as bus:
        depths = [await bus.depth("uploads", lane) for lane in LANES]
    return sum(depth.active if depth else 1000 for depth in depths)


def test_what_is_missing_is_told_and_announced_once_and_what_is_known_or_held_is_left_alone(
    run: Callable[..., Result], bus_settings: BusSettings, supplier: str
) -> None:
    tried = run("--dry-run", "--json", "--since", "2h")
    assert tried.exit_code == 0, tried.output
    report = json.loads(tried.stdout)
    assert {key: report[key] for key in ("dry_run", "containers", "uploads", "known", "held", "announced")} == {
        "dry_run": True,
        "containers": 1,
        "uploads": 3,
        "known": 1,
        "held": 1,
        "announced": 0,
    }
    assert [(one["supplier"], one["name"]) for one in report["missing"]] == [(supplier, NAMES[1])]
    assert asyncio.run(_waiting(bus_settings)) == 0
    done = run()
    assert done.exit_code == 0
    assert "missinggpj.exe.jpg" in done.output and "\u202e" not in done.output
    assert "3 uploads since" in done.output and "1 announced, 1 in a run already, 1 held" in done.output
    run()
    assert asyncio.run(_waiting(bus_settings)) == 1, "the repeat of the same is dropped by duplicate detection"
    later = run("--since", (datetime.now(UTC) + timedelta(hours=1)).isoformat(), "--json")
    assert json.loads(later.stdout)["uploads"] == 0


def test_what_could_not_be_listed_is_told_and_ends_with_its_own_exit_code(
    run: Callable[..., Result], ledger_settings: LedgerSettings, supplier: str
) -> None:
    container = layout.supplier_container(supplier)

    async def spoil(spoilt: bool) -> None:
        async with Blobs(BlobSettings(connection=ledger_settings.connection)) as blobs:
            if spoilt:
                await blobs.write(container, "m\x00", b"x", "image/jpeg")
            else:  # other tests sweep the same account
                await blobs.delete(container, "m\x00")

    asyncio.run(spoil(True))
    found = run("--json")
    asyncio.run(spoil(False))
    report = json.loads(found.stdout)
    assert (found.exit_code, report["announced"], report["uploads"]) == (3, 1, 3)
    (hidden,) = report["not_listed"]
    assert (hidden["container"], hidden["names"]) == (container, ["m"])


def test_a_supplier_without_a_container_and_a_broken_address_are_errors_in_words(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = run("--supplier", "no-such-supplier")
    assert (nobody.exit_code, "there is no container in-no-such-supplier" in nobody.output) == (2, True)
    monkeypatch.setenv("FUSEBUS_LEDGER_TABLE_PREFIX", "other")
    assert (run().exit_code, "does not exist" in run().output) == (1, True)
