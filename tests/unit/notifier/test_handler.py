import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from fusebus.contracts import identity
from fusebus.contracts.envelope import Envelope
from fusebus.contracts.messages import (
    BlobCreated,
    BlobCreatedData,
    BudgetCrossed,
    CloseRun,
    FleetChanged,
    ImageFailed,
    RunCheck,
    StoredBlob,
)
from fusebus.contracts.outcomes import Done, Outgoing, Reject, Retry
from fusebus.ledger import FinalKind, LedgerUnavailable, MailState, RunState
from fusebus.notifier.finals import final_of
from fusebus.notifier.mailers import NotSent, OutcomeUnknown


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
    scan = world.ledger.uploads

    async def slow(run_id):
        world.pass_time(8)
        return await scan(run_id)

    world.ledger.uploads = slow
    outcome = await world.take(make.check())
    assert [outgoing.enqueue_at for outgoing in outcome.publish] == [world.now + timedelta(seconds=72)]
    world.ledger.uploads = lambda run_id: (world.pass_time(100), scan(run_id))[1]
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
    assert sorted(writes) == [f"report/{make.run_id}/index.html", f"report/{make.run_id}/summary.json"]
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


@pytest.mark.parametrize("killed_after", range(6))
async def test_wherever_it_dies_the_run_completes_with_mails_of_one_id(world, make, killed_after):
    """The process dies at the n-th step of finishing: summary, report, intent, send, done, complete."""

    class Killed(BaseException):
        pass

    steps = 0

    def dies_at_its_step(original):
        async def call(*arguments, **more):
            nonlocal steps
            if steps == killed_after:
                steps = 99
                raise Killed
            steps += 1
            return await original(*arguments, **more)

        return call

    world.results.write = dies_at_its_step(world.results.write)
    world.ledger.intend_mail = dies_at_its_step(world.ledger.intend_mail)
    world.mailer.send = dies_at_its_step(world.mailer.send)
    world.ledger.mail_done = dies_at_its_step(world.ledger.mail_done)
    world.ledger.complete_run = dies_at_its_step(world.ledger.complete_run)
    world.enter("u1")
    await deliver(world, make, "u1")
    world.pass_time(600)
    with pytest.raises(Killed):
        await world.take(make.check())
    world.restart()
    world.pass_time(60)  # the lock expires, the message comes back
    await world.take(make.check())
    assert world.run.state is RunState.COMPLETE
    assert len(set(world.mailer.ids)) == 1
    assert world.ledger.mails[make.run_id].state is MailState.DONE


async def test_a_mail_whose_marker_can_not_say_that_it_is_out_is_not_sent_twice(world, make):
    mail_done = world.ledger.mail_done

    async def no_answer(run_id, now):
        raise LedgerUnavailable("no answer")

    world.ledger.mail_done = no_answer
    world.enter("u1")
    await deliver(world, make, "u1")
    await close(world, make)
    for sequence in range(3):
        world.pass_time(60)
        assert (await world.take(make.check(sequence))).publish, "the run is not complete yet"
    world.ledger.mail_done = mail_done
    assert await world.take(make.check(3)) == Done()
    assert world.mailer.tries == 1
    assert world.ledger.mails[make.run_id].state is MailState.DONE
    assert world.run.state is RunState.COMPLETE


async def test_an_intent_that_is_too_old_is_shown_to_the_operator_instead(world, make, caplog):
    world.enter("u1")
    await world.take(make.analysed("u1"))
    await world.ledger.close_run(make.run_id, world.now)
    await world.ledger.intend_mail(make.run_id, "<id@host>", "a dead process", world.now)
    world.pass_time(301)
    assert await world.take(make.check()) == Done()
    assert world.mailer.tries == 0
    assert world.ledger.mails[make.run_id].state is MailState.UNKNOWN
    assert world.run.state is RunState.COMPLETE
    assert "not known whether this mail went out" in caplog.text


async def test_a_mail_that_another_process_may_be_sending_is_left_alone(world, make):
    world.enter("u1")
    await world.take(make.analysed("u1"))
    await world.ledger.close_run(make.run_id, world.now)
    await world.ledger.intend_mail(make.run_id, "<id@host>", "another process", world.now)
    world.pass_time(10)
    outcome = await world.take(make.check())
    assert isinstance(outcome, Done)
    assert outcome.publish
    assert world.mailer.tries == 0


async def test_a_relay_that_is_down_delays_the_mail_without_doubling_it(world, make):
    world.mailer.failures = [NotSent("connection refused", passing=True)] * 20
    world.enter("u1")
    await deliver(world, make, "u1")
    await close(world, make)
    del world.results[f"report/{make.run_id}/index.html"]  # written once: a mail is only meant after its report
    for sequence in range(19):  # ten minutes
        world.pass_time(30)
        assert (await world.take(make.check(sequence))).publish
    world.pass_time(30)
    assert await world.take(make.check(19)) == Done()
    assert len(world.mailer.sent) == 1
    assert world.run.state is RunState.COMPLETE
    assert f"report/{make.run_id}/index.html" not in world.results


