"""A flood of one supplier and another's ten: the whole ingest between storage and a real broker."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient

from fusebus.arrivals import event_of
from fusebus.blobs import Blobs, BlobSettings, layout
from fusebus.bus import Bus, BusSettings, ConsumerSettings, Context
from fusebus.contracts.messages import BlobCreated, ImageAccepted
from fusebus.contracts.outcomes import Done, Outcome, Outgoing
from fusebus.contracts.topology import broker_configuration
from fusebus.host import Health, HealthSettings, Life, Secret
from fusebus.ingest.__main__ import main
from fusebus.ingest.settings import IngestSettings
from fusebus.ledger import Ledger, LedgerSettings
from fusebus.vision import encode_jpeg

FEW = 10


def photo(seed: int) -> bytes:
    """A small JPEG that no other seed makes."""
    coarse = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    return encode_jpeg(np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)))


@dataclass
class Place:
    """Ingest with its neighbours; what it accepts is remembered in its order."""

    blobs: Blobs
    bus: Bus
    connection: str
    """Of the broker."""
    settings: IngestSettings
    accepted: list[str] = field(default_factory=list)
    """Suppliers."""
    begin: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when all events are there, so that how fast they come decides nothing."""

    async def ingest(self, service: Coroutine[Any, Any, None]) -> None:
        await self.begin.wait()
        await service

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

    async def send_as_event_grid_does(self, events: list[Outgoing]) -> None:
        """Without a lane."""
        await self._send(events, None)

    async def send_in_a_session(self, events: list[Outgoing]) -> None:
        """As Event Grid does where the supplier has an event subscription of its own."""
        event = events[0].message
        assert isinstance(event, BlobCreated)
        await self._send(events, event.container)

    async def _send(self, events: list[Outgoing], session: str | None) -> None:
        async with (
            ServiceBusClient.from_connection_string(self.connection) as client,
            client.get_topic_sender("uploads") as sender,
        ):
            bodies = [msgspec.json.encode(one.message) for one in events]
            await sender.send_messages([ServiceBusMessage(body, session_id=session) for body in bodies])

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
    )
    life = Life(Health(HealthSettings(port=0)))
    async with Blobs(blob_settings) as blobs, Ledger(ledger_settings) as ledger, Bus(bus_settings) as bus:
        await ledger.create_tables()
        found = Place(blobs, bus, broker.connection_string, settings)
        listening = bus.consume("images", "detect", found, stop=life.stop, slots=32)
        running = [asyncio.create_task(listening), asyncio.create_task(found.ingest(main(settings, life)))]
        try:
            yield found
        finally:
            life.stop.set()
            found.begin.set()
            await asyncio.gather(*running)


@pytest.mark.parametrize(
    ("how", "crowd", "most"),
    [
        ("publish", 60, 30),
        ("send_in_a_session", 60, 30),
        pytest.param("send_as_event_grid_does", 200, 40, marks=pytest.mark.long),
    ],
    ids=["events that we sent", "events of a session each", "events without either"],
)
async def test_another_suppliers_ten_pass_a_flood(place: Place, supplier: str, how: str, crowd: int, most: int) -> None:
    few = f"b{secrets.token_hex(6)}"
    flood, ten = await place.events(supplier, crowd), await place.events(few, FEW)
    send = place.bus.publisher().publish if how == "publish" else getattr(place, how)
    await send(flood)
    await send(ten)
    await asyncio.sleep(place.settings.pile_seconds)  # as after an outage: a search doesn't begin before
    place.begin.set()
    await place.until(few, FEW)
    first, last = place.accepted.index(few), len(place.accepted) - 1 - place.accepted[::-1].index(few)
    before, meanwhile = (place.accepted[:end].count(supplier) for end in (first, last))
    assert meanwhile <= most, f"{meanwhile} of the flood were done before the other's ten, {before} before its first"
    await place.until(supplier, crowd)
    assert place.accepted.count(supplier) == crowd, "and all of the flood is done too, once"
