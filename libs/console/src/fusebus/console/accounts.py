"""A month's accounts as `fusebus cost` shows them: whose cost it is, forecast, budget, and the bill beside it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta

import msgspec

from fusebus.contracts.messages import JobKind
from fusebus.costs import Budget, MonthSoFar, forecast, month_before, month_bounds, month_of
from fusebus.costs.bill import read_bill
from fusebus.costs.drift import NODES, SERVICES, Billed, DayDrift, Metered, compare, total
from fusebus.costs.settings import CostSettings
from fusebus.costs.spending import By, Report, Work, report
from fusebus.ledger import SERVICES as SERVICES_POOL
from fusebus.ledger import BilledDay, CostSample, FinalKind, Ledger, UploadRow

LONGEST_RUN = timedelta(days=7)  # a delivery that was opened earlier is not looked at for this month
READ_AT_ONCE = 16  # runs

_SERVES = {FinalKind.ANALYSED: JobKind.DETECT.value, FinalKind.CONVERTED: JobKind.CONVERT.value}


class Accounts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything `fusebus cost` shows."""

    report: Report
    forecast: float | None
    """Of the whole month; None for a month that is over, or where too little is known."""
    budget: float
    """0: there is none."""
    alerts: tuple[str, ...]
    """Marks of the budget alerts that were told."""
    capped: bool
    """Whether the spent budget stops buying, as far as the books tell: what nodes burn now they don't."""
    drift: tuple[DayDrift, ...]
    """By day and kind; empty where no bill was ever read."""
    nodes_drift: DayDrift
    services_drift: DayDrift
    bill_read_at: datetime | None
    bill_currencies: tuple[str, ...]
    """Other ones than ours: they can't be compared."""


async def look(ledger: Ledger, settings: CostSettings, month: str, by: By, now: datetime) -> Accounts:
    """Read a month's accounts. Raises LedgerError."""
    begin, end = month_bounds(month)
    samples, before, bill, alerts = await asyncio.gather(
        _samples(ledger, month),
        _samples(ledger, month_before(month)),
        ledger.bill(month),
        ledger.budget_alerts(month),
    )
    works = [] if by is By.POOL and not samples else await _works(ledger, begin, end)
    found = report(month, by, settings.currency, samples, works)
    lines, foreign = compare(_metered(samples, settings.currency), _lines(bill), settings.currency, now.date())
    return Accounts(
        report=found,
        forecast=_forecast(found.total.cost, [*before, *samples], settings.currency, month, now),
        budget=settings.budget_per_month,
        alerts=tuple(sorted(alerts)),
        capped=_capped(settings.budget(), MonthSoFar(month=month, spent=found.total.cost, told=alerts)),
        drift=tuple(lines) if bill else (),
        nodes_drift=total(lines if bill else (), month, NODES),
        services_drift=total(lines if bill else (), month, SERVICES),
        bill_read_at=max((day.read_at for day in bill), default=None),
        bill_currencies=tuple(sorted(foreign)),
    )


def _capped(budget: Budget, so_far: MonthSoFar) -> bool:
    """Only where it was told: before that, the dispatcher has not stopped yet."""
    return budget.spent_mark in so_far.told and not budget.after(so_far).may_buy


async def take_in_bill(ledger: Ledger, settings: CostSettings, month: str, now: datetime) -> int:
    """Read the month's bill now and keep it; how many lines it has. Raises BillError, LedgerError."""
    lines = await read_bill(settings.bill_scope, month, url=settings.bill_url)
    await ledger.write_bill(
        BilledDay(day=line.day, service=line.service, cost=line.cost, currency=line.currency, read_at=now)
        for line in lines
    )
    return len(lines)


async def _samples(ledger: Ledger, month: str) -> list[CostSample]:
    return [sample async for sample in ledger.cost_samples(month)]


async def _works(ledger: Ledger, begin: datetime, end: datetime) -> list[Work]:
    """All uploads that entered or were done in the month."""
    places = asyncio.Semaphore(READ_AT_ONCE)

    async def of(run_id: str) -> list[UploadRow]:
        async with places:
            return await ledger.uploads(run_id)

    runs = await ledger.runs_opened(begin - LONGEST_RUN, end)
    found = await asyncio.gather(*(of(run.run_id) for run in runs))
    works = [_work(upload) for uploads in found for upload in uploads]
    return [work for work in works if work.entered_at < end and (work.done_at or work.entered_at) >= begin]


def _work(upload: UploadRow) -> Work:
    final = upload.final
    serves = _SERVES.get(final.kind, "") if final else ""
    seconds = sum(msgspec.structs.astuple(final.timings)) if final and final.timings else 0.0
    return Work(
        run_id=upload.run_id,
        supplier=upload.supplier,
        entered_at=upload.entered_at,
        done_at=final.at if final and serves else None,
        serves=serves,
        worker_seconds=seconds,
    )


def _metered(samples: Iterable[CostSample], currency: str) -> dict[str, Metered]:
    found: defaultdict[str, Metered] = defaultdict(Metered)
    for sample in samples:
        if sample.currency != currency:
            continue
        day = str(sample.started_at.astimezone(UTC).date())
        before = found[day]
        found[day] = (
            Metered(nodes=before.nodes, services=before.services + sample.cost)
            if sample.pool == SERVICES_POOL
            else Metered(nodes=before.nodes + sample.cost, services=before.services)
        )
    return found


def _lines(bill: Iterable[BilledDay]) -> list[Billed]:
    return [Billed(day=day.day, service=day.service, cost=day.cost, currency=day.currency) for day in bill]


def _forecast(spent: float, samples: Sequence[CostSample], currency: str, month: str, now: datetime) -> float | None:
    if month != month_of(now):
        return None
    by_day: defaultdict[date, float] = defaultdict(float)
    for sample in samples:
        if sample.currency == currency:
            by_day[sample.started_at.astimezone(UTC).date()] += sample.cost
    return forecast(spent, by_day, now)
