"""A flood of one supplier and another's ten: the whole ingest between storage and a real broker."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from fusebus.arrivals import event_of
from fusebus.blobs import Blobs, BlobSettings, layout
from fusebus.bus import Bus, BusSettings, ConsumerSettings, Context
from fusebus.contracts.messages import ImageAccepted
from fusebus.contracts.outcomes import Done, Outcome, Outgoing
from fusebus.contracts.topology import broker_configuration, upload_lane
from fusebus.host import Health, HealthSettings, Life, Secret
from fusebus.ingest.__main__ import main
from fusebus.ingest.settings import IngestSettings
from fusebus.ledger import Ledger, LedgerSettings
from fusebus.vision import encode_jpeg

FLOOD, FEW = 60, 10
ASIDE_AFTER = 15


def photo(seed: int) -> bytes:
    """A small JPEG that no other seed makes."""
    coarse = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    return encode_jpeg(np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)))


@dataclass
class Place:
    """Ingest with its neighbours; what it accepts is remembered in its order."""

    blobs: Blobs
    bus: Bus
    accepted: list[str] = field(default_factory=list)
    """Suppliers."""

    async def __call__(self, message: ImageAccepted, context: Context) -> Outcome:
        self.accepted.append(message.supplier)
        return Done()

    async def events(self, supplier: str, count: int) -> list[Outgoing]:
        box = layout.supplier_container(supplier)
        await self.blobs.create_container(box)
        await asyncio.gather(
            *(self.blobs.write(box, f"{n}.jpg", photo(n + len(supplier)), "image/jpeg") for n in range(count))
        )
        found = [await self.blobs.properties(box, f"{n}.jpg") for n in range(count)]
        return [Outgoing(message=event_of(box, one)) for one in found if one is not None]

    async def until(self, supplier: str, count: int) -> None:
        async with asyncio.timeout(120):
            while self.accepted.count(supplier) < count:
                await asyncio.sleep(0.02)


@pytest.fixture
async def place(
    start_broker: Any, blob_settings: BlobSettings, ledger_settings: LedgerSettings
) -> AsyncIterator[Place]:
    broker = start_broker(broker_configuration(lock_seconds=30.0))
    bus_settings = BusSettings(
        connection=Secret(broker.connection_string), ca_file=str(broker.ca_path), close_seconds=0.1
    )
    settings = IngestSettings(
        bus=bus_settings,
        consumer=ConsumerSettings(idle_wait_seconds=0.2),
        blobs=blob_settings,
        ledger=ledger_settings,
        sweep_interval_seconds=0.0,
        run_quiet_seconds=3600.0,
        aside_after=ASIDE_AFTER,
    )
    life = Life(Health(HealthSettings(port=0)))
    async with Blobs(blob_settings) as blobs, Ledger(ledger_settings) as ledger, Bus(bus_settings) as bus:
        await ledger.create_tables()
        found = Place(blobs, bus)
        running = [
            asyncio.create_task(main(settings, life)),
            asyncio.create_task(bus.consume("images", "detect", found, stop=life.stop, slots=32)),
        ]
        try:
            yield found
        finally:
            life.stop.set()
            await asyncio.gather(*running)


def other_than(supplier: str, same_lane: bool) -> str:
    """Another supplier that shares its lane, or does not."""
    names = (f"b{secrets.token_hex(6)}" for _ in itertools.count())
    return next(name for name in names if (upload_lane(name) == upload_lane(supplier)) is same_lane)


@pytest.mark.parametrize(
    ("same_lane", "most"),
    [(False, 25), pytest.param(True, ASIDE_AFTER + 35, marks=pytest.mark.long)],
    ids=["in another lane", "in the same lane"],
)
async def test_another_suppliers_ten_pass_a_flood(place: Place, supplier: str, same_lane: bool, most: int) -> None:
    few = other_than(supplier, same_lane)
    flood, ten = await place.events(supplier, FLOOD), await place.events(few, FEW)
    await place.bus.publisher().publish(flood)
    await place.bus.publisher().publish(ten)
    await place.until(few, FEW)
    before = place.accepted.index(few)
    last = len(place.accepted) - 1 - place.accepted[::-1].index(few)
    meanwhile = last + 1 - FEW
    assert meanwhile <= most, f"{meanwhile} of the flood were done before the other's ten, {before} before its first"
    await place.until(supplier, FLOOD)
    assert place.accepted.count(supplier) == FLOOD, "and all of the flood is done too, once"
