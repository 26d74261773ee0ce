"""The sweep with plain ports: what it announces, remembers and survives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from fusebus.arrivals import event_of
from fusebus.blobs import BlobProperties, ListedBlob, StorageError, StorageUnavailable
from fusebus.bus import PublishFailed
from fusebus.contracts import identity
from fusebus.contracts.messages import BlobCreated
from fusebus.contracts.outcomes import Outgoing
from fusebus.contracts.topology import FEW_UPLOADS
from fusebus.host import load_settings
from fusebus.ingest import policy
from fusebus.ingest.settings import IngestSettings
from fusebus.ingest.sweep import AROUND_SECONDS, CHUNK, Sweep
from fusebus.ledger import Entered, LedgerUnavailable, UploadRow

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def blob(name: str, etag: str = "0x1") -> ListedBlob:
    return ListedBlob(
        name=name,
        size=3,
        etag=etag,
        blob_type="BlockBlob",
        content_type="image/jpeg",
        created_at=NOW,
        modified_at=NOW,
    )


def cannot_say() -> StorageError:
    error = StorageUnavailable("listing: 500 InternalError")
    error.status = 500
    return error


@dataclass
class World:
    """Containers, ledger and outbox in memory, each able to fail."""

    containers: dict[str, list[ListedBlob]] = field(default_factory=dict)
    arrived: set[str] = field(default_factory=set)
    sent: list[BlobCreated] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    looked_up: int = 0
    listings: int = 0
    replays: list[int] = field(default_factory=list)

    async def list_supplier_containers(self) -> AsyncIterator[str]:
        if "containers" in self.broken:
            raise StorageUnavailable("containers")
        for name in self.containers:
            yield name

    async def properties(self, container: str, name: str) -> BlobProperties | None:
        return next((found for found in self.containers[container] if found.name == name), None)

    async def list(self, container: str, prefix: str = "", *, retry: bool = True) -> AsyncIterator[ListedBlob]:
        self.listings += 1
        chosen = [found for found in self.containers[container] if found.name.startswith(prefix)]
        if any("\x00" in found.name for found in chosen):  # as Azurite: the whole page is lost
            raise cannot_say()
        for found in chosen:
            yield found
        if container in self.broken:
            raise StorageUnavailable("a NUL in a name")

    async def find_upload(self, upload_id: str) -> Entered | None:
        if "ledger" in self.broken:
            raise LedgerUnavailable("ledger")
        self.looked_up += 1
        if upload_id not in self.arrived:
            return None
        row = UploadRow(
            upload_id=upload_id,
            supplier="acme",
            container="in-acme",
            blob_name="x",
            blob_etag="0x1",
            size=1,
            uploaded_at=NOW,
            entered_at=NOW,
            run_id="r",
        )
        return Entered(upload=row, opened=False)

    async def publish(self, outgoing: Sequence[Outgoing]) -> None:
        if "bus" in self.broken:
            raise PublishFailed("bus")
        for one in outgoing:
            assert isinstance(one.message, BlobCreated)
            self.sent.append(one.message)
            self.replays.append(one.replay)

    @property
    def names(self) -> list[str]:
        return [event.blob_name for event in self.sent]


@dataclass
class Clock:
    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def world() -> World:
    return World({"in-acme": [blob("a"), blob("b")]})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sweep(world: World, clock: Clock) -> Sweep:
    settings = load_settings(
        IngestSettings, "ingest", {"FUSEBUS_INGEST_SWEEP_REPEAT_SECONDS": "100", "FUSEBUS_INGEST_SWEEP_REPEATS": "2"}
    )
    return Sweep(blobs=world, ledger=world, publisher=world, settings=settings, clock=lambda: NOW, monotonic=clock)


async def test_each_upload_is_announced_once_and_a_new_content_again(world: World, sweep: Sweep) -> None:
    assert [await sweep.once(), await sweep.once()] == [2, 0]
    world.containers["in-acme"][1] = blob("b", "0x2")
    assert await sweep.once() == 1
    assert world.names == ["a", "b", "b"]


async def test_what_is_announced_is_what_the_handler_takes(world: World, sweep: Sweep) -> None:
    world.containers = {"in-acme": [blob(name) for name in ("odd/../\x01\u202e", "blobs/containers/x", "\x01%2f")]}
    await sweep.once()
    for event, listed in zip(world.sent, world.containers["in-acme"], strict=True):
        place = policy.place_of(event)
        assert isinstance(place, policy.Place)
        assert (place.container, place.name, place.etag) == ("in-acme", listed.name, "0x1")


async def test_what_is_in_a_run_already_is_not_announced_after_a_restart(world: World, sweep: Sweep) -> None:
    await sweep.once()
    place = policy.place_of(world.sent[0])
    assert isinstance(place, policy.Place)
    world.arrived.add(place.upload_id)
    restarted = Sweep(blobs=world, ledger=world, publisher=world, settings=sweep.settings, clock=lambda: NOW)
    world.sent.clear()
    assert await restarted.once() == 1
    assert world.names == ["b"]


async def test_an_announced_upload_that_is_in_no_run_is_announced_again_late_and_not_for_ever(
    world: World, sweep: Sweep, clock: Clock
) -> None:
    announced = []
    for clock.seconds in range(0, 1000, 50):
        announced.append(await sweep.once())
    assert announced == [2, 0, 2, 0, 2] + [0] * 15
    assert world.replays == [0, 0, 1, 1, 2, 2], "duplicate detection must not take a repeat for the first"


async def test_what_arrived_is_not_looked_up_again(world: World, sweep: Sweep, clock: Clock) -> None:
    await sweep.once()
    world.arrived = {
        place.upload_id for event in world.sent if isinstance(place := policy.place_of(event), policy.Place)
    }
    clock.seconds = 100.0
    await sweep.once()
    before = world.looked_up
    clock.seconds = 10_000.0
    assert await sweep.once() == 0
    assert world.looked_up == before == 4


async def test_a_listing_that_breaks_off_hides_neither_its_first_blobs_nor_other_containers(
    world: World, sweep: Sweep
) -> None:
    world.containers["in-other"] = [blob("c")]
    world.broken = {"in-acme"}
    assert await sweep.once() == 1
    assert sorted(world.names) == ["a", "b", "c"]
    await sweep.once()
    assert sorted(world.names) == ["a", "b", "c"]


async def test_a_name_that_storage_cannot_say_hides_only_those_that_go_on_like_it(
    world: World, sweep: Sweep, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["evil", "evil\x00.jpg", "evil\x00\x01", "evil.jpg", "ev", "van 7/ünder.jpg", "zebra", "-"]
    world.containers["in-acme"] = [blob(name) for name in names]
    world.containers["in-other"] = [blob("c")]
    await sweep.once()
    assert sorted(world.names) == ["-", "c", "ev", "evil", "evil.jpg", "van 7/ünder.jpg", "zebra"]
    (record,) = [record for record in caplog.records if "a listing fails" in record.message]
    assert record.__dict__["names"] == ["evil"]
    asked = world.listings
    await sweep.once()
    assert world.listings == asked + 1, "going around is left for later, the other container is listed"
    clock.seconds = 100.0
    world.containers["in-acme"].append(blob("late"))
    await sweep.once()
    assert world.names.count("late") == 1


async def test_names_without_end_that_storage_cannot_say_do_not_hold_the_sweep(world: World, sweep: Sweep) -> None:
    world.containers["in-acme"] = [
        blob("a" * 900 + "\x00"),
        *(blob(f"{one}{one}\x00") for one in "bcdefgh"),
        blob("sound"),
    ]
    world.containers["in-other"] = [blob("c")]
    await sweep.once()
    assert sorted(world.names) == ["c", "sound"]
    assert world.listings < 3100


async def test_ten_uploads_do_not_wait_for_another_suppliers_thousand(world: World, sweep: Sweep) -> None:
    world.containers["in-crowd"] = [blob(f"{number}.jpg") for number in range(1000)]
    world.containers["in-few"] = [blob(f"{number}.jpg") for number in range(10)]
    await sweep.once()
    places = [place for place, event in enumerate(world.sent) if event.container == "in-few"]
    assert len(places) == 10 and places[-1] < 2 * CHUNK + 10


async def test_what_is_still_being_copied_is_announced_when_it_is_there(world: World, sweep: Sweep) -> None:
    copying, done = (msgspec.structs.replace(blob("a"), copy_status=one) for one in ("pending", "success"))
    world.containers["in-acme"] = [copying]
    assert await sweep.once() == 0
    world.containers["in-acme"] = [done]
    assert await sweep.once() == 1


@pytest.mark.parametrize("broken", ["containers", "ledger", "bus"])
async def test_what_fails_in_one_round_is_announced_in_the_next(world: World, sweep: Sweep, broken: str) -> None:
    world.broken = {broken}
    assert await sweep.once() == 0
    world.broken = set()
    assert await sweep.once() == 2


async def test_deleted_uploads_leave_the_memory(world: World, sweep: Sweep) -> None:
    await sweep.once()
    world.containers["in-acme"].clear()
    await sweep.once()
    assert sweep._seen == {"in-acme": {}}


async def test_an_unforeseen_failure_in_one_container_ends_neither_the_round_nor_the_process(
    world: World, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.containers["in-other"] = [blob("c")]
    publish = world.publish

    async def refuses(outgoing: Sequence[Outgoing]) -> None:
        if any("in-acme" in one.message.subject for one in outgoing if isinstance(one.message, BlobCreated)):
            raise ValueError("more than a message may have")
        await publish(outgoing)

    monkeypatch.setattr(world, "publish", refuses)
    assert await sweep.once() == 1
    assert world.names == ["c"]


async def test_it_searches_again_and_again(world: World, sweep: Sweep) -> None:
    settings = load_settings(IngestSettings, "ingest", {"FUSEBUS_INGEST_SWEEP_INTERVAL_SECONDS": "0.01"})
    stop = asyncio.Event()
    sweeping = asyncio.create_task(Sweep(blobs=world, ledger=world, publisher=world, settings=settings).run(stop))
    async with asyncio.timeout(30):
        while len(world.sent) < 2:
            await asyncio.sleep(0.01)
        world.containers["in-acme"].append(blob("late"))
        while len(world.sent) < 3:
            await asyncio.sleep(0.01)
        stop.set()
        await sweeping


async def test_a_stop_ends_a_search_however_long_it_takes(
    world: World, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    searching = asyncio.Event()

    async def endless(container: str, prefix: str = "") -> AsyncIterator[ListedBlob]:
        searching.set()
        await asyncio.Event().wait()
        yield blob("never")

    monkeypatch.setattr(world, "list", endless)
    stop = asyncio.Event()
    sweeping = asyncio.create_task(sweep.run(stop))
    async with asyncio.timeout(30):
        await searching.wait()
        stop.set()
        await sweeping


async def test_an_interval_of_zero_turns_it_off(world: World) -> None:
    settings = load_settings(IngestSettings, "ingest", {"FUSEBUS_INGEST_SWEEP_INTERVAL_SECONDS": "0"})
    await Sweep(blobs=world, ledger=world, publisher=world, settings=settings).run(asyncio.Event())
    assert world.sent == []


def nobody(supplier: str) -> bool:
    return False


async def test_beside_a_flood_the_others_uploads_are_announced_however_young(world: World, clock: Clock) -> None:
    settings = load_settings(IngestSettings, "ingest", {"FUSEBUS_INGEST_SWEEP_GRACE_SECONDS": "300"})
    sweep = Sweep(blobs=world, ledger=world, publisher=world, settings=settings, clock=lambda: NOW, monotonic=clock)
    world.containers["in-crowd"] = [blob("flood")]
    assert await sweep.once() == 0, "the events of all have time left"
    assert await sweep.beside(lambda supplier: supplier == "crowd", 20) == 2
    assert sorted(world.names) == ["a", "b"]
    assert [await sweep.beside(nobody, 20), await sweep.beside(nobody, 20)] == [1, 0]


async def test_beside_a_flood_ten_of_each_are_enough_and_what_is_in_a_run_does_not_count(
    world: World, sweep: Sweep
) -> None:
    names = [f"{number:04}" for number in range(3 * CHUNK)]
    world.containers = {"in-crowd": [blob(name) for name in names]}
    world.arrived = {identity.upload_id("in-crowd", name, "0x1") for name in names if not name.endswith("7")}
    assert await sweep.beside(nobody, 20) == FEW_UPLOADS
    assert world.names == [name for name in names if name.endswith("7")][:FEW_UPLOADS]
    assert world.looked_up <= CHUNK + FEW_UPLOADS
    assert await sweep.beside(nobody, 20) == FEW_UPLOADS


@pytest.mark.parametrize(
    "change",
    [{"size": 0}, {"copy_status": "pending"}, {"modified_at": NOW - timedelta(days=1)}],
    ids=["has only begun", "is being copied", "is left to the sweep"],
)
async def test_beside_a_flood_is_left_alone_what(world: World, sweep: Sweep, change: dict[str, Any]) -> None:
    world.containers = {"in-acme": [msgspec.structs.replace(blob("a"), **change), blob("b")]}
    await sweep.beside(nobody, 20)
    assert world.names == ["b"]


async def test_beside_a_flood_a_listing_that_breaks_off_costs_its_container_a_minute(
    world: World, sweep: Sweep, clock: Clock
) -> None:
    world.containers["in-other"] = [blob("c")]
    world.broken = {"in-acme"}
    await sweep.beside(nobody, 20)
    assert sorted(world.names) == ["a", "b", "c"], "what was listed until then is announced"
    asked = world.listings
    await sweep.beside(nobody, 20)
    assert world.listings == asked + 1
    clock.seconds = AROUND_SECONDS
    await sweep.beside(nobody, 20)
    assert world.listings == asked + 3


async def test_beside_a_flood_a_search_ends_in_time_and_the_next_goes_on(
    world: World, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = world.list

    async def slow(container: str, prefix: str = "", *, retry: bool = True) -> AsyncIterator[ListedBlob]:
        await asyncio.sleep(3600 if container == "in-acme" else 0)
        async for one in listing(container, prefix):
            yield one

    monkeypatch.setattr(world, "list", slow)
    world.containers["in-other"] = [blob("c")]
    assert await sweep.beside(nobody, 0.1) == 0
    assert world.names == ["c"]


async def test_what_two_searches_find_at_once_is_announced_once(world: World, sweep: Sweep) -> None:
    world.containers["in-acme"] = [blob(f"{number}.jpg") for number in range(FEW_UPLOADS)]
    assert sum(await asyncio.gather(sweep.once(), sweep.beside(nobody, 20))) == FEW_UPLOADS
    assert set(world.replays) == {0}


async def test_a_search_beside_a_flood_forgets_what_was_deleted(world: World, sweep: Sweep) -> None:
    await sweep.beside(nobody, 20)
    world.containers["in-acme"].clear()
    await sweep.beside(nobody, 20)
    assert sweep._seen == {"in-acme": {}}


async def test_a_search_beside_a_flood_leaves_out_what_is_in_hand(world: World) -> None:
    settings = load_settings(IngestSettings, "ingest", {})
    in_hand = {identity.upload_id("in-acme", "a", "0x1")}
    sweep = Sweep(blobs=world, ledger=world, publisher=world, settings=settings, clock=lambda: NOW, in_hand=in_hand)
    assert await sweep.beside(nobody, 20) == 1
    assert world.names == ["b"]


async def test_where_a_search_beside_a_flood_found_some_it_looks_again_for_the_rest(
    world: World, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = world.publish
    world.containers |= {"in-other": [], "in-whole": [blob(str(number)) for number in range(FEW_UPLOADS)]}

    async def and_more_come(outgoing: Sequence[Outgoing]) -> None:
        await publish(outgoing)
        for container in world.containers.values():
            container.append(blob("late"))

    monkeypatch.setattr(world, "publish", and_more_come)
    assert await sweep.beside(nobody, 20) == 2 + FEW_UPLOADS + 1
    assert world.names.count("late") == 1, "where some were found, and not ten"
    assert world.listings == 4


async def test_what_a_search_announced_is_known(world: World, sweep: Sweep) -> None:
    place = policy.place_of(event_of("in-acme", blob("a")))
    assert isinstance(place, policy.Place)
    assert not sweep.announced(place)
    await sweep.beside(nobody, 20)
    assert sweep.announced(place)
