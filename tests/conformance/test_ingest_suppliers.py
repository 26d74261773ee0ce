"""Ingest with suppliers' records on real storage: terms, quotas, suspension; the sweep brings back what was held."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from fusebus.blobs import Blobs, BlobSettings, layout
from fusebus.bus import BusSettings, ConsumerSettings, Context
from fusebus.contracts.envelope import Envelope
from fusebus.contracts.messages import BlobCreated, ImageAccepted, JobKind, Lane, Message, RunCheck, UploadsHeld
from fusebus.contracts.outcomes import Done, Outgoing
from fusebus.host import Secret
from fusebus.ingest.admission import Admission
from fusebus.ingest.handler import Ingest
from fusebus.ingest.settings import IngestSettings
from fusebus.ingest.sweep import Sweep
from fusebus.ledger import Ledger, LedgerSettings, SupplierRecord, SupplierState
from fusebus.validation import Validator
from fusebus.vision import encode_jpeg

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
REPEAT_SECONDS = 900.0


def photo(seed: int) -> bytes:
    """A small JPEG that no other seed makes."""
    coarse = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    return encode_jpeg(np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)))


@dataclass
class Delivery:
    """One supplier between storage, sweep and ingest; events are carried by hand, clocks are set."""

    blobs: Blobs
    ledger: Ledger
    supplier: str
    now: datetime = NOW
    passed: float = 0.0
    outbox: list[BlobCreated] = field(default_factory=list)

    async def publish(self, outgoing: Sequence[Outgoing]) -> None:
        found = [one.message for one in outgoing]
        self.outbox += [event for event in found if isinstance(event, BlobCreated) and self.supplier in event.subject]

    def wait(self, waited: timedelta) -> None:
        self.now += waited
        self.passed += waited.total_seconds()


@dataclass
class Bench:
    """What a test drives."""

    delivery: Delivery
    ingest: Ingest
    sweep: Sweep

    async def round(self) -> list[Message]:
        """One sweep of our container; what ingest says of each upload that was announced."""
        await self.sweep._whole(layout.supplier_container(self.delivery.supplier))
        told: list[Message] = []
        while self.delivery.outbox:
            event = self.delivery.outbox.pop(0)
            outcome = await self.ingest(event, Context(envelope=Envelope(message=event)))
            assert isinstance(outcome, Done)
            told += [one.message for one in outcome.publish if not isinstance(one.message, RunCheck)]
        return told

    async def upload(self, number: int) -> None:
        box = layout.supplier_container(self.delivery.supplier)
        await self.delivery.blobs.write(box, f"{number}.jpg", photo(number), "image/jpeg")


@pytest.fixture
async def bench(blob_settings: BlobSettings, ledger_settings: LedgerSettings, supplier: str) -> AsyncIterator[Bench]:
    settings = IngestSettings(
        bus=BusSettings(connection=Secret("unused")),
        consumer=ConsumerSettings(),
        blobs=blob_settings,
        ledger=ledger_settings,
        sweep_repeat_seconds=REPEAT_SECONDS,
    )
    async with Blobs(blob_settings) as blobs, Ledger(ledger_settings) as ledger, Validator(1) as validator:
        await blobs.create_container(layout.supplier_container(supplier))
        await ledger.create_tables()
        delivery = Delivery(blobs, ledger, supplier)
        admission = Admission(
            ledger=ledger,
            blobs=blobs,
            clock=lambda: delivery.now,
            refresh_seconds=10.0,
            monotonic=lambda: delivery.passed,
        )
        ingest = Ingest(
            blobs=blobs,
            ledger=ledger,
            check=validator.check,
            clock=lambda: delivery.now,
            settings=settings,
            admission=admission,
        )
        sweep = Sweep(
            blobs=blobs,
            ledger=ledger,
            publisher=delivery,
            settings=settings,
            held=admission.still_holds,
            clock=lambda: datetime.now(UTC) + timedelta(hours=1),
            monotonic=lambda: delivery.passed,
        )
        yield Bench(delivery, ingest, sweep)


def record(supplier: str, **terms: object) -> SupplierRecord:
    return SupplierRecord(name=supplier, added_at=NOW, changed_at=NOW, changed_by="me", **terms)  # type: ignore[arg-type]


async def test_a_suppliers_terms_are_those_of_its_images_for_good(bench: Bench) -> None:
    delivery = bench.delivery
    terms = record(delivery.supplier, job_kind=JobKind.CONVERT, lane=Lane.URGENT, deadline_seconds=60.0)
    await delivery.ledger.add_supplier(terms)
    await bench.upload(1)
    await bench.sweep._whole(layout.supplier_container(delivery.supplier))
    (event,) = delivery.outbox
    (first,) = await bench.round()
    assert isinstance(first, ImageAccepted)
    assert (first.job_kind, first.lane, first.deadline - first.accepted_at) == (
        "convert",
        "urgent",
        timedelta(minutes=1),
    )
    delivery.wait(timedelta(minutes=1))
    await delivery.ledger.change_supplier(delivery.supplier, delivery.now, "me", lane=Lane.BULK)
    delivery.outbox.append(event)
    assert await bench.round() == [first], "a repeat says the same"


async def test_what_is_beyond_the_quota_waits_for_the_next_day_and_is_never_lost(bench: Bench) -> None:
    delivery = bench.delivery
    await delivery.ledger.add_supplier(record(delivery.supplier, images_per_day=2, email="a@b.example"))
    for number in range(5):
        await bench.upload(number)
    told = await bench.round()
    held = [one for one in told if isinstance(one, UploadsHeld)]
    assert (len(told) - len(held), len(held), held[0].email) == (2, 3, "a@b.example")
    assert len(await delivery.ledger.held_uploads(delivery.supplier)) == 3
    delivery.wait(timedelta(seconds=2 * REPEAT_SECONDS))
    assert await bench.round() == [], "the sweep leaves them alone"
    for day in (1, 2):
        delivery.wait(timedelta(days=1))
        told = await bench.round()
        assert sum(isinstance(one, ImageAccepted) for one in told) == (2 if day == 1 else 1)
    assert await delivery.ledger.held_uploads(delivery.supplier) == []


async def test_a_suspended_suppliers_uploads_are_taken_once_it_is_resumed(bench: Bench) -> None:
    delivery, ledger = bench.delivery, bench.delivery.ledger
    await ledger.add_supplier(record(delivery.supplier, state=SupplierState.SUSPENDED))
    await bench.upload(1)
    (told,) = await bench.round()
    assert isinstance(told, UploadsHeld) and (told.because, told.until) == ("suspended", None)
    assert await ledger.runs() == [], "nothing of it is in a run"
    delivery.wait(timedelta(days=30))
    assert await bench.round() == []
    await ledger.change_supplier(delivery.supplier, delivery.now, "me", state=SupplierState.ACTIVE)
    delivery.wait(timedelta(seconds=REPEAT_SECONDS))
    (told,) = await bench.round()
    assert isinstance(told, ImageAccepted)
