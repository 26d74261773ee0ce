import asyncio
from datetime import UTC, datetime

import msgspec

from fusebus.contracts.messages import (
    BudgetCrossed,
    FleetChanged,
    JobKind,
    ModelRefused,
    UploadsHeld,
    WorkLate,
)
from fusebus.contracts.outcomes import Done, Retry
from fusebus.notifier.mailers import NotSent


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


async def test_a_forecast_and_a_raised_budget_are_told_beside_the_shares_each_once(world):
    facts = {"mark": "1-of-100-EUR", "forecast": 140.0, "consequence": "No new nodes."}
    spent = msgspec.structs.replace(crossed(1.0), spent=100.5, **facts)
    foretold = msgspec.structs.replace(spent, share=1.4, mark="forecast-of-100-EUR", foretold=True, consequence="")
    raised = msgspec.structs.replace(crossed(0.5), budget=160, mark="0.5-of-160-EUR")
    for message in (foretold, spent, foretold, raised, raised):
        assert await world.take(message) == Done()
    assert [str(mail["Subject"]) for mail in world.mailer.sent] == [
        "Budget 2026-11: 140% foretold",
        "Budget 2026-11: 100% spent",
        "Budget 2026-11: 50% spent",
    ]
    assert "No new nodes." in world.mailer.sent[1].get_content()
    assert "140.00 EUR for the whole month" in world.mailer.sent[0].get_content()


async def test_a_budget_of_which_the_rest_is_kept_for_what_runs_is_not_called_spent(world):
    assert await world.take(msgspec.structs.replace(crossed(1.0), mark="1-of-100-EUR")) == Done()
    (mail,) = world.mailer.sent
    assert mail["Subject"] == "Budget 2026-11: 80% spent, the rest kept"
    words = mail.get_content()
    assert "of 2026-11, with what is needed to end what runs, has reached its budget." in words
    assert "crossed" not in words and "80.50 EUR" in words


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


async def test_a_refused_model_is_only_logged(world, caplog):
    caplog.set_level("INFO")
    refused = ModelRefused(
        model="demo@3", serving="demo@2", reason="graph", description="op Loop", worker="node/1", refused_at=world.now
    )
    assert await world.take(refused) == Done()
    assert caplog.records[-1].event["serving"] == "demo@2"


async def test_a_change_of_the_fleet_is_only_logged(world, caplog):
    caplog.set_level("INFO")
    change = FleetChanged(pool="spot", nodes=2, workers=2, because="48 images wait", decided_at=world.now)
    assert await world.take(change) == Done()
    assert caplog.records[-1].event["because"] == "48 images wait"


def late(minute: int = 0, **more) -> WorkLate:
    since = datetime(2026, 11, 21, 11, minute, tzinfo=UTC)
    return WorkLate(job_kind=JobKind.DETECT, since=since, images=1200, because="the quota of Spot is 0 vCores", **more)


async def test_work_that_turns_late_is_mailed_once_each_time_with_its_reason(world):
    for message in (late(late_seconds=720.0), late(late_seconds=900.0), late(minute=30)):
        assert await world.take(message) == Done()
    first, second = world.mailer.sent
    assert first["Subject"] == "1,200 images (detect) will be late"
    words = first.get_content()
    assert "by up to 12 min" in words and "the quota of Spot is 0 vCores" in words
    assert "21 November 2026, 11:00 UTC" in words
    assert "for good" in second.get_content()


async def test_a_reason_with_line_breaks_makes_no_lines_of_its_own(world):
    assert await world.take(msgspec.structs.replace(late(), because="quota\r\nBcc: all@example.org")) == Done()
    assert "\nBcc:" not in world.mailer.sent[0].get_content()


def held(because: str = "quota", day: int = 21, email: str = "photos@acme.example") -> UploadsHeld:
    at = datetime(2026, 11, day, 11, tzinfo=UTC)
    until = datetime(2026, 11, day + 1, tzinfo=UTC) if because == "quota" else None
    return UploadsHeld(
        supplier="acme",
        because=because,
        day=f"2026-11-{day}",
        held_at=at,
        until=until,
        email=email,
        images_per_day=5000,
    )


async def test_a_supplier_is_told_once_a_day_and_reason_that_its_uploads_are_held(world):
    for message in (held(), held(), held("suspended"), held(day=22), held("suspended")):
        assert await world.take(message) == Done()
    assert [mail["To"].addresses[0].addr_spec for mail in world.mailer.sent] == ["photos@acme.example"] * 3
    over, suspended, _ = [mail.get_content() for mail in world.mailer.sent]
    assert "(5,000 uploads)" in over and "after 2026-11-22 00:00 UTC" in over and "nothing has to be sent again" in over
    assert "are suspended" in suspended


async def test_what_is_held_of_a_supplier_without_an_address_is_told_to_ops(world):
    assert await world.take(held(email="")) == Done()
    assert "photos@acme.example" not in str(world.mailer.sent[0]["To"])
