"""Leadership over real Azurite leases: one leads, the others wait, and an earlier leader notices."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from azure.storage.blob.aio import BlobServiceClient

from fusebus.blobs import BlobSettings
from fusebus.bus import BusSettings
from fusebus.costs.settings import CostSettings
from fusebus.dispatcher.adapters import BlobLeader
from fusebus.dispatcher.settings import DispatcherSettings
from fusebus.ledger import LedgerSettings


@dataclass
class Clock:
    """Seconds that pass when told to."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Candidates:
    """Dispatchers that compete for one blob."""

    settings: DispatcherSettings
    blobs: BlobSettings
    exits: AsyncExitStack
    clock: Clock = field(default_factory=Clock)

    async def enter(self, instance: str = "") -> BlobLeader:
        chosen = msgspec.structs.replace(self.settings, instance=instance)
        return await self.exits.enter_async_context(BlobLeader(chosen, self.blobs, self.clock))


@pytest.fixture
async def candidates(blob_settings: BlobSettings) -> AsyncIterator[Candidates]:
    settings = DispatcherSettings(
        bus=BusSettings(),
        ledger=LedgerSettings(),
        blobs=blob_settings,
        costs=CostSettings(),
        batch_url="http://127.0.0.1:1",
        leader_container=f"control-{secrets.token_hex(4)}",
        lease_seconds=60,
    )
    async with AsyncExitStack() as exits:
        yield Candidates(settings, blob_settings, exits)


async def test_of_two_one_leads_and_the_other_knows_who(candidates: Candidates) -> None:
    first, second = await candidates.enter("one"), await candidates.enter("two")
    assert (first.term(), second.term()) == (1, None)
    assert second.seen is not None and second.seen.leader == "one"
    await second.tend()
    assert second.term() is None


async def test_a_lease_that_was_given_back_is_taken_in_the_next_term(candidates: Candidates) -> None:
    async with AsyncExitStack() as exits:
        first = await exits.enter_async_context(BlobLeader(candidates.settings, candidates.blobs))
        second = await candidates.enter()
        assert (first.term(), second.term()) == (1, None)
    await second.tend()
    assert second.term() == 2


async def test_without_a_renewal_leadership_ends_here_before_it_can_end_in_the_store(candidates: Candidates) -> None:
    leader = await candidates.enter()
    candidates.clock.now += 47
    assert leader.term() == 1
    candidates.clock.now += 2
    assert leader.term() is None
    await leader.tend()
    assert leader.term() == 1, "nobody else took it meanwhile"


async def test_a_lease_that_somebody_broke_is_noticed_by_the_renewal(candidates: Candidates) -> None:
    leader = await candidates.enter("one")
    async with BlobServiceClient.from_connection_string(candidates.blobs.connection.reveal()) as service:
        blob = service.get_blob_client(candidates.settings.leader_container, candidates.settings.leader_blob)
        lease: Any = await blob.acquire_lease(60, lease_id=leader._lease_id)
        await lease.break_lease(0)
        other = await blob.acquire_lease(60)
        await leader.tend()
        assert leader.term() is None
        await leader.tend()
        assert leader.term() is None
        await other.release()
    await leader.tend()
    assert leader.term() == 2


async def test_a_restarted_copy_of_the_same_name_leads_again_at_once_and_the_old_one_ends(
    candidates: Candidates,
) -> None:
    before, after = await candidates.enter("replica-1"), await candidates.enter("replica-1")
    assert after.term() == 2
    await before.tend()
    assert before.term() is None, "its term is over although the lease carries its name"
    await before.tend()
    await after.tend()
    assert (before.term(), after.term()) == (None, 2), "they don't take it from each other for ever"


async def test_who_met_a_later_term_leads_no_more_and_then_beyond_that_term_at_once(candidates: Candidates) -> None:
    leader = await candidates.enter()
    leader.step_down(7)
    assert leader.term() is None
    await leader.tend()
    assert leader.term() == 8, "pools carry term 7, and the lease was given back"


async def test_a_lease_blob_that_was_deleted_gets_a_later_term_than_any_known(candidates: Candidates) -> None:
    leader = await candidates.enter("one")
    leader.step_down(7)
    await leader.tend()
    async with BlobServiceClient.from_connection_string(candidates.blobs.connection.reveal()) as service:
        blob = service.get_blob_client(candidates.settings.leader_container, candidates.settings.leader_blob)
        await blob.delete_blob(lease=leader._lease)
    await leader.tend()
    assert leader.term() is None
    await leader.tend()
    assert leader.term() == 9


async def test_who_gives_up_takes_no_lease_from_a_copy_of_the_same_name(candidates: Candidates) -> None:
    before, after = await candidates.enter("replica-1"), await candidates.enter("replica-1")
    before.step_down(2)
    await before.tend()
    await after.tend()
    assert (before.term(), after.term()) == (None, 2)


async def test_a_store_that_can_not_be_reached_ends_leadership_only_with_the_lease(candidates: Candidates) -> None:
    leader = await candidates.enter()
    blob, leader._blob = leader._blob, None
    service = await candidates.exits.enter_async_context(
        BlobServiceClient.from_connection_string(
            "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YQ==;BlobEndpoint=http://127.0.0.1:9/a;",
            retry_total=0,
        )
    )
    lease, leader._lease = leader._lease, None
    leader._blob = service.get_blob_client("control", "dispatcher")
    await leader.tend()
    assert leader.term() == 1
    candidates.clock.now += 60
    assert leader.term() is None
    leader._blob, leader._lease = blob, lease
    await leader.tend()
    assert leader.term() == 1


async def test_a_lease_blob_that_can_not_be_understood_is_written_anew_in_a_later_term(candidates: Candidates) -> None:
    leader = await candidates.enter("one")
    async with BlobServiceClient.from_connection_string(candidates.blobs.connection.reveal()) as service:
        blob = service.get_blob_client(candidates.settings.leader_container, candidates.settings.leader_blob)
        await blob.upload_blob(b"{", overwrite=True, lease=leader._lease)
        other = await candidates.enter("two")
        await leader.tend()
        assert (leader.term(), other.term()) == (None, None), "what can't be understood is nobody's"
        await leader.tend()
        assert (leader.term(), other.term()) == (2, None)
        content = await (await blob.download_blob()).readall()
    assert msgspec.json.decode(content)["leader"] == "one"


async def test_who_leads_from_an_empty_blob_is_told_the_right_term_by_the_pools(candidates: Candidates) -> None:
    leader = await candidates.enter()
    leader.step_down(41)  # what a look does that meets term 41
    await leader.tend()
    assert leader.term() == 42


@pytest.mark.long
async def test_the_lease_of_one_that_died_is_taken_over_after_its_length(candidates: Candidates) -> None:
    candidates.settings = msgspec.structs.replace(candidates.settings, lease_seconds=15)
    dead, heir = await candidates.enter(), await candidates.enter()
    assert dead._task is not None and heir._task is not None
    dead._task.cancel()
    began = time.monotonic()
    while heir.term() is None:
        assert time.monotonic() - began < 30
        await asyncio.sleep(0.2)
        await heir.tend()
    assert 10 < time.monotonic() - began < 20
    assert heir.term() == 2
