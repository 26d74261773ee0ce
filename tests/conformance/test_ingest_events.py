"""Events as they come from outside, on real storage and a real broker: both schemas, arrays, repeats, any order."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient
from azure.storage.blob.aio import BlobServiceClient

from fusebus.arrivals import Listing
from fusebus.blobs import BlobChanged, Blobs, BlobSettings, BlobVanished, layout, read_accepted
from fusebus.bus import Bus, BusSettings, ConsumerSettings, Context
from fusebus.contracts.messages import BlobReference, Message
from fusebus.contracts.outcomes import Done
from fusebus.contracts.topology import TOPICS, broker_configuration
from fusebus.host import Health, HealthSettings, Life, Secret
from fusebus.ingest.__main__ import main
from fusebus.ingest.settings import IngestSettings
from fusebus.ledger import Ledger, LedgerSettings, UploadRow
from fusebus.stack.azurite import Azurite
from fusebus.vision import encode_jpeg

MOST = 1_000_000
LANES = [one.name for topic in TOPICS if topic.name == "uploads" for one in topic.subscriptions]


def photo(seed: int) -> bytes:
    """A small JPEG that no other seed makes."""
    coarse = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    return encode_jpeg(np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)))


def cloud_event(container: str, name: str, etag: str, kind: str = "BlobCreated", **data: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "type": f"Microsoft.Storage.{kind}",
        "source": "/subscriptions/s/storageAccounts/a",
        "id": f"{name}-{etag}",
        "time": "2026-05-06T07:08:09.1234567Z",
        "subject": f"/blobServices/default/containers/{container}/blobs/{name}",
        "data": {"api": "PutBlob", "eTag": etag, "blobType": "BlockBlob", **data},
    }


def grid_event(container: str, name: str, etag: str) -> dict[str, Any]:
    event = cloud_event(container, name, etag)
    return {
        "topic": event["source"],
        "eventType": event["type"],
        "eventTime": event["time"],
        "dataVersion": "",
        "metadataVersion": "1",
        **{key: event[key] for key in ("id", "subject", "data")},
    }


@dataclass
class World:
    """A running ingest without a sweep, and what it says of our supplier."""

    blobs: Blobs
    ledger: Ledger
    container: str
    connection: dict[str, Any]
    bus: Bus
    told: dict[str, Message] = field(default_factory=dict)
    """By upload."""
    times: Counter[str] = field(default_factory=Counter)

    async def upload(self, name: str, content: bytes) -> str:
        """The new blob's ETag."""
        await self.blobs.write(self.container, name, content, "image/jpeg")
        found = await self.blobs.properties(self.container, name)
        assert found is not None
        return found.etag

    async def send(self, *bodies: object) -> None:
        """As Event Grid does: no application properties, and an id of its own for each message."""
        async with (
            ServiceBusClient.from_connection_string(**self.connection) as client,
            client.get_topic_sender("uploads") as sender,
        ):
            await sender.send_messages([ServiceBusMessage(json.dumps(body).encode()) for body in bodies])

    async def dead_letters(self) -> Counter[str]:
        """Of the topic `uploads`, by reason."""
        found = [await self.bus.peek_dead_letters("uploads", lane) for lane in LANES]
        return Counter(letter.reason for letters in found for letter in letters)

    async def finals(self, count: int, seconds: float = 120.0) -> dict[str, str]:
        """What was said of each blob, by its name and ETag, once `count` uploads are entered and the topic is empty."""
        async with asyncio.timeout(seconds):
            rows: list[UploadRow] = []
            while len(rows) < count or not {row.upload_id for row in rows} <= self.told.keys() or await self._waits():
                await asyncio.sleep(0.1)
                rows = [row for run in await self.ledger.runs() for row in await self.ledger.uploads(run.run_id)]
        said = {row.blob_name: self.told[row.upload_id] for row in rows}
        return {name: getattr(one, "reason", type(one).__name__) for name, one in said.items()}

    async def _waits(self) -> bool:
        depths = await asyncio.gather(*(self.bus.depth("uploads", lane) for lane in LANES))
        return any(depth is None or depth.active for depth in depths)


@pytest.fixture
async def world(
    blob_settings: BlobSettings, ledger_settings: LedgerSettings, start_broker: Any, supplier: str
) -> AsyncIterator[World]:
    broker = start_broker(broker_configuration(lock_seconds=5.0))
    bus_settings = BusSettings(
        connection=Secret(broker.connection_string), ca_file=str(broker.ca_path), close_seconds=0.1
    )
    consumer = ConsumerSettings(idle_wait_seconds=0.2, retry_seconds=0.1)
    settings = IngestSettings(
        bus=bus_settings,
        consumer=consumer,
        blobs=blob_settings,
        ledger=ledger_settings,
        sweep_interval_seconds=0.0,
        storage_retry_seconds=0.2,
    )
    life = Life(Health(HealthSettings(port=0)))
    connection = {"conn_str": broker.connection_string, "connection_verify": str(broker.ca_path)}
    async with Bus(bus_settings) as bus, Blobs(blob_settings) as blobs, Ledger(ledger_settings) as ledger:
        await ledger.create_tables()
        found = World(blobs, ledger, layout.supplier_container(supplier), connection, bus)
        await blobs.create_container(found.container)

        async def keep(message: Message, context: Context) -> Done:
            if upload_id := getattr(message, "upload_id", ""):
                found.told[upload_id] = message
                found.times[upload_id] += 1
            return Done()

        tasks = [
            asyncio.create_task(bus.consume(topic, name, keep, stop=life.stop, settings=consumer))
            for topic, name in (("images", "detect"), ("results", "notifier"))
        ]
        tasks.append(asyncio.create_task(main(settings, life)))
        try:
            yield found
        finally:
            life.stop.set()
            await asyncio.gather(*tasks)


