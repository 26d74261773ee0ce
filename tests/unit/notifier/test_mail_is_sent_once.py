import msgspec
import pytest

from fusebus.blobs import StorageError, layout
from fusebus.contracts.messages import CloseRun
from fusebus.contracts.outcomes import Done
from fusebus.ledger import LedgerUnavailable, MailState, RunState
from fusebus.notifier.mailers import NotSent, OutcomeUnknown


async def deliver(world, make, *uploads):
    for upload in uploads:
        assert await world.take(make.analysed(upload)) == Done()


async def close(world, make):
    return await world.take(CloseRun(run_id=make.run_id, supplier="northgrid", requested_by="a person"))


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


@pytest.fixture
def refused(world):
    """Storage refuses the supplier's container, as it does an identity without its role there."""
    write = world.results.write

    async def only_results(container, name, data, content_type):
        if container != layout.RESULTS:
            raise StorageError(f"{container}/{name}: 403")
        await write(container, name, data, content_type)

    world.results.write = only_results


async def test_a_receipt_that_is_refused_for_long_holds_neither_mail_nor_run(world, make, refused, caplog):
    world.mailer.failures = [NotSent("connection refused", passing=True)]
    world.enter("u1")
    world.pass_time(36_000)  # from closing to the last final
    world.ledger.runs_by_id[make.run_id] = msgspec.structs.replace(world.run, state=RunState.CLOSED)
    late = msgspec.structs.replace(make.analysed("u1"), analysed_at=world.now)
    await world.take(late)
    for sequence in range(119):  # an hour but half a minute
        world.pass_time(30)
        assert (await world.take(make.check(sequence))).publish
    assert (world.mailer.tries, world.run.state) == (0, RunState.CLOSED), "it may be a matter of minutes"
    world.pass_time(31)
    assert (await world.take(make.check(119))).publish, "the mail itself is tried again"
    assert [one.levelname for one in caplog.records if "without a receipt" in one.message] == ["ERROR"]
    world.restart()
    world.pass_time(30)
    assert await world.take(make.check(120)) == Done()
    assert world.run.state is RunState.COMPLETE
    [mail] = world.mailer.sent
    for part in ("plain", "html"):
        assert "got no receipt" in mail.get_body((part,)).get_content()


async def test_a_receipt_that_is_taken_at_last_is_not_missed(world, make, refused):
    world.enter("u1")
    await deliver(world, make, "u1")
    await close(world, make)
    assert world.mailer.tries == 0
    del world.results.write
    assert await world.take(make.check()) == Done()
    assert "receipt" not in world.mailer.sent[0].get_body(("plain",)).get_content()
