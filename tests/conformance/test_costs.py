"""A month's accounts end to end: real tables, the night's work, the real bill client, the command."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from click.testing import CliRunner

from fusebus.console.__main__ import fusebus
from fusebus.console.accounts import look
from fusebus.contracts import identity
from fusebus.contracts.messages import StageTimings
from fusebus.costs.settings import CostSettings
from fusebus.costs.spending import By
from fusebus.dispatcher.accounts import Accounts, PoolCosts
from fusebus.dispatcher.nightly import Nightly
from fusebus.ledger import (
    SERVICES,
    CostSample,
    Final,
    FinalKind,
    ImageFacts,
    Ledger,
    LedgerSettings,
    UploadEntry,
)

DAY = datetime(2026, 11, 18, tzinfo=UTC)
NOON = DAY + timedelta(hours=12)
NIGHT = datetime(2026, 11, 19, 3, 5, tzinfo=UTC)


@pytest.fixture
async def ledger(ledger_settings: LedgerSettings) -> AsyncIterator[Ledger]:
    async with Ledger(ledger_settings) as opened:
        await opened.create_tables()
        yield opened


@pytest.fixture
def settings(cost_management) -> CostSettings:
    return CostSettings(budget_per_month=1000, bill_scope=cost_management.scope, bill_url=cost_management.url)


class Nobody:
    """A publisher that nobody listens to."""

    async def publish(self, outgoing) -> None:
        """Done."""


async def analysed(ledger: Ledger, supplier: str, name: str, seconds: float, at: datetime = NOON) -> None:
    entry = UploadEntry(
        upload_id=identity.upload_id(f"in-{supplier}", name, "0x1"),
        supplier=supplier,
        container=f"in-{supplier}",
        blob_name=name,
        blob_etag="0x1",
        size=3_000_000,
        uploaded_at=at,
        image=ImageFacts(image_id="i", sha256="0" * 64, format="jpeg", width=4000, height=3000),
    )
    entered = await ledger.enter_upload(entry, at)
    final = Final(kind=FinalKind.ANALYSED, at=at + timedelta(minutes=5), timings=StageTimings(model=seconds))
    await ledger.record_final(entered.run_id, entry.upload_id, final)


async def worked_a_day(ledger: Ledger) -> None:
    """Two suppliers, ten minutes of nodes, ten pounds."""
    await analysed(ledger, "acme", "a.jpg", 3.0)
    await analysed(ledger, "beta", "b.jpg", 1.0)
    for number in range(10):
        start = NOON + timedelta(minutes=number)
        await ledger.add_cost_sample(
            CostSample(
                pool="gpu",
                started_at=start,
                ended_at=start + timedelta(minutes=1),
                node_seconds=60,
                cost=1.0,
                currency="GBP",
                estimated=True,
                serves="detect",
            )
        )


async def test_the_night_takes_in_services_and_the_bill_once_and_the_command_shows_it_all(
    ledger: Ledger, settings: CostSettings, cost_management
) -> None:
    await worked_a_day(ledger)
    for _ in range(2):  # the second is a dispatcher that was started anew
        accounts = Accounts(settings, ledger, Nobody(), [PoolCosts("gpu", "NC4as_T4_v3", "detect")])
        night = Nightly(settings, ledger, accounts, clock=lambda: NIGHT)
        assert not await night.look(), "the books were not read yet"
        await accounts.begin(NIGHT)
        assert await night.look()
        assert not await night.look(), "once a day"
        spent = (await accounts.settle(NIGHT)).because
    found = await look(ledger, settings, "2026-11", By.DAY, NIGHT)
    services = [sample async for sample in ledger.cost_samples("2026-11") if sample.pool == SERVICES]
    assert [sample.started_at.day for sample in services] == [16, 17, 18]
    assert services[2].cost > services[1].cost > 0 and services[2].detail.startswith("2 uploads of 6.0 MB")
    assert f"{10 + sum(sample.cost for sample in services):,.2f} of 1,000.00 GBP" in spent
    assert {line.day: line.billed for line in found.drift if line.kind == "nodes"} == {
        "2026-11-16": 0, "2026-11-17": 10.5, "2026-11-18": 10.5, "2026-11-19": 10.5,
    }  # fmt: skip
    assert found.bill_read_at == NIGHT and found.bill_currencies == ()
    assert found.report.total.images == 2


async def test_a_dispatcher_that_ends_does_not_wait_for_the_bill(
    ledger: Ledger, settings: CostSettings, cost_management
) -> None:
    accounts = Accounts(settings, ledger, Nobody(), [PoolCosts("gpu", "NC4as_T4_v3")])
    await accounts.begin(NIGHT)
    cost_management.failures = [web.Response(status=429, headers={"retry-after": "60"})]
    stop = asyncio.Event()
    night = asyncio.create_task(Nightly(settings, ledger, accounts, clock=lambda: NIGHT).run(stop))
    async with asyncio.timeout(30):
        while not cost_management.asked:
            await asyncio.sleep(0.01)
        stop.set()
        await night


async def test_suppliers_and_runs_pay_for_what_their_images_took(ledger: Ledger, settings: CostSettings) -> None:
    await worked_a_day(ledger)
    found = await look(ledger, settings, "2026-11", By.SUPPLIER, NIGHT)
    assert {line.name: line.cost for line in found.report.lines} == pytest.approx({"acme": 7.5, "beta": 2.5})
    assert [line.per_image for line in found.report.lines] == pytest.approx([7.5, 2.5])
    runs = await look(ledger, settings, "2026-11", By.RUN, NIGHT)
    assert [line.images for line in runs.report.lines] == [1, 1]
    assert (await look(ledger, settings, "2026-10", By.RUN, NIGHT)).report.lines == ()


async def test_a_run_over_the_months_end_counts_each_image_in_one_month(ledger: Ledger, settings: CostSettings) -> None:
    midnight = datetime(2026, 12, 1, tzinfo=UTC)
    for name, minutes in (("a.jpg", -10), ("b.jpg", -1), ("c.jpg", 5)):  # the second is done in December
        await analysed(ledger, "acme", name, 3.0, at=midnight + timedelta(minutes=minutes))
    images = [
        [line.images for line in (await look(ledger, settings, month, By.RUN, NIGHT)).report.lines]
        for month in ("2026-11", "2026-12")
    ]
    assert images == [[1], [2]]


async def test_the_bill_is_read_by_command_too(
    ledger: Ledger, settings: CostSettings, ledger_settings: LedgerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSEBUS_LEDGER_CONNECTION", ledger_settings.connection.reveal())
    monkeypatch.setenv("FUSEBUS_LEDGER_TABLE_PREFIX", ledger_settings.table_prefix)
    monkeypatch.setenv("FUSEBUS_COSTS_BILL_SCOPE", settings.bill_scope)
    monkeypatch.setenv("FUSEBUS_COSTS_BILL_URL", settings.bill_url)
    arguments = ["cost", "--month", "2026-11", "--read-bill"]
    shown = await asyncio.to_thread(CliRunner().invoke, fusebus, arguments)
    assert shown.exit_code == 0, shown.output
    assert "nodes: 31.50 billed, 0.00 metered by then" in shown.output
    assert len(await ledger.bill("2026-11")) == 6


async def test_a_bill_that_can_not_be_read_is_tried_again_and_what_was_read_stays(
    ledger: Ledger, settings: CostSettings, cost_management
) -> None:
    accounts = Accounts(settings, ledger, Nobody(), [PoolCosts("gpu", "NC4as_T4_v3")])
    night = Nightly(settings, ledger, accounts, clock=lambda: NIGHT)
    await accounts.begin(NIGHT)
    cost_management.failures = [web.Response(status=403)]
    assert not await night.look()
    assert await ledger.bill("2026-11") == []
    assert await night.look()
    assert len(await ledger.bill("2026-11")) == 6


def test_the_command_prints_json_and_csv_of_what_is_in_the_ledger(
    ledger_settings: LedgerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def prepare() -> None:
        async with Ledger(ledger_settings) as ledger:
            await ledger.create_tables()
            await worked_a_day(ledger)

    asyncio.run(prepare())
    monkeypatch.setenv("FUSEBUS_LEDGER_CONNECTION", ledger_settings.connection.reveal())
    monkeypatch.setenv("FUSEBUS_LEDGER_TABLE_PREFIX", ledger_settings.table_prefix)
    run = CliRunner().invoke
    shown = run(fusebus, ["cost", "--month", "2026-11", "--by", "pool", "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.output)["report"]["lines"][0]["node_hours"] == pytest.approx(1 / 6)
    lines = {"day": 1, "pool": 1, "run": 2, "supplier": 2}
    for by, count in lines.items():
        arguments = ["cost", "--month", "2026-11", "--by", by]
        found = json.loads(run(fusebus, [*arguments, "--json"]).output)["report"]
        assert (found["by"], len(found["lines"])) == (by, count)
        assert (
            sum(line["cost"] for line in found["lines"]) == pytest.approx(found["total"]["cost"]) == pytest.approx(10)
        )
        table = list(csv.DictReader(io.StringIO(run(fusebus, [*arguments, "--csv"]).output)))
        assert [row[by] for row in table] == [*(line["name"] for line in found["lines"]), "total"]
        assert float(table[-1]["cost_per_image"]) == pytest.approx(5)
    rows = list(csv.DictReader(io.StringIO(run(fusebus, ["cost", "--month", "2026-11", "--csv"]).output)))
    assert [(row["day"], float(row["cost"]), row["images"]) for row in rows] == [
        ("2026-11-18", 10, "2"), ("total", 10, "2"),
    ]  # fmt: skip
    words = run(fusebus, ["cost", "--month", "2026-11"]).output
    assert "metered, an estimate until the bill" in words and "bill: not read yet" in words
