"""When photos are announced, on a real ledger: windows, people's word, and what the dispatcher sees of it before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

from fusebus.arrivals import event_of
from fusebus.blobs import Blobs, BlobSettings, layout
from fusebus.bus import BusSettings, ConsumerSettings, Context, Depth
from fusebus.contracts.envelope import Envelope
from fusebus.contracts.messages import BlobCreated, ImageAccepted, JobKind, Lane, ReleaseRun, RunCheck
from fusebus.contracts.outcomes import Done, Outgoing
from fusebus.costs.settings import CostSettings
from fusebus.dispatcher.errors import FleetError
from fusebus.dispatcher.eyes import Eyes
from fusebus.dispatcher.settings import DispatcherSettings
from fusebus.host import Secret
from fusebus.ingest.admission import Admission
from fusebus.ingest.coming import Coming
from fusebus.ingest.handler import Ingest
from fusebus.ingest.schedule import Schedule
from fusebus.ingest.settings import IngestSettings
from fusebus.ledger import Final, FinalKind, Ledger, LedgerSettings, SupplierRecord
from fusebus.validation import Validator
from fusebus.vision import encode_jpeg

THREE = datetime(2026, 10, 24, 14, 0, tzinfo=UTC)  # in London, where the clocks go back that night
OPENS = datetime(2026, 10, 24, 19, 0, tzinfo=UTC)  # 20:00 there
HOUR = 3600.0


def photo(seed: int) -> bytes:
    """A small JPEG that no other seed makes."""
    coarse = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    return encode_jpeg(np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)))


@dataclass
class Bench:
    """Ingest on real storage, its clock and its events in our hands."""

    blobs: Blobs
    ledger: Ledger
    supplier: str
    settings: IngestSettings
    validator: Validator
    now: datetime = THREE

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """A new process: what was only in memory is gone."""
        clock = lambda: self.now  # noqa: E731
        self.coming = Coming(ledger=self.ledger, settings=self.settings, clock=clock)
        self.ingest = Ingest(
            blobs=self.blobs,
            ledger=self.ledger,
            check=self.validator.check,
            clock=clock,
            settings=self.settings,
            admission=Admission(ledger=self.ledger, blobs=self.blobs, clock=clock, refresh_seconds=0.0),
            schedule=Schedule(ledger=self.ledger, clock=clock, settings=self.settings, coming=self.coming),
        )

    async def upload(self, number: int) -> BlobCreated:
        box = layout.supplier_container(self.supplier)
        await self.blobs.write(box, f"{number}.jpg", photo(number), "image/jpeg")
        found = await self.blobs.properties(box, f"{number}.jpg")
        assert found is not None
        return event_of(box, found)

    async def told(self, message: BlobCreated | ReleaseRun) -> list[Outgoing]:
        outcome = await self.ingest(message, Context(envelope=Envelope(message=message)))
        assert isinstance(outcome, Done)
        return [one for one in outcome.publish if not isinstance(one.message, RunCheck)]

    async def terms(self, **terms: Any) -> None:
        record = SupplierRecord(name=self.supplier, added_at=THREE, changed_at=THREE, changed_by="me", **terms)
        assert await self.ledger.add_supplier(record)

    async def eyes(self) -> Eyes:
        """The dispatcher's, on this ledger."""
        settings = DispatcherSettings(
            bus=BusSettings(connection=Secret("unused")),
            blobs=self.settings.blobs,
            ledger=self.settings.ledger,
            costs=CostSettings(),
            batch_url="http://unused",
        )
        return Eyes(settings, _Quiet(), self.ledger, _Quiet())


class _Quiet:
    """Queues are empty, Batch does not answer."""

    async def depth(self, topic: str, subscription: str) -> Depth:
        return Depth(active=0, dead_letter=0, scheduled=0)

    async def receiving(self, topic: str, subscription: str) -> bool:
        return True

    async def read(self, pool: str) -> Any:
        raise FleetError("not asked")

    async def quota(self, *account: str) -> Any:
        raise FleetError("not asked")


