import asyncio
from datetime import timedelta

import msgspec

from fusebus.contracts.envelope import Envelope
from fusebus.contracts.messages import (
    BlobCreated,
    BlobCreatedData,
    CloseRun,
    RunCheck,
    StoredBlob,
)
from fusebus.contracts.outcomes import Done, Outgoing, Reject, Retry
from fusebus.ledger import FinalKind, MailState, RunState
from fusebus.notifier.finals import final_of


async def deliver(world, make, *uploads):
    for upload in uploads:
        assert await world.take(make.analysed(upload)) == Done()


async def close(world, make):
    return await world.take(CloseRun(run_id=make.run_id, supplier="northgrid", requested_by="a person"))


async def test_each_final_is_kept_and_the_first_one_wins(world, make):
    world.enter("u1")
    await deliver(world, make, "u1", "u1")
    assert await world.take(make.rejected("u1")) == Done()
    assert world.ledger.rows[make.run_id, "u1"].final.kind is FinalKind.ANALYSED


async def test_a_final_of_an_upload_that_nobody_entered_is_refused(world, make):
    outcome = await world.take(make.analysed("stranger"))
    assert isinstance(outcome, Reject)
    assert outcome.reason == "unknown_upload"


async def test_a_result_outside_of_the_results_container_is_refused(world, make):
    world.enter("u1")
    forged = msgspec.structs.replace(make.analysed("u1"), annotated=StoredBlob(container="in-rival", name="secret.jpg"))
    outcome = await world.take(forged)
    assert isinstance(outcome, Reject)
    assert world.ledger.rows[make.run_id, "u1"].final is None


async def test_an_unreachable_ledger_means_later_and_later(world, make):
    world.enter("u1")
    world.ledger.broken = True
    for attempt, delay in ((1, 5), (3, 20)):
        outcome = await world.take(make.analysed("u1"), attempt)
        assert outcome == Retry(delay=delay, reason="ledger_unavailable", description="broken for this test")


async def test_the_check_of_a_run_that_is_not_quiet_comes_back_when_it_would_be(world, make):
    world.enter("u1")
    world.pass_time(200)
    outcome = await world.take(make.check(4))
    assert outcome == Done((Outgoing(message=make.check(5), enqueue_at=world.now + timedelta(seconds=400)),))
    assert world.run.state is RunState.OPEN


async def test_a_quiet_run_with_every_final_is_closed_reported_mailed_and_complete(world, make):
    world.enter("u1", "u2", "u3")
    await deliver(world, make, "u1")
    await world.take(make.rejected("u2"))
    await world.take(make.duplicate("u3", of="u1"))
    world.pass_time(600)
    assert await world.take(make.check()) == Done()
    assert world.run.state is RunState.COMPLETE
    assert f"report/{make.run_id}/index.html" in world.results
    counts = msgspec.json.decode(world.results[f"report/{make.run_id}/summary.json"])["counts"]
    assert counts == {
        "uploads": 3,
        "analysed": 1,
        "converted": 0,
        "rejected": 1,
        "duplicate": 1,
        "failed": 0,
        "neutrals": 2,
    }
    assert len(world.mailer.sent) == 1
    assert world.ledger.mails[make.run_id].state is MailState.DONE


async def test_a_closed_run_is_looked_at_again_and_completes_with_its_last_final(world, make):
    world.enter("u1", "u2")
    await deliver(world, make, "u1")
    world.pass_time(600)
    outcome = await world.take(make.check())
    assert outcome == Done((Outgoing(message=make.check(1), enqueue_at=world.now + timedelta(seconds=30)),))
    assert world.run.state is RunState.CLOSED
    await deliver(world, make, "u2")
    assert world.run.state is RunState.COMPLETE
    assert await world.take(make.check(1)) == Done()  # the chain ends
    assert len(world.mailer.sent) == 1


async def test_a_run_is_closed_when_told_so(world, make):
    world.enter("u1")
    await deliver(world, make, "u1")
    assert await close(world, make) == Done()
    assert world.run.state is RunState.COMPLETE
    assert world.run.close_requested_by == "a person"


async def test_finals_of_an_open_run_cost_no_scan_and_those_of_a_closed_one_two(world, make):
    uploads = [f"u{number}" for number in range(50)]
    world.enter(*uploads)
    await deliver(world, make, *uploads[:20])
    assert world.ledger.scans == 0
    await close(world, make)
    await deliver(world, make, *uploads[20:])
    assert world.run.state is RunState.COMPLETE
    assert world.ledger.scans == 2


