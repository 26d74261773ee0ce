"""Duplicates across runs and within one: each has one end, and none before that of the photo's first upload."""

from __future__ import annotations

import msgspec
import pytest

from fusebus.contracts import identity
from fusebus.contracts.envelope import Envelope
from fusebus.contracts.messages import BlobCreated, RejectReason, RunCheck
from fusebus.contracts.outcomes import Done, Reject
from fusebus.ledger import Final, FinalKind, RunState
from fusebus.notifier.twins import Fate, fate


def end(world, kind: FinalKind, reason: str = "") -> Final:
    return Final(kind=kind, at=world.now, reason=reason, explanation="what happened", model="m@1")


async def look(world, run: str) -> object:
    return await world.take(RunCheck(run_id=run, supplier="northgrid"))


@pytest.fixture
def earlier(world) -> str:
    """Another run of the same supplier, with the upload `first`."""
    run = identity.run_id("northgrid", world.now, "ff" * 16)
    world.enter("first", run=run)
    return run


async def test_a_duplicate_of_what_is_not_done_yet_waits_and_its_run_with_it(world, make, earlier):
    world.enter("again")
    assert await world.take(make.duplicate("again", "first", earlier)) == Done()
    row = world.ledger.rows[make.run_id, "again"]
    assert (row.final, row.waits_for, row.waits_for_run) == (None, "first", earlier)
    world.pass_time(600)
    await look(world, make.run_id)
    assert world.run.state is RunState.CLOSED
    await world.ledger.record_final(earlier, "first", end(world, FinalKind.ANALYSED))
    assert await look(world, make.run_id) == Done()
    row = world.ledger.rows[make.run_id, "again"]
    assert (row.final.kind, row.final.duplicate_of, row.final.duplicate_of_run) == ("duplicate", "first", earlier)
    assert world.run.state is RunState.COMPLETE
    assert world.published == []


async def test_a_duplicate_in_the_same_run_ends_with_the_last_final_of_the_run(world, make):
    world.enter("first", "again")
    await world.take(make.duplicate("again", "first"))
    world.pass_time(600)
    await look(world, make.run_id)
    await world.take(make.analysed("first"))
    assert world.run.state is RunState.COMPLETE, "no look is waited for"
    assert world.ledger.rows[make.run_id, "again"].final.kind is FinalKind.DUPLICATE


async def test_a_photo_whose_first_upload_failed_fails_with_it_and_says_why(world, make, earlier):
    world.enter("again")
    await world.take(make.duplicate("again", "first", earlier))
    await world.ledger.record_final(earlier, "first", end(world, FinalKind.FAILED, "model_failed"))
    world.pass_time(600)
    assert await look(world, make.run_id) == Done()
    final = world.ledger.rows[make.run_id, "again"].final
    assert (final.kind, final.reason, final.duplicate_of) == (FinalKind.FAILED, "model_failed", "first")
    assert "what happened" in final.explanation


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(FinalKind.REJECTED, RejectReason.BLOB_VANISHED.value), (FinalKind.FAILED, "storage_unavailable")],
)
async def test_a_sound_photo_whose_first_upload_came_to_nothing_is_analysed_after_all(
    world, make, earlier, kind, reason
):
    world.enter("again")
    await world.take(make.duplicate("again", "first", earlier))
    await world.ledger.record_final(earlier, "first", end(world, kind, reason))
    world.pass_time(600)
    await look(world, make.run_id)
    [sent] = world.published
    assert isinstance(sent.message, BlobCreated) and sent.replay
    event, row = sent.message, world.ledger.rows[make.run_id, "again"]
    assert (event.container, event.blob_name, event.data.e_tag) == (row.container, row.blob_name, row.blob_etag)
    assert (row.final, row.waits_for) == (None, ""), "an ordinary upload again"
    await look(world, make.run_id)
    assert len(world.published) == 1, "once"
    await world.take(make.analysed("again"))
    assert world.run.state is RunState.COMPLETE
    assert world.ledger.rows[make.run_id, "again"].final.kind is FinalKind.ANALYSED


async def test_a_release_that_could_not_be_sent_is_tried_again_under_the_same_id(world, make, earlier):
    world.enter("again")
    await world.take(make.duplicate("again", "first", earlier))
    await world.ledger.record_final(earlier, "first", end(world, FinalKind.REJECTED))
    world.pass_time(600)
    good, world.ledger.wait_for = world.ledger.wait_for, None  # it is sent, and then the process dies
    assert (await look(world, make.run_id)).publish, "the check follows all the same"
    world.ledger.wait_for = good
    await look(world, make.run_id)
    first, second = world.published
    assert first == second


