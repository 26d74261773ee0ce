"""The accounts in real tables: samples of a month, alerts that were told, the bill as it was read last."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from fusebus.contracts import identity
from fusebus.contracts.messages import RejectReason
from fusebus.ledger import SERVICES, BilledDay, CostSample, Ledger, LedgerSettings, UploadEntry

NOW = datetime(2026, 5, 31, 23, 59, 30, tzinfo=UTC)


@pytest.fixture
async def ledger(ledger_settings: LedgerSettings) -> AsyncIterator[Ledger]:
    async with Ledger(ledger_settings) as opened:
        await opened.create_tables()
        yield opened


def sample(pool: str, started_at: datetime) -> CostSample:
    return CostSample(
        pool=pool,
        started_at=started_at,
        ended_at=started_at + timedelta(seconds=60),
        node_seconds=120,
        cost=0.5,
        currency="GBP",
        estimated=True,
        vm_size="Standard_NC4as_T4_v3",
        serves="detect",
        spot_node_seconds=60,
        seconds_by_state={"idle": 30.0, "running": 90.0},
    )


async def test_samples_of_nodes_and_services_come_back_as_they_were_and_in_their_month(ledger: Ledger) -> None:
    mine = [sample(SERVICES, NOW), sample("gpu", NOW), sample("gpu", NOW + timedelta(minutes=1))]
    for one in [*mine, mine[1]]:
        await ledger.add_cost_sample(one)
    assert [one async for one in ledger.cost_samples("2026-05")] == mine[:2]
    assert [one async for one in ledger.cost_samples("2026-06")] == mine[2:]


async def test_an_alert_is_noted_once_and_known_after_a_restart(
    ledger: Ledger, ledger_settings: LedgerSettings
) -> None:
    assert await ledger.note_budget_alert("2026-05", "0.5-of-100-GBP", NOW)
    assert not await ledger.note_budget_alert("2026-05", "0.5-of-100-GBP", NOW)
    async with Ledger(ledger_settings) as restarted:
        assert await restarted.budget_alerts("2026-05") == {"0.5-of-100-GBP"}
        assert await restarted.budget_alerts("2026-06") == frozenset()


async def test_a_later_reading_of_the_bill_takes_the_place_of_the_earlier_one(ledger: Ledger) -> None:
    first = BilledDay(day="2026-05-30", service="Virtual Machines", cost=3.0, currency="GBP", read_at=NOW)
    later = msgspec.structs.replace(first, cost=4.5, read_at=NOW + timedelta(days=1))
    other = msgspec.structs.replace(first, service="Storage / Hot #1", cost=0.25)
    await ledger.write_bill([first, other])
    await ledger.write_bill([later])
    await ledger.write_bill([first])
    assert sorted(await ledger.bill("2026-05"), key=lambda day: day.service) == [other, later]


async def test_runs_are_found_by_the_time_in_which_they_were_opened(ledger: Ledger) -> None:
    async def opened(supplier: str, moment: datetime) -> str:
        entry = UploadEntry(
            upload_id=identity.upload_id(f"in-{supplier}", "a.jpg", "0x1"),
            supplier=supplier,
            container=f"in-{supplier}",
            blob_name="a.jpg",
            blob_etag="0x1",
            size=1,
            uploaded_at=moment,
            reject_reason=RejectReason.EMPTY,
        )
        return (await ledger.enter_upload(entry, moment)).run_id

    start = datetime(2026, 5, 1, tzinfo=UTC)
    end = datetime(2026, 6, 1, tzinfo=UTC)
    first, last = await opened("acme", start), await opened("beta", NOW)
    await opened("early", start - timedelta(microseconds=1))
    await opened("late", end)
    assert [run.run_id for run in await ledger.runs_opened(start, end)] == [first, last]