@pytest.fixture
async def bench(blob_settings: BlobSettings, ledger_settings: LedgerSettings, supplier: str) -> AsyncIterator[Bench]:
    settings = IngestSettings(
        bus=BusSettings(connection=Secret("unused")),
        consumer=ConsumerSettings(),
        blobs=blob_settings,
        ledger=ledger_settings,
        deadline_seconds=HOUR,
    )
    async with Blobs(blob_settings) as blobs, Ledger(ledger_settings) as ledger, Validator(1) as validator:
        await blobs.create_container(layout.supplier_container(supplier))
        await ledger.create_tables()
        yield Bench(blobs, ledger, supplier, settings, validator)


def images(told: list[Outgoing]) -> list[ImageAccepted]:
    assert all(one.enqueue_at is None for one in told)
    return [one.message for one in told if isinstance(one.message, ImageAccepted)]


async def test_photos_wait_for_the_window_which_one_scheduled_message_opens(bench: Bench) -> None:
    await bench.terms(when={"any": "windows"}, lane=Lane.BULK)
    events = [await bench.upload(number) for number in range(3)]
    (opening,) = await bench.told(events[0])
    assert isinstance(opening.message, ReleaseRun) and opening.enqueue_at == opening.message.opens_at == OPENS
    assert await bench.told(events[0]) == [opening], "a repeat says the same: the first time may have got lost"
    assert await bench.told(events[1]) == []
    bench.start()
    assert await bench.told(events[2]) == [], "another process does not open it a second time"

    bench.now = OPENS + timedelta(seconds=1)
    released = images(await bench.told(opening.message))
    assert len({one.upload_id for one in released}) == 3
    assert {(one.lane, one.deadline) for one in released} == {(Lane.BULK, OPENS + timedelta(hours=1))}
    assert images(await bench.told(opening.message)) == released, "a repeat says the same again"
    await bench.ledger.record_final(
        released[0].run_id, released[0].upload_id, Final(kind=FinalKind.ANALYSED, at=bench.now)
    )
    assert len(await bench.told(opening.message)) == 2, "but not of what is done"


async def test_the_dispatcher_sees_what_a_window_will_release_and_plans_for_nothing_else(bench: Bench) -> None:
    await bench.terms(when={"any": "windows 02:00,20:00", "convert": "at-once"}, deadline_seconds=HOUR)
    for number in range(4):
        await bench.told(await bench.upload(number))
    await bench.coming.tell()
    found = await (await bench.eyes()).look(THREE)
    (window,) = found.windows or ()
    assert (window.job_kind, window.opens_at, window.deadline, window.images) == (
        "detect",
        OPENS,
        OPENS + timedelta(hours=1),
        4,
    )
    assert found.open_runs == (), "no work yet"
    (run,) = await bench.ledger.runs(bench.supplier)
    bench.now += timedelta(minutes=1)
    await bench.told(
        ReleaseRun(run_id=run.run_id, supplier=bench.supplier, opens_at=bench.now, requested_by="me", lane=Lane.URGENT)
    )
    await bench.coming.tell()
    found = await (await bench.eyes()).look(bench.now)
    assert [window.images for window in found.windows or ()] == [0], "nobody warms nodes for it any more"
    (part,) = found.open_runs or ()
    assert (part.images, part.oldest_at, part.deadline) == (4, bench.now, bench.now + timedelta(hours=1))


async def test_what_a_process_did_not_tell_any_more_is_told_by_the_next_one(bench: Bench) -> None:
    await bench.terms(when={"any": "windows"})
    await bench.told(await bench.upload(1))
    bench.start()
    stop = asyncio.Event()
    telling = asyncio.create_task(bench.coming.run(stop))
    async with asyncio.timeout(30):
        while not (windows := await bench.ledger.windows(THREE, OPENS + timedelta(hours=1))):
            await asyncio.sleep(0.05)
    stop.set()
    await telling
    assert [window.images for window in windows] == [1]