async def test_events_in_both_schemas_in_arrays_twice_and_in_any_order_end_each_upload_once(world: World) -> None:
    names = [f"van 7/Zählerschrank {number}.jpg" for number in range(12)]
    etags = [await world.upload(name, photo(number)) for number, name in enumerate(names)]
    events = [
        (grid_event if number % 2 else cloud_event)(world.container, name, etag)
        for number, (name, etag) in enumerate(zip(names, etags, strict=True))
    ]
    deleted = cloud_event(world.container, names[0], "0x1", "BlobDeleted")
    bodies: list[object] = [events[:5], events[3:9], [*events[8:], deleted], *events[::2], deleted, events[:1]]
    random.Random(7).shuffle(bodies)
    await world.send(*bodies)
    finals = await world.finals(len(names))
    assert finals == dict.fromkeys(names, "ImageAccepted")
    assert set(world.times.values()) == {1}
    assert not await world.dead_letters()


async def test_events_of_what_is_not_there_was_renamed_or_is_no_file_of_a_photo_are_told_or_dead_letters(
    world: World, azurite: Azurite
) -> None:
    old = await world.upload("replaced", photo(1))
    new = await world.upload("replaced", photo(2))
    renamed = await world.upload("before", photo(3))
    async with BlobServiceClient.from_connection_string(azurite.connection_string) as service:
        page = (await service.get_blob_client(world.container, "page").create_page_blob(size=2**42))["etag"].strip('"')
        append = (await service.get_blob_client(world.container, "app").create_append_blob())["etag"].strip('"')
        before = service.get_blob_client(world.container, "before")
        copied = await service.get_blob_client(world.container, "after").start_copy_from_url(before.url)
        await before.delete_blob()
    container = world.container
    await world.send(
        [
            cloud_event(container, "replaced", old),
            cloud_event(container, "replaced", new),
            cloud_event(container, "before", renamed),
            cloud_event(container, "before", renamed, "BlobRenamed"),
            cloud_event(container, "after", str(copied["etag"]).strip('"'), api="CopyBlob"),
            cloud_event(container, "never", "0x123"),
            cloud_event(container, "page", page, blobType="PageBlob", contentLength=2**42),
            cloud_event(container, "app", append, blobType="BlockBlob"),
            cloud_event("in-no-such-supplier", "x", "0x1"),
            cloud_event("results", "report/x/index.html", "0x1"),
            {"specversion": "1.0", "type": "Microsoft.Storage.BlobCreated"},
        ],
        {"eventType": "Contoso.Items.ItemReceived"},
    )
    finals = await world.finals(7)
    assert finals.pop("replaced") in ("blob_changed", "ImageAccepted")
    assert finals == {
        "before": "blob_vanished",
        "after": "ImageAccepted",
        "never": "blob_vanished",
        "page": "blob_type",
        "app": "blob_type",
    }
    assert len(await world.ledger.runs()) == 1
    dead = Counter[str]()
    async with asyncio.timeout(120):
        while len(dead) < 4:
            dead = await world.dead_letters()
            await asyncio.sleep(0.05)
    assert dead == {"no_container": 1, "not_a_supplier": 1, "unreadable_events": 1, "undecodable": 1}


async def test_what_was_accepted_is_read_while_its_bytes_are_the_same_and_nothing_else_is(
    blob_settings: BlobSettings, supplier: str, azurite: Azurite
) -> None:
    container = layout.supplier_container(supplier)
    async with (
        Blobs(blob_settings) as blobs,
        BlobServiceClient.from_connection_string(azurite.connection_string) as service,
    ):
        await blobs.create_container(container)
        await blobs.write(container, "a", b"photo", "image/jpeg")
        found = await blobs.properties(container, "a")
        assert found is not None
        sha256 = hashlib.sha256(b"photo").hexdigest()
        reference = BlobReference(container=container, name="a", etag=found.etag, sha256=sha256, size=5)
        assert await read_accepted(blobs, reference, MOST) == b"photo"
        await service.get_blob_client(container, "a").set_blob_metadata({"seen": "yes"})
        assert await read_accepted(blobs, reference, MOST) == b"photo"
        await blobs.write(container, "a", b"photo", "image/jpeg")
        assert await read_accepted(blobs, reference, MOST) == b"photo"
        for other in (b"phot0", b"a longer photo", b""):
            await blobs.write(container, "a", other, "image/jpeg")
            with pytest.raises(BlobChanged):
                await read_accepted(blobs, reference, 5)
        await blobs.delete(container, "a")
        with pytest.raises(BlobVanished):
            await read_accepted(blobs, reference, MOST)


async def test_a_name_that_azurite_cannot_say_hides_no_photo_from_the_listing(
    blob_settings: BlobSettings, supplier: str
) -> None:
    container = layout.supplier_container(supplier)
    names = ["e", "evil.jpg", "van 7/1.jpg", "übersicht.png", "zz"]
    async with Blobs(msgspec.structs.replace(blob_settings, retries=0)) as blobs:
        await blobs.create_container(container)
        for name in (*names, "e\x00.jpg"):
            await blobs.write(container, name, b"x", "image/jpeg")
        listing = Listing(blobs, container)
        found = [blob.name async for blob in listing]
        await blobs.delete(container, "e\x00.jpg")  # other tests sweep the same account
        assert sorted(found) == sorted(names)
        assert listing.hidden == ["e"]
        assert "500" in listing.why
