"""Manifests as blobs on real storage: read within limits, stored in our own form, and never in a photo's way."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest
from azure.storage.blob.aio import BlobServiceClient

from fusebus.arrivals import event_of
from fusebus.blobs import Blobs, BlobSettings, layout
from fusebus.bus import BusSettings, ConsumerSettings, Context
from fusebus.contracts.envelope import Envelope
from fusebus.contracts.messages import BlobCreated, ImageAccepted, ImageRejected, Message, RunCheck, manifest_check
from fusebus.contracts.outcomes import Done
from fusebus.host import Secret
from fusebus.ingest.handler import Ingest
from fusebus.ingest.manifest import MAX_BYTES
from fusebus.ingest.settings import IngestSettings
from fusebus.ledger import Ledger, LedgerSettings, ManifestFacts
from fusebus.validation import Validator
from fusebus.vision import encode_jpeg

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)


def photo(seed: int) -> bytes:
    """A small JPEG that no other seed makes."""
    coarse = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    return encode_jpeg(np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)))


@dataclass
class Bench:
    """A handler on real storage."""

    ingest: Ingest
    blobs: Blobs
    ledger: Ledger
    supplier: str

    @property
    def container(self) -> str:
        return layout.supplier_container(self.supplier)

    async def event(self, name: str) -> BlobCreated:
        found = await self.blobs.properties(self.container, name)
        assert found is not None
        return event_of(self.container, found)

    async def told(self, event: BlobCreated) -> list[Message]:
        outcome = await self.ingest(event, Context(envelope=Envelope(message=event)))
        assert isinstance(outcome, Done)
        return [one.message for one in outcome.publish]

    async def upload(self, name: str, data: bytes) -> list[Message]:
        await self.blobs.write(self.container, name, data, "text/plain")
        return await self.told(await self.event(name))

    async def manifests(self) -> dict[str, ManifestFacts]:
        (run,) = await self.ledger.runs(self.supplier)
        contents = await self.ledger.contents(run.run_id)
        return {row.blob_name: row.manifest for row in contents.manifests if row.manifest}


@pytest.fixture
async def bench(blob_settings: BlobSettings, ledger_settings: LedgerSettings, supplier: str) -> AsyncIterator[Bench]:
    settings = IngestSettings(
        bus=BusSettings(connection=Secret("unused")),
        consumer=ConsumerSettings(),
        blobs=blob_settings,
        ledger=ledger_settings,
    )
    async with Blobs(blob_settings) as blobs, Ledger(ledger_settings) as ledger, Validator(1) as validator:
        for container in (layout.supplier_container(supplier), layout.RESULTS):
            await blobs.create_container(container)
        await ledger.create_tables()
        ingest = Ingest(blobs=blobs, ledger=ledger, check=validator.check, clock=lambda: NOW, settings=settings)
        yield Bench(ingest, blobs, ledger, supplier)


async def test_a_manifest_is_stored_in_our_own_form_and_asks_for_a_look_in_every_repeat(bench: Bench) -> None:
    names = ["a.jpg", "=cmd|' /C calc'!A0", "\u202egpj.exe", "ünder.jpg"]
    told = await bench.upload("van7/manifest.json", json.dumps(names).encode())
    (run,) = await bench.ledger.runs(bench.supplier)
    look = manifest_check(run.run_id, bench.supplier, NOW)
    opened = RunCheck(run_id=run.run_id, supplier=bench.supplier)
    assert told == [look, opened], "it opened the run"
    [facts] = (await bench.manifests()).values()
    stored = await bench.blobs.read(layout.RESULTS, facts.names, max_bytes=10_000)
    assert msgspec.json.decode(stored)["names"] == [f"van7/{name}" for name in names]
    assert facts.listed == len(names)
    assert await bench.told(await bench.event("van7/manifest.json")) == told
    assert len(await bench.manifests()) == 1


async def test_no_hostile_manifest_stops_a_photo(bench: Bench, blob_settings: BlobSettings) -> None:
    hostile = {
        "manifest.json": (b"[" * 200_000, "manifest_malformed"),
        "manifest-1.json": (b" " * (MAX_BYTES + 1), "manifest_too_large"),
        "manifest-2.json": (b"", "manifest_no_names"),
        "manifest-3.csv": ("grün.jpg".encode("utf-16"), "manifest_wrong_encoding"),
        "manifest-4.csv": (b"../../etc/passwd\n", "manifest_bad_name"),
        "manifest-5.json": (b'["a.jpg","a.jpg"]', "manifest_repeated_name"),
        "manifest-6.csv": (b"PK\x03\x04" + bytes(range(256)), "manifest_wrong_encoding"),
    }
    for name, (data, _) in hostile.items():
        assert [one for one in await bench.upload(name, data) if isinstance(one, RunCheck) and one.manifest] == []
    async with BlobServiceClient.from_connection_string(blob_settings.connection.reveal()) as service:
        await service.get_blob_client(bench.container, "manifest-7.json").create_page_blob(size=2**40)
    await bench.told(await bench.event("manifest-7.json"))
    event = await bench.event("manifest.json")
    await bench.blobs.delete(bench.container, "manifest.json")
    gone = msgspec.structs.replace(event, data=msgspec.structs.replace(event.data, e_tag="0x1"))
    await bench.told(gone)
    accepted = [one for one in await bench.upload("a.jpg", photo(1)) if isinstance(one, ImageAccepted)]
    assert len(accepted) == 1
    found = await bench.manifests()
    expected = {name: reason for name, (_, reason) in hostile.items()} | {"manifest-7.json": "manifest_unreadable"}
    (run,) = await bench.ledger.runs(bench.supplier)
    refused = [row.manifest.refused for row in (await bench.ledger.contents(run.run_id)).manifests if row.manifest]
    assert sorted(refused) == sorted([*expected.values(), "manifest_unreadable"])
    assert {name: facts.refused for name, facts in found.items() if name != "manifest.json"} == {
        name: reason for name, reason in expected.items() if name != "manifest.json"
    }


async def test_a_picture_that_is_called_a_manifest_is_a_picture(bench: Bench) -> None:
    told = await bench.upload("manifest.json", photo(1))
    assert any(isinstance(one, ImageAccepted) for one in told)
    [rejected] = [one for one in await bench.upload("manifest.csv", photo(2)[:-200]) if isinstance(one, ImageRejected)]
    assert rejected.reason.value == "damaged"
