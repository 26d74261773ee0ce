"""Which uploads are taken now, with a ledger in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from fusebus.blobs import BlobProperties
from fusebus.ingest.admission import Admission
from fusebus.ingest.policy import Place
from fusebus.ledger import Held, SupplierRecord, SupplierState, Usage

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PLACE = Place(supplier="acme", container="in-acme", name="a\r\n\u202e.jpg", etag="0x1")


@dataclass
class World:
    """Ledger, store and clocks of one admission."""

    record: SupplierRecord | None = None
    now: datetime = NOW
    passed: float = 0.0
    reads: int = 0
    used: dict[str, Usage] = field(default_factory=dict)
    charged: set[tuple[str, str]] = field(default_factory=set)
    kept: dict[str, Held] = field(default_factory=dict)

    async def supplier(self, name: str) -> SupplierRecord | None:
        self.reads += 1
        return self.record

    async def charge(self, record: SupplierRecord, upload_id: str, size: int, now: datetime) -> bool:
        day = str(now.date())
        used = self.used.get(day, Usage())
        if (day, upload_id) not in self.charged:
            if not used.fits(size, record):
                return False
            self.charged.add((day, upload_id))
            self.used[day] = Usage(used.images + 1, used.size + size)
        return True

    async def hold(self, held: Held) -> None:
        self.kept[held.upload_id] = held

    async def held_upload(self, supplier: str, upload_id: str) -> Held | None:
        return self.kept.get(upload_id)

    async def properties(self, container: str, name: str) -> BlobProperties | None:
        return BlobProperties(
            name=name, size=10, etag="0x1", blob_type="BlockBlob", content_type="", created_at=NOW, modified_at=NOW
        )


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def admission(world: World) -> Admission:
    return Admission(
        ledger=world,
        blobs=world,
        clock=lambda: world.now,
        refresh_seconds=10.0,
        monotonic=lambda: world.passed,
    )


def known(**fields: Any) -> SupplierRecord:
    given = {"name": "acme", "added_at": NOW, "changed_at": NOW - timedelta(days=1), "changed_by": "me", **fields}
    return msgspec.convert(given, SupplierRecord)


def another(number: int) -> Place:
    return msgspec.structs.replace(PLACE, name=str(number))


async def test_a_supplier_without_a_record_or_without_a_quota_is_taken(world: World, admission: Admission) -> None:
    assert await admission.holds(PLACE) is None
    world.record, world.passed = known(), 60.0
    assert await admission.holds(PLACE) is None
    assert (world.charged, world.kept) == (set(), {})


async def test_a_record_is_read_again_only_after_its_time(world: World, admission: Admission) -> None:
    for _ in range(3):
        assert await admission.holds(PLACE) is None
    world.record, world.passed = known(state="suspended"), 10.0
    assert world.reads == 1 and await admission.holds(PLACE) is not None


@pytest.mark.parametrize("state", [SupplierState.SUSPENDED, SupplierState.REMOVED])
async def test_who_is_not_active_is_held_until_people_change_that(
    world: World, admission: Admission, state: SupplierState
) -> None:
    world.record = known(state=state, email="a@b.example")
    told = await admission.holds(PLACE)
    assert told is not None and (told.because, told.until, told.email) == (state.value, None, "a@b.example")
    assert world.kept[PLACE.upload_id].blob_name == PLACE.name
    assert await admission.still_holds("acme", PLACE.upload_id)
    world.record, world.passed = known(changed_at=NOW + timedelta(seconds=1)), 60.0
    assert not await admission.still_holds("acme", PLACE.upload_id)
    assert await admission.holds(PLACE) is None
    await admission.taken(PLACE)
    assert world.kept[PLACE.upload_id].released_at == NOW


async def test_what_is_beyond_a_quota_is_held_until_the_next_day(world: World, admission: Admission) -> None:
    world.record = known(images_per_day=2, bytes_per_day=1000)
    assert [await admission.holds(another(number)) for number in (1, 2, 1, 2)] == [None] * 4, "repeats count once"
    told = await admission.holds(another(3))
    assert told is not None and told.until == datetime(2026, 1, 3, tzinfo=UTC)
    assert (told.because, told.images_per_day, told.bytes_per_day) == ("quota", 2, 1000)
    upload = another(3).upload_id
    assert await admission.still_holds("acme", upload)
    world.now = told.until
    assert not await admission.still_holds("acme", upload)
    assert await admission.holds(another(3)) is None


async def test_a_raised_quota_offers_what_is_held_anew(world: World, admission: Admission) -> None:
    world.record = known(bytes_per_day=15)
    assert [await admission.holds(another(number)) is None for number in (1, 2)] == [True, False]
    world.record, world.passed = known(bytes_per_day=30, changed_at=NOW + timedelta(seconds=1)), 60.0
    assert not await admission.still_holds("acme", another(2).upload_id)
    assert await admission.holds(another(2)) is None


async def test_what_was_held_by_a_stale_record_after_the_supplier_came_back_is_offered_again(
    world: World, admission: Admission
) -> None:
    world.record = known(state="suspended")
    await admission.record("acme")
    world.record, world.now = known(changed_at=NOW), NOW + timedelta(seconds=5)  # resumed, and not read yet
    assert await admission.holds(PLACE) is not None
    assert world.kept[PLACE.upload_id].held_at > world.record.changed_at
    world.passed = 60.0
    assert not await admission.still_holds("acme", PLACE.upload_id)
