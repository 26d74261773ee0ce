"""Ingest on real storage with real images, and its whole process between storage and a real broker."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest
from azure.storage.blob.aio import BlobServiceClient

from fusebus.arrivals import event_of
from fusebus.blobs import Blobs, BlobSettings, layout
from fusebus.bus import Bus, BusSettings, ConsumerSettings, Context, Publisher, PublishFailed
from fusebus.contracts.envelope import Envelope
from fusebus.contracts.messages import (
    BlobCreated,
    DuplicateFound,
    ImageAccepted,
    ImageRejected,
    Message,
    RejectReason,
    RunCheck,
)
from fusebus.contracts.outcomes import Done
from fusebus.contracts.topology import broker_configuration
from fusebus.host import Health, HealthSettings, Life, Secret
from fusebus.ingest.__main__ import main
from fusebus.ingest.handler import Ingest
from fusebus.ingest.settings import IngestSettings
from fusebus.ledger import Final, FinalKind, Ledger, LedgerSettings
from fusebus.stack.azurite import Azurite
from fusebus.validation import Validator
from fusebus.vision import encode_jpeg

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
MAX_BYTES = 200_000


def photo(seed: int) -> bytes:
    """A small JPEG that no other seed makes."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 255, (12, 16, 3), dtype=np.uint8)
    return encode_jpeg(np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)))


@pytest.fixture
def settings(blob_settings: BlobSettings, ledger_settings: LedgerSettings) -> IngestSettings:
    return IngestSettings(
        bus=BusSettings(connection=Secret("unused")),
        consumer=ConsumerSettings(),
        blobs=blob_settings,
        ledger=ledger_settings,
        max_blob_bytes=MAX_BYTES,
        run_quiet_seconds=3600.0,
        sweep_interval_seconds=0.2,
    )


@dataclass
class Bench:
    """A handler on real storage."""

    ingest: Ingest
    blobs: Blobs
    ledger: Ledger
    container: str

    async def upload(self, name: str, content: bytes) -> BlobCreated:
        await self.blobs.write(self.container, name, content, "image/jpeg")
        return await self.event(name)

    async def event(self, name: str) -> BlobCreated:
        found = await self.blobs.properties(self.container, name)
        assert found is not None
        return event_of(self.container, found)

    async def told(self, event: BlobCreated) -> list[Message]:
        outcome = await self.ingest(event, Context(envelope=Envelope(message=event, upload_lane="0")))
        assert isinstance(outcome, Done)
        return [one.message for one in outcome.publish if not isinstance(one.message, RunCheck)]


@pytest.fixture
async def bench(settings: IngestSettings, supplier: str) -> AsyncIterator[Bench]:
    container = layout.supplier_container(supplier)
    async with Blobs(settings.blobs) as blobs, Ledger(settings.ledger) as ledger, Validator(1) as validator:
        await blobs.create_container(container)
        await ledger.create_tables()
        ingest = Ingest(blobs=blobs, ledger=ledger, check=validator.check, clock=lambda: NOW, settings=settings)
        yield Bench(ingest, blobs, ledger, container)