async def test_a_cancelled_runs_window_releases_nothing_any_more_for_the_dispatcher(bench: Bench) -> None:
    bench.settings = msgspec.structs.replace(bench.settings, coming_seconds=0.05, coming_recount_seconds=0.1)
    bench.start()
    await bench.terms(when={"any": "windows"})
    await bench.told(await bench.upload(1))
    stop = asyncio.Event()
    telling = asyncio.create_task(bench.coming.run(stop))

    async def until_told(images: int) -> None:
        async with asyncio.timeout(30):
            while [window.images for window in await bench.ledger.windows(THREE, OPENS + timedelta(1))] != [images]:
                await asyncio.sleep(0.05)

    await until_told(1)
    (run,) = await bench.ledger.runs(bench.supplier)
    await bench.ledger.cancel_run(run.run_id, bench.now, by="me")  # as the notifier does, in another process
    await until_told(0)
    stop.set()
    await telling


async def test_a_start_counts_an_unfinished_run_however_many_came_after_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.terms(when={"any": "windows"})
    await bench.told(await bench.upload(1))
    (first,) = await bench.ledger.runs(bench.supplier)
    for number in (2, 3):  # each in a run of its own
        await bench.ledger.close_run((await bench.ledger.runs(bench.supplier))[0].run_id, bench.now)
        bench.now += timedelta(seconds=1)
        await bench.told(await bench.upload(number))
    newest = bench.ledger.runs

    async def two_at_once(supplier: str | None = None, limit: int = 100, **skip: Any) -> Any:
        return await newest(supplier, min(limit, 2), **skip)

    monkeypatch.setattr(bench.ledger, "runs", two_at_once)
    bench.start()
    stop = asyncio.Event()
    telling = asyncio.create_task(bench.coming.run(stop))
    async with asyncio.timeout(30):
        while first.run_id not in {window.name for window in await bench.ledger.windows(THREE, OPENS + timedelta(1))}:
            await asyncio.sleep(0.05)
    stop.set()
    await telling


async def test_run_now_announces_at_once_what_waits_and_what_still_comes_and_the_window_repeats_nothing(
    bench: Bench,
) -> None:
    await bench.terms(when={"any": "windows"})
    (opening,) = await bench.told(await bench.upload(1))
    assert isinstance(opening.message, ReleaseRun)
    bench.now += timedelta(minutes=5)
    asked = ReleaseRun(
        run_id=opening.message.run_id,
        supplier=bench.supplier,
        opens_at=bench.now,
        requested_by="me",
        lane=Lane.URGENT,
    )
    (first,) = images(await bench.told(asked))
    assert (first.lane, first.deadline) == (Lane.URGENT, bench.now + timedelta(hours=1))
    (second,) = images(await bench.told(await bench.upload(2)))
    assert (second.lane, second.run_id) == (Lane.URGENT, first.run_id)
    assert {one.upload_id for one in images(await bench.told(asked))} == {first.upload_id, second.upload_id}
    bench.now = OPENS
    assert await bench.told(opening.message) == []


async def test_run_now_announces_nothing_twice_that_went_before_it(bench: Bench) -> None:
    await bench.terms(when={"any": "windows 15:30,20:00"})
    (opening,) = await bench.told(await bench.upload(1))
    assert isinstance(opening.message, ReleaseRun)
    bench.now = opening.message.opens_at
    (early,) = images(await bench.told(opening.message))
    bench.now += timedelta(minutes=1)
    await bench.told(await bench.upload(2))  # waits for the evening

    def asked() -> ReleaseRun:
        return ReleaseRun(run_id=early.run_id, supplier=bench.supplier, opens_at=bench.now, requested_by="me")

    bench.now += timedelta(minutes=20)  # longer than the topic remembers ids
    first = asked()
    (late,) = images(await bench.told(first))
    assert late.upload_id != early.upload_id, "what the window released is in a queue, or in a worker's hands"
    bench.now += timedelta(minutes=20)
    assert images(await bench.told(asked())) == [], "said a second time"
    assert images(await bench.told(first)) == [late], "but the first word, delivered once more, is carried out"