async def test_a_release_leaves_it_waiting_for_the_twin_that_ingest_finds_meanwhile(world, make, earlier):
    world.enter("again", "other")
    await world.take(make.duplicate("again", "first", earlier))
    await world.ledger.record_final(earlier, "first", end(world, FinalKind.REJECTED))
    world.pass_time(600)
    send = world.publish

    async def answered_at_once(outgoing):
        await send(outgoing)
        await world.take(make.duplicate("again", "other"))

    world.publish = answered_at_once
    world.restart()
    await look(world, make.run_id)
    assert world.ledger.rows[make.run_id, "again"].waits_for == "other"
    await world.take(make.analysed("other"))
    assert world.ledger.rows[make.run_id, "again"].final.duplicate_of == "other"
    assert world.run.state is RunState.COMPLETE


@pytest.mark.parametrize("reason", ["storage_unavailable", "model_failed"])
async def test_what_was_found_first_does_not_come_back_in_the_place_of_what_was_found_later(
    world, make, earlier, reason
):
    world.enter("again", "other")
    await world.take(make.duplicate("again", "first", earlier))
    await world.ledger.record_final(earlier, "first", end(world, FinalKind.FAILED, reason))
    await world.take(make.duplicate("again", "other"))  # of the same event once more: `other` has the image now
    assert await world.take(make.duplicate("again", "first", earlier)) == Done(), "the lock of the first was lost"
    assert world.ledger.rows[make.run_id, "again"].waits_for == "other"
    world.pass_time(600)
    await look(world, make.run_id)
    assert world.published == []
    await world.take(make.analysed("other"))
    final = world.ledger.rows[make.run_id, "again"].final
    assert (final.kind, final.duplicate_of) == (FinalKind.DUPLICATE, "other")
    assert world.run.state is RunState.COMPLETE


async def test_two_findings_at_once_end_with_the_later_one_whoever_writes_first(world, make, earlier):
    world.enter("again", "other")
    await world.ledger.record_final(earlier, "first", end(world, FinalKind.FAILED, "storage_unavailable"))
    wait_for, later = world.ledger.wait_for, make.duplicate("again", "other")

    async def overtaken(run_id, upload_id, of, of_run, *, instead_of=None):
        if of == "first":  # it has decided on what it read, and another handler is quicker
            world.ledger.wait_for = wait_for
            await world.take(later)
        return await wait_for(run_id, upload_id, of, of_run, instead_of=instead_of)

    world.ledger.wait_for = overtaken
    assert await world.take(make.duplicate("again", "first", earlier)) == Done()
    assert world.ledger.rows[make.run_id, "again"].waits_for == "other"


def test_the_twin_of_one_upload_and_then_of_another_is_told_twice(make):
    found = [make.duplicate("again", of) for of in ("first", "first", "other")]
    assert len({Envelope(message=one).message_id for one in found}) == 2


async def test_a_duplicate_that_nobody_entered_is_refused(world, make, earlier):
    assert isinstance(await world.take(make.duplicate("stranger", "first", earlier)), Reject)


async def test_many_that_wait_for_one_run_cost_one_scan_of_it(world, make, earlier):
    names = [f"u{number}" for number in range(101)]
    world.enter(*[f"f{number}" for number in range(101)], run=earlier)
    world.enter(*names)
    for number, name in enumerate(names):
        await world.take(make.duplicate(name, f"f{number}", earlier))
        await world.ledger.record_final(earlier, f"f{number}", end(world, FinalKind.ANALYSED))
    world.pass_time(600)
    assert await look(world, make.run_id) == Done()
    assert world.ledger.scans == 2


def test_only_failures_that_say_nothing_of_the_photo_let_its_twin_go(world):
    row = None
    assert fate(row) is Fate.RELEASE
    world.enter("u")
    [row] = world.ledger.rows.values()
    assert fate(row) is Fate.WAIT
    for kind, expected in (
        (FinalKind.ANALYSED, Fate.DUPLICATE),
        (FinalKind.CONVERTED, Fate.DUPLICATE),
        (FinalKind.DUPLICATE, Fate.DUPLICATE),
        (FinalKind.FAILED, Fate.SAME_FAILURE),
        (FinalKind.REJECTED, Fate.RELEASE),
    ):
        assert fate(msgspec.structs.replace(row, final=end(world, kind))) is expected