async def test_a_photo_is_accepted_pinned_and_entered(bench: Bench) -> None:
    event = await bench.upload("photo.txt", photo(1))
    (message,) = await bench.told(event)
    assert isinstance(message, ImageAccepted)
    assert (message.width, message.height, message.format) == (128, 96, "jpeg")
    assert await bench.blobs.read(bench.container, "photo.txt", etag=message.blob.etag, max_bytes=MAX_BYTES) == photo(1)
    (run,) = await bench.ledger.runs()
    (upload,) = await bench.ledger.uploads(run.run_id)
    assert (upload.upload_id, upload.image and upload.image.image_id) == (message.upload_id, message.image_id)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", RejectReason.EMPTY),
        (b"x" * (MAX_BYTES + 1), RejectReason.TOO_LARGE),
        (b"%PDF-1.7 not a photo", RejectReason.NOT_AN_IMAGE),
        (photo(2)[:-200], RejectReason.DAMAGED),
        (photo(2)[:20], RejectReason.DAMAGED),
        (
            b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\x00\x00\xff\xff\x00\x00\xff\xff\x08\x02\x00\x00\x00" + b"\x00" * 16,
            RejectReason.TOO_MANY_PIXELS,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_no_photo_is_rejected_by_its_bytes(bench: Bench, content: bytes, reason: RejectReason) -> None:
    (message,) = await bench.told(await bench.upload("photo.jpg", content))
    assert isinstance(message, ImageRejected)
    assert (message.reason, message.explanation[-1]) == (reason, ".")


async def test_page_and_append_blobs_are_rejected_unread(bench: Bench, azurite: Azurite) -> None:
    async with BlobServiceClient.from_connection_string(azurite.connection_string) as service:
        await service.get_blob_client(bench.container, "page").create_page_blob(size=2**40)
        await service.get_blob_client(bench.container, "append").create_append_blob()
    for name in ("page", "append"):
        (message,) = await bench.told(await bench.event(name))
        assert isinstance(message, ImageRejected) and message.reason is RejectReason.BLOB_TYPE


async def test_a_blob_deleted_or_replaced_since_its_event_is_rejected_for_that(bench: Bench, azurite: Azurite) -> None:
    gone, old = await bench.upload("gone", photo(1)), await bench.upload("kept", photo(2))
    new = await bench.upload("kept", photo(3))
    async with BlobServiceClient.from_connection_string(azurite.connection_string) as service:
        await service.get_blob_client(bench.container, "gone").delete_blob()
    verdicts = [(await bench.told(event))[0] for event in (gone, old, new)]
    assert [getattr(one, "reason", None) for one in verdicts] == ["blob_vanished", "blob_changed", None]
    (run,) = await bench.ledger.runs()
    assert len(await bench.ledger.uploads(run.run_id)) == 3, "every upload has a row, the rejected ones too"


async def test_a_kill_between_ledger_and_publish_changes_nothing_in_what_is_published(bench: Bench) -> None:
    events = [await bench.upload(f"{n}", photo(n // 2)) for n in range(6)]
    killed = [await bench.told(event) for event in events]  # never published
    repeated = [await bench.told(event) for event in events]
    assert repeated == killed
    assert Counter(type(told[0]) for told in repeated) == {ImageAccepted: 3, DuplicateFound: 3}


async def test_the_same_photo_delivered_at_once_by_many_is_analysed_once(bench: Bench) -> None:
    events = [await bench.upload(f"{n}", photo(1)) for n in range(8)]
    told = [one for told in await asyncio.gather(*(bench.told(event) for event in events)) for one in told]
    (accepted,) = [one for one in told if isinstance(one, ImageAccepted)]
    duplicates = [one for one in told if isinstance(one, DuplicateFound)]
    assert [one.duplicate_of for one in duplicates] == [accepted.upload_id] * 7


async def test_a_failed_image_is_taken_over_by_its_next_upload_in_a_later_run(bench: Bench) -> None:
    first = await bench.upload("first", photo(1))
    (accepted,) = await bench.told(first)
    assert isinstance(accepted, ImageAccepted)
    failed = Final(kind=FinalKind.FAILED, at=NOW, reason="gave_up")
    await bench.ledger.record_final(accepted.run_id, accepted.upload_id, failed)
    await bench.ledger.close_run(accepted.run_id, NOW)
    (again,) = await bench.told(await bench.upload("second", photo(1)))
    assert isinstance(again, ImageAccepted)
    assert again.run_id != accepted.run_id
    (third,) = await bench.told(await bench.upload("third", photo(1)))
    assert isinstance(third, DuplicateFound)
    assert (third.duplicate_of, third.duplicate_of_run) == (again.upload_id, again.run_id)
    assert await bench.told(first) == []


@dataclass
class Topics:
    """What arrived of our supplier on the topics behind ingest; the sweep finds other tests' containers too."""

    images: list[Any]
    results: list[Any]


@pytest.fixture
async def running(
    settings: IngestSettings, bench: Bench, start_broker: Any, supplier: str
) -> AsyncIterator[tuple[Topics, Life, asyncio.Task[None]]]:
    """The whole process on a broker with short locks; ends with the test."""
    broker = start_broker(broker_configuration(lock_seconds=3.0))
    bus_settings = BusSettings(
        connection=Secret(broker.connection_string), ca_file=str(broker.ca_path), close_seconds=0.1
    )
    quick = ConsumerSettings(idle_wait_seconds=0.2, retry_seconds=0.1)
    life = Life(Health(HealthSettings(port=0)))
    topics = Topics([], [])

    def keep(where: list[Any]) -> Any:
        async def handler(message: Message, context: Context) -> Done:
            if getattr(message, "supplier", "") == supplier:
                where.append(message)
            return Done()

        return handler

    async with Bus(bus_settings) as bus:
        running = asyncio.create_task(main(msgspec.structs.replace(settings, bus=bus_settings, consumer=quick), life))
        readers = [
            asyncio.create_task(bus.consume(topic, name, keep(where), stop=life.stop, settings=quick))
            for topic, name, where in (("images", "detect", topics.images), ("results", "notifier", topics.results))
        ]
        try:
            yield topics, life, running
        finally:
            life.stop.set()
            await ended(running, *readers)


async def ended(*tasks: asyncio.Task[None], seconds: float = 60.0) -> None:
    """Waits for them; after `seconds` it fails with what every task waits for."""
    _, left = await asyncio.wait(tasks, timeout=seconds)
    if left:
        for task in asyncio.all_tasks():
            task.print_stack(file=sys.stdout)
        for task in left:
            task.cancel()
        pytest.fail(f"{len(left)} of {len(tasks)} did not end within {seconds:.0f} s")
    await asyncio.gather(*tasks)


async def until(condition: Any, seconds: float = 90.0) -> None:
    """Poll; fails after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


async def test_uploads_are_found_and_announced_once_each_and_the_process_ends_when_told(
    bench: Bench, running: tuple[Topics, Life, asyncio.Task[None]]
) -> None:
    topics, life, process = running
    for number in range(5):
        await bench.blobs.write(bench.container, f"{number}.jpg", photo(number), "image/jpeg")
    await bench.blobs.write(bench.container, "again.jpg", photo(0), "image/jpeg")
    await bench.blobs.write(bench.container, "notes.txt", b"hello", "text/plain")
    await until(lambda: len(topics.images) == 5 and len(topics.results) == 2)
    await asyncio.sleep(1.0)  # several rounds of the sweep: nothing is announced twice
    assert len(topics.images) == 5
    assert sorted(type(one).__name__ for one in topics.results) == ["DuplicateFound", "ImageRejected"]
    life.stop.set()
    async with asyncio.timeout(60):
        await process


async def test_a_publish_that_fails_is_repeated_by_the_redelivery_with_the_same_words(
    bench: Bench,
    supplier: str,
    running: tuple[Topics, Life, asyncio.Task[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topics, *_ = running
    real, failures = Publisher.send, Counter[str]()

    async def failing_once(self: Publisher, parcels: Any, **more: Any) -> None:
        messages = [parcel.envelope.message for parcel in parcels]
        if not failures and any(isinstance(one, ImageAccepted) and one.supplier == supplier for one in messages):
            failures["images"] += 1
            raise PublishFailed("cut off after the ledger was written")
        await real(self, parcels, **more)

    monkeypatch.setattr(Publisher, "send", failing_once)
    await bench.blobs.write(bench.container, "photo.jpg", photo(1), "image/jpeg")
    await until(lambda: len(topics.images) == 1)
    assert failures["images"] == 1
    assert topics.results == []
    (run,) = await bench.ledger.runs(supplier)
    (upload,) = await bench.ledger.uploads(run.run_id)
    assert topics.images[0].upload_id == upload.upload_id
    assert topics.images[0].accepted_at - upload.entered_at < timedelta(milliseconds=1)