async def test_run_now_of_a_clock_that_is_ahead_releases_all_the_same(bench: Bench) -> None:
    await bench.terms(when={"any": "on-command"})
    await bench.told(await bench.upload(1))
    (run,) = await bench.ledger.runs(bench.supplier)
    ahead = bench.now + timedelta(hours=1)
    asked = ReleaseRun(run_id=run.run_id, supplier=bench.supplier, opens_at=ahead, requested_by="me")
    assert len(images(await bench.told(asked))) == 1


async def test_on_command_waits_until_people_say_so(bench: Bench) -> None:
    await bench.terms(when={"any": "windows", "detect": "on-command"})
    assert await bench.told(await bench.upload(1)) == [], "nothing is scheduled"
    bench.now += timedelta(days=30)
    (run,) = await bench.ledger.runs(bench.supplier)
    found = await (await bench.eyes()).look(bench.now)
    assert (found.windows, found.open_runs) == ((), ())
    asked = ReleaseRun(run_id=run.run_id, supplier=bench.supplier, opens_at=bench.now, requested_by="me")
    (image,) = images(await bench.told(asked))
    assert image.lane is Lane.NORMAL, "its own"


async def test_off_peak_is_at_once_in_the_night_and_later_by_day(bench: Bench) -> None:
    await bench.terms(when={"any": "off-peak 22:00-06:00 Europe/Berlin"})
    (by_day,) = await bench.told(await bench.upload(1))
    assert by_day.enqueue_at == datetime(2026, 10, 24, 20, 0, tzinfo=UTC)
    bench.now = datetime(2026, 10, 25, 4, 30, tzinfo=UTC)  # 05:30 there, after the clocks went back
    assert len(images(await bench.told(await bench.upload(2)))) == 1
    bench.now += timedelta(minutes=31)
    (again,) = await bench.told(await bench.upload(3))
    assert again.enqueue_at == datetime(2026, 10, 25, 21, 0, tzinfo=UTC)


async def test_nothing_of_a_cancelled_run_is_announced(bench: Bench) -> None:
    await bench.terms(when={"any": "windows"})
    event = await bench.upload(1)
    (opening,) = await bench.told(event)
    assert isinstance(opening.message, ReleaseRun)
    await bench.ledger.cancel_run(opening.message.run_id, bench.now, by="me")
    bench.now = OPENS
    assert await bench.told(opening.message) == []
    assert await bench.told(event) == []
    (later,) = images(await bench.told(await bench.upload(2)))
    assert later.run_id != opening.message.run_id, "what comes later is another run"


async def test_an_upload_that_came_as_its_window_opened_is_announced_by_itself(bench: Bench) -> None:
    await bench.terms(when={"any": "windows"})
    bench.now = OPENS - timedelta(seconds=1.5)  # whoever opens the window may have looked already
    assert len(images(await bench.told(await bench.upload(1)))) == 1


async def test_ingests_own_timing_counts_where_a_supplier_has_none(bench: Bench) -> None:
    bench.settings = msgspec.structs.replace(
        bench.settings, when="at-once", when_detect="windows 21:00", time_zone="Europe/Berlin"
    )
    bench.start()
    (opening,) = await bench.told(await bench.upload(1))
    assert opening.enqueue_at == OPENS
    await bench.terms(when={"any": "at-once"})
    assert len(images(await bench.told(await bench.upload(2)))) == 1
    assert bench.settings.when_of(JobKind.CONVERT) == "at-once"