async def test_a_refused_mail_does_not_hold_the_run(world, make):
    world.mailer.failures = [NotSent("550 no such user", passing=False)]
    world.enter("u1")
    await deliver(world, make, "u1")
    await close(world, make)
    assert world.run.state is RunState.COMPLETE
    assert world.ledger.mails[make.run_id].state is MailState.REFUSED
    assert "550" in world.ledger.mails[make.run_id].detail


async def test_a_relay_that_stays_away_for_a_day_is_given_up(world, make):
    world.mailer.failures = [NotSent("connection refused", passing=True)] * 2
    world.enter("u1")
    await deliver(world, make, "u1")
    await close(world, make)
    world.pass_time(86_401)
    assert await world.take(make.check()) == Done()
    assert world.ledger.mails[make.run_id].state is MailState.REFUSED


async def test_a_mail_of_unknown_outcome_is_repeated_for_five_minutes_only(world, make):
    world.mailer.failures = [OutcomeUnknown("dropped after DATA")] * 100
    world.enter("u1")
    await deliver(world, make, "u1")
    await close(world, make)
    sequence = 0
    while (await world.take(make.check(sequence))).publish:
        world.pass_time(30)
        sequence += 1
        assert sequence < 50
    assert world.mailer.tries <= 10
    assert world.ledger.mails[make.run_id].state is MailState.UNKNOWN
    assert world.run.state is RunState.COMPLETE


async def test_a_certain_failure_after_an_unknown_one_stays_unknown(world, make):
    world.mailer.failures = [OutcomeUnknown("dropped after DATA"), *[NotSent("refused", passing=True)] * 100]
    world.enter("u1")
    await deliver(world, make, "u1")
    await close(world, make)
    for sequence in range(12):
        world.pass_time(30)
        await world.take(make.check(sequence))
    assert world.ledger.mails[make.run_id].state is MailState.UNKNOWN


def crossed(share: float) -> BudgetCrossed:
    return BudgetCrossed(
        month="2026-11",
        share=share,
        spent=80.5,
        budget=100,
        currency="EUR",
        crossed_at=datetime(2026, 11, 21, 11, tzinfo=UTC),
    )


async def test_each_share_of_a_months_budget_is_told_once(world):
    for share in (0.5, 0.5, 0.8, 0.5, 0.8):
        assert await world.take(crossed(share)) == Done()
    assert [str(mail["Subject"]) for mail in world.mailer.sent] == [
        "Budget 2026-11: 50% spent",
        "Budget 2026-11: 80% spent",
    ]


async def test_an_alert_waits_for_the_ledger_as_finals_do(world):
    world.ledger.broken = True
    outcome = await world.take(crossed(0.5), attempt=2)
    assert outcome == Retry(delay=10, reason="ledger_unavailable", description="broken for this test")


async def test_two_deliveries_of_an_alert_at_once_send_one_mail(world):
    look, send = world.ledger.mail_marker, world.mailer.send

    async def slow_look(key):
        found = await look(key)
        await asyncio.sleep(0.01)
        return found

    async def slow_send(message):
        await asyncio.sleep(0.01)
        await send(message)

    world.ledger.mail_marker, world.mailer.send = slow_look, slow_send
    await asyncio.gather(world.take(crossed(0.5)), world.take(crossed(0.5)))
    assert len(world.mailer.sent) == 1


async def test_an_alert_that_can_not_be_sent_is_tried_again(world):
    world.mailer.failures = [NotSent("connection refused", passing=True)]
    assert await world.take(crossed(0.5)) == Retry(
        delay=30, reason="mail_outstanding", description="see the mail's marker"
    )
    assert await world.take(crossed(0.5), attempt=2) == Done()
    assert len(world.mailer.sent) == 1


async def test_a_change_of_the_fleet_is_only_logged(world, caplog):
    caplog.set_level("INFO")
    change = FleetChanged(pool="spot", nodes=2, workers=2, because="48 images wait", decided_at=world.now)
    assert await world.take(change) == Done()
    assert caplog.records[-1].event["because"] == "48 images wait"


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
    scan = world.ledger.uploads

    async def refuses_the_other(run_id):
        if run_id == other:
            raise ValueError("a row that nobody can read")
        return await scan(run_id)

    world.ledger.uploads = refuses_the_other
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


async def test_an_unknown_kind_of_message_is_refused(world):
    event = BlobCreated(id="1", source="s", subject="x", time=world.now, data=BlobCreatedData(e_tag="e"))
    assert isinstance(await world.take(event), Reject)


def test_checks_of_one_run_have_different_message_ids(make):
    ids = {Envelope(message=RunCheck(run_id=make.run_id, supplier="ab", sequence=n)).message_id for n in range(3)}
    assert len(ids) == 3
