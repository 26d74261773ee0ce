from dataclasses import replace
from datetime import timedelta

import msgspec

from fusebus.contracts import identity
from fusebus.contracts.messages import (
    BlobCreated,
    BlobCreatedData,
    CloseRun,
    ImageFailed,
    ReleaseRun,
)
from fusebus.contracts.outcomes import Done
from fusebus.ledger import FinalKind, RunState
from fusebus.notifier.mailers import NotSent


async def deliver(world, make, *uploads):
    for upload in uploads:
        assert await world.take(make.analysed(upload)) == Done()


async def close(world, make):
    return await world.take(CloseRun(run_id=make.run_id, supplier="northgrid", requested_by="a person"))


async def test_a_final_that_could_not_be_folded_counts_although_it_is_a_dead_letter(world, make):
    world.enter("u1", "u2")
    await deliver(world, make, "u1")
    world.dead.add("results/notifier", make.rejected("u2"), description="the ledger was away for hours")
    await close(world, make)
    assert await world.take(make.check()) == Done()
    assert world.ledger.rows[make.run_id, "u2"].final.kind is FinalKind.REJECTED
    assert world.run.state is RunState.COMPLETE


async def test_the_upload_of_a_dead_letter_gets_a_failure_with_its_reason(world, make):
    world.enter("u1")
    dead = world.dead.add("images/detect", make.analysed("u1"), reason="poison", description="unknown version")
    world.dead.queues["images/detect"] = [replace(dead, envelope=None)]
    await close(world, make)
    await world.handler.watch_dead_letters()
    final = world.ledger.rows[make.run_id, "u1"].final
    assert (final.kind, final.reason, final.explanation) == (FinalKind.FAILED, "poison", "unknown version")
    assert world.run.state is RunState.COMPLETE


def dead_event(world, **more) -> str:
    """An event that ingest gave up on; the id of its upload."""
    event = BlobCreated(
        id="1",
        source="s",
        subject="/blobServices/default/containers/in-northgrid/blobs/a.jpg",
        time=world.now,
        data=BlobCreatedData(e_tag='"e1"'),
    )
    world.dead.add("uploads/ingest", event, **more)
    return identity.upload_id("in-northgrid", "a.jpg", "e1")


async def test_an_event_that_ingest_gave_up_on_fails_the_upload_it_had_entered(world, make):
    upload = dead_event(world, reason="gave_up", description="the bus was away")
    world.enter("u1", upload)
    await deliver(world, make, "u1")
    await close(world, make)
    assert await world.take(make.check()) == Done()
    assert world.ledger.rows[make.run_id, upload].final.reason == "gave_up"
    assert world.run.state is RunState.COMPLETE


async def test_a_run_whose_opening_event_is_dead_was_never_checked_and_completes_all_the_same(world, make):
    upload = dead_event(world)
    world.enter(upload, "u1")
    await deliver(world, make, "u1")
    await world.handler.watch_dead_letters()
    assert world.run.state is RunState.OPEN
    assert world.ledger.rows[make.run_id, upload].final.kind is FinalKind.FAILED
    world.pass_time(600)
    world.restart()  # what the watch remembers is not needed
    await world.handler.watch_dead_letters()
    assert world.run.state is RunState.COMPLETE
    assert len(world.mailer.sent) == 1


async def test_the_watch_goes_on_with_a_run_that_nobody_else_checks(world, make):
    upload = dead_event(world)
    world.enter(upload, "u1")
    for _ in range(3):
        await world.handler.watch_dead_letters()
        world.pass_time(300)
    assert world.run.state is RunState.CLOSED
    await deliver(world, make, "u1")
    assert world.run.state is RunState.COMPLETE


async def test_an_upload_that_a_later_event_entered_is_not_failed_by_the_dead_one(world, make):
    upload = dead_event(world)
    world.pass_time(900)  # the sweep announced it again
    world.enter(upload)
    await close(world, make)
    await world.handler.watch_dead_letters()
    assert world.ledger.rows[make.run_id, upload].final is None
    await deliver(world, make, upload)
    assert world.ledger.rows[make.run_id, upload].final.kind is FinalKind.ANALYSED
    assert world.run.state is RunState.COMPLETE


async def test_a_dead_event_that_entered_nothing_is_only_logged(world, caplog):
    dead_event(world, description="storage was away")
    await world.handler.watch_dead_letters()
    assert caplog.records[-1].description == "storage was away"