async def test_a_restarted_notifier_completes_the_run_with_the_redelivered_final(world, make):
    world.enter("u1")
    await close(world, make)
    await world.ledger.record_final(
        make.run_id, "u1", final_of(make.analysed("u1"))
    )  # killed between the ledger and the settlement
    world.restart()
    await deliver(world, make, "u1")
    assert world.run.state is RunState.COMPLETE


async def test_the_chain_of_checks_survives_an_unreachable_ledger(world, make):
    world.enter("u1")
    world.ledger.broken = True
    outcome = await world.take(make.check(7))
    assert outcome == Done((Outgoing(message=make.check(8), enqueue_at=world.now + timedelta(seconds=30)),))


async def test_the_chain_of_checks_survives_a_mailer_that_crashes(world, make):
    world.enter("u1")
    await deliver(world, make, "u1")
    world.pass_time(600)
    world.mailer.failures = [RuntimeError("a bug")]
    outcome = await world.take(make.check())
    assert [outgoing.message for outgoing in outcome.publish] == [make.check(1)]
    world.pass_time(40)
    assert await world.take(make.check(1)) == Done()
    assert world.run.state is RunState.COMPLETE


async def test_a_run_whose_looks_take_long_is_looked_at_less_often(world, make):
    world.enter("u1")
    await close(world, make)
    scan = world.ledger.contents

    async def slow(run_id):
        world.pass_time(8)
        return await scan(run_id)

    world.ledger.contents = slow
    outcome = await world.take(make.check())
    assert [outgoing.enqueue_at for outgoing in outcome.publish] == [world.now + timedelta(seconds=72)]
    world.ledger.contents = lambda run_id: (world.pass_time(100), scan(run_id))[1]
    outcome = await world.take(make.check(1))
    assert [outgoing.enqueue_at for outgoing in outcome.publish] == [world.now + timedelta(seconds=120)]


async def test_an_upload_that_enters_while_its_quiet_run_is_looked_at_keeps_it_open(world, make):
    world.enter("u1")
    await deliver(world, make, "u1")
    world.pass_time(600)
    seen = world.ledger.run

    async def enters_after_the_look(run_id):
        found = await seen(run_id)
        world.ledger.run = seen
        world.enter("u2")
        return found

    world.ledger.run = enters_after_the_look
    outcome = await world.take(make.check())
    assert world.run.state is RunState.OPEN
    assert outcome == Done((Outgoing(message=make.check(1), enqueue_at=world.now + timedelta(seconds=600)),))


async def test_two_handlings_at_once_write_one_report(world, make):
    world.enter("u1")
    await world.ledger.record_final(make.run_id, "u1", final_of(make.analysed("u1")))
    await world.ledger.close_run(make.run_id, world.now)
    writes, write = [], world.results.write

    async def slow(container, name, data, content_type):
        writes.append(name)
        await asyncio.sleep(0.01)
        await write(container, name, data, content_type)

    world.results.write = slow
    assert await asyncio.gather(world.take(make.check()), world.take(make.check(1))) == [Done(), Done()]
    reports = [f"report/{make.run_id}/index.html", f"report/{make.run_id}/summary.json"]
    receipts = [f"runs/{make.run_id}/receipt.{suffix}" for suffix in ("csv", "json")]
    assert sorted(writes) == ["receipt.csv", "receipt.json", "receipts.csv", "receipts.json", *reports, *receipts]
    assert len(world.mailer.sent) == 1


async def test_a_repeated_check_arms_the_very_same_next_one(world, make):
    world.enter("u1")
    first, second = await world.take(make.check(3)), await world.take(make.check(3))
    assert first == second  # the same message id: duplicate detection keeps one


async def test_a_check_of_an_unknown_run_is_refused(world, make):
    assert isinstance(await world.take(make.check()), Reject)


async def test_a_run_of_only_refused_uploads_completes_too(world, make):
    world.enter("u1")
    await world.take(make.rejected("u1"))
    await close(world, make)
    assert world.run.state is RunState.COMPLETE


async def test_without_recipients_a_run_completes_without_mail(world, make):
    world.configure(recipients=())
    world.enter("u1")
    await deliver(world, make, "u1")
    await close(world, make)
    assert world.run.state is RunState.COMPLETE
    assert world.mailer.tries == 0


async def test_an_unknown_kind_of_message_is_refused(world):
    event = BlobCreated(id="1", source="s", subject="x", time=world.now, data=BlobCreatedData(e_tag="e"))
    assert isinstance(await world.take(event), Reject)


def test_checks_of_one_run_have_different_message_ids(make):
    ids = {Envelope(message=RunCheck(run_id=make.run_id, supplier="ab", sequence=n)).message_id for n in range(3)}
    assert len(ids) == 3