async def test_a_dead_letter_that_can_not_be_recorded_does_not_keep_the_watch_from_the_next(world, make, caplog):
    world.enter("u1")
    odd = msgspec.structs.replace(make.rejected("u1"), upload_id="no/key")
    world.dead.add("results/notifier", odd)
    world.dead.add("results/notifier", make.rejected("u1"))
    record = world.ledger.record_final

    async def refuses_odd_keys(run_id, upload_id, final):
        if "/" in upload_id:
            raise ValueError(f"{upload_id} can't be a key")
        return await record(run_id, upload_id, final)

    world.ledger.record_final = refuses_odd_keys
    await world.handler.watch_dead_letters()
    assert world.ledger.rows[make.run_id, "u1"].final is not None
    assert "can't be a key" in caplog.text


async def test_a_run_that_can_not_be_finished_does_not_keep_the_watch_from_the_next(world, make):
    other = identity.run_id("astra", world.now, "v0" * 4)
    assert other < make.run_id, "it is looked at first"
    world.enter("v1", run=other)
    world.enter("u1")
    await deliver(world, make, "u1")
    world.dead.add("results/notifier", msgspec.structs.replace(make.check(), run_id=other))
    world.dead.add("results/notifier", make.check())
    scan = world.ledger.contents

    async def refuses_the_other(run_id):
        if run_id == other:
            raise ValueError("a row that nobody can read")
        return await scan(run_id)

    world.ledger.contents = refuses_the_other
    world.pass_time(600)
    await world.handler.watch_dead_letters()
    assert world.run.state is RunState.COMPLETE


async def test_a_dead_check_leaves_its_run_to_the_watch(world, make):
    world.enter("u1")
    await deliver(world, make, "u1")
    world.dead.add("results/notifier", make.check(), reason="MaxDeliveryCountExceeded")
    await world.handler.watch_dead_letters()
    assert world.run.state is RunState.OPEN
    world.pass_time(600)
    await world.handler.watch_dead_letters()
    assert world.run.state is RunState.COMPLETE


async def test_dead_letters_are_dealt_with_once_and_stay(world, make):
    world.enter(*(f"u{number}" for number in range(5)))
    for number in range(5):
        failed = ImageFailed(
            upload_id=f"u{number}",
            run_id=make.run_id,
            supplier="northgrid",
            reason="gave_up",
            description="d",
            failed_at=world.now,
        )
        world.dead.add("results/notifier", failed)
    await world.handler.watch_dead_letters()
    assert all(row.final is not None for row in world.ledger.rows.values())
    assert len(world.dead.queues["results/notifier"]) == 5
    world.ledger.record_final = None  # a second look records nothing
    await world.handler.watch_dead_letters()


def given_up(world, make, **more) -> ReleaseRun:
    """A window's message that ingest gave up on, and two photos that wait for it."""
    order = ReleaseRun(run_id=make.run_id, supplier="northgrid", opens_at=world.now + timedelta(hours=1), **more)
    world.enter("u1", "u2", "u3")
    for upload in ("u2", "u3"):
        row = world.ledger.rows[make.run_id, upload]
        world.ledger.rows[make.run_id, upload] = msgspec.structs.replace(row, when="windows", release_at=order.opens_at)
    world.dead.add("uploads/ingest", order, reason="storage_unavailable", description="gave up after 60 attempts")
    return order


async def test_photos_that_nobody_lets_go_are_told_once_with_the_command_that_does(world, make):
    given_up(world, make)
    for _ in range(2):
        await world.handler.watch_dead_letters()
        await world.handler.watch_dead_letters()
        world.restart()
    [mail] = world.mailer.sent
    assert mail["Subject"] == "2 photos from northgrid still wait"
    words = mail.get_content()
    [dead] = world.dead.queues["uploads/ingest"]
    assert f"fusebus dead-letters --id {dead.message_id} --put-back" in words
    assert make.run_id in words and "storage_unavailable: gave up after 60 attempts" in words
    assert all(row.final is None for row in world.ledger.rows.values()), "they may still be analysed"


async def test_people_whose_word_was_given_up_are_named(world, make):
    given_up(world, make, requested_by="ann")
    await world.handler.watch_dead_letters()
    assert ", by ann" in world.mailer.sent[0].get_content()


async def test_nobody_is_told_of_photos_that_do_not_wait_any_more(world, make):
    given_up(world, make)
    await deliver(world, make, "u2", "u3")
    await world.handler.watch_dead_letters()
    assert world.mailer.sent == []


async def test_what_could_not_be_told_is_told_after_a_later_look_and_logged_as_a_dead_letter_once(world, make, caplog):
    given_up(world, make)
    world.mailer.failures = [NotSent("connection refused", passing=True)] * 2
    for _ in range(4):
        await world.handler.watch_dead_letters()
    assert (world.mailer.tries, len(world.mailer.sent)) == (3, 1)
    assert [record.message for record in caplog.records].count("dead letter") == 1
