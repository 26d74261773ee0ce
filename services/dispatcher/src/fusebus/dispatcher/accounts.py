"""The dispatcher's money side: meters of all pools, samples into the ledger, the budget's verdict and its alerts.

How the loop uses it, once a look:

    accounts = Accounts(settings.costs, ledger, publisher, (PoolCosts("gpu", "Standard_NC4as_T4_v3", "detect"),))
    await accounts.begin(now)                   # at the start and whenever leadership is gained
    accounts.saw("gpu", pool.nodes, now)        # for each pool; None where it could not be read
    verdict = await accounts.settle(now)        # `verdict.left` and `verdict.may_buy` are for the policy
    await accounts.close(now)                   # at the end, or when leadership is lost
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Protocol

import msgspec

from fusebus.bus import BusError
from fusebus.contracts.messages import BudgetCrossed
from fusebus.contracts.outcomes import Outgoing
from fusebus.costs import (
    Alert,
    MonthSoFar,
    PriceError,
    PriceList,
    Rates,
    Verdict,
    Waiting,
    forecast,
    month_before,
    month_of,
    what_happens,
)
from fusebus.costs.settings import CostSettings
from fusebus.dispatcher.meter import Node, NodeMeter
from fusebus.host import SettingsError
from fusebus.ledger import SERVICES, CostSample, LedgerError

MOST_UNWRITTEN = 10_000  # samples that wait for the ledger; a week of one pool
PRICES_AHEAD = timedelta(days=1)  # daily prices repeat: later ones say nothing new
LOCAL_REGION = "local"  # what a local Batch tells: its nodes cost as in the settings' region, for trying

log = logging.getLogger(__name__)


class Announcer(Protocol):
    """The publisher."""

    async def publish(self, outgoing: Sequence[Outgoing]) -> None:
        """Send all, or raise BusError."""


class AccountBooks(Protocol):
    """The ledger, as far as it is needed here; raises LedgerError."""

    async def add_cost_sample(self, sample: CostSample) -> None:
        """Add it; a repeat adds nothing."""

    def cost_samples(self, month: str) -> AsyncIterator[CostSample]:
        """All of a month."""

    async def budget_alerts(self, month: str) -> frozenset[str]:
        """Marks of those that were told."""

    async def note_budget_alert(self, month: str, mark: str, told_at: datetime) -> bool:
        """Write down that it was told."""


class PoolCosts(msgspec.Struct, frozen=True):
    """What the meter must know of a pool."""

    pool: str
    vm_size: str
    serves: str = ""
    """The job kind; empty: any."""
    region: str = ""
    """Empty: where the Batch account is; priced by the region of the settings."""


class _Books(msgspec.Struct):
    """What the ledger has of one month."""

    month: str
    by_day: dict[date, float] = {}
    counted_until: dict[str, datetime] = {}
    """By pool."""
    services_days: set[date] = set()
    foreign: set[str] = set()
    """Currencies that can't be turned into ours."""


class Accounts:
    """Keeps the month's sums in memory; the ledger is read by `begin`, and again until that has worked."""

    def __init__(
        self,
        settings: CostSettings,
        ledger: AccountBooks,
        publisher: Announcer,
        pools: Sequence[PoolCosts],
        sample_seconds: float = 60.0,
        prices: PriceList | None = None,
    ) -> None:
        """Raises SettingsError where a pool's VM size has no price: what it costs must be known to be capped."""
        self.budget, self._ledger, self._publisher = settings.budget(), ledger, publisher
        self._pools, self._sample_seconds = {pool.pool: pool for pool in pools}, sample_seconds
        self._prices = prices or settings.prices()
        self._region, self._regions_checked = settings.region, frozenset[tuple[str, str]]()
        self.rates = {pool.pool: self._rates(pool) for pool in pools}
        """By pool, as they were at the last look."""
        self._meters: dict[str, NodeMeter] = {}
        self._first_sights: dict[str, tuple[list[Node], datetime]] = {}  # by pool, while the books are not read
        self._by_day: defaultdict[date, float] | None = None  # None: not read yet
        self._unknown: frozenset[str] = frozenset()  # months with cost in a currency that can't be turned into ours
        self._told: dict[str, frozenset[str]] = {}
        self._unwritten: list[CostSample] = []
        self.services_days: frozenset[date] = frozenset()
        """Days of this month and the one before whose storage and messages are in the books."""
        self.waiting: tuple[Waiting, ...] = ()
        """What waits by deadline, for the words of an alert; set by the loop."""
        self.so_far: MonthSoFar | None = None
        """What the last verdict rests on."""

    async def begin(self, now: datetime) -> None:
        """Read the books: what this month and the one before cost, and what was told. Logs where they can't be.

        Samples in another currency, of before the setting was changed, count at the price list's rate.
        """
        month = month_of(now)
        try:
            read = [await self._read(one) for one in (month_before(month), month)]
            self._told = {month: await self._ledger.budget_alerts(month)}
        except LedgerError as error:
            log.warning("the books can't be read, so nothing new is bought under a budget: %s", error)
            return
        self._unknown = frozenset(books.month for books in read if books.foreign)
        self._take_over({pool: until for books in read for pool, until in books.counted_until.items()})
        self.services_days = frozenset(day for books in read for day in books.services_days)
        self._by_day = defaultdict(float)
        for sample in self._unwritten:
            self._by_day[sample.started_at.astimezone(UTC).date()] += sample.cost
        for books in read:
            for day, cost in books.by_day.items():
                self._by_day[day] += cost

    async def _read(self, month: str) -> _Books:
        """Raises LedgerError."""
        books = _Books(month)
        async for sample in self._ledger.cost_samples(month):
            day = sample.started_at.astimezone(UTC).date()
            books.counted_until[sample.pool] = sample.ended_at
            if sample.pool == SERVICES:
                books.services_days.add(day)
            cost = self._prices.turned(sample.cost, sample.currency)
            if cost is None:
                books.foreign.add(sample.currency)
            else:
                books.by_day[day] = books.by_day.get(day, 0.0) + cost
        if books.foreign:
            log.error(
                "it is not known what %s has cost: it has samples in %s, and the price list has no rate from %s to it; "
                "give it one (exchange_rates)", month, ", ".join(sorted(books.foreign)), self._prices.currency,
            )  # fmt: skip
        return books

    def _take_over(self, counted_until: dict[str, datetime]) -> None:
        """Go on where the samples in the ledger end, also for what was seen before it could be read."""
        gaps: list[CostSample] = []
        for name, (nodes, seen_at) in self._first_sights.items():
            gap = self._meter(name, counted_until.get(name))
            gaps += gap.observe(nodes, self.rates[name], seen_at) + gap.close(self.rates[name], seen_at)
        self._unwritten, self._first_sights = gaps + self._unwritten, {}
        for sample in self._unwritten:
            counted_until[sample.pool] = max(sample.ended_at, counted_until.get(sample.pool, sample.ended_at))
        for name in self._pools:
            if name not in self._meters:
                self._meters[name] = self._meter(name, counted_until.get(name))

    def saw(self, pool: str, nodes: Iterable[Node] | None, now: datetime) -> None:
        """Count a pool's nodes until now; None where they could not be read: the last sight goes on costing."""
        if pool not in self._meters:  # the books are not open: what was before the first sight is counted once they are
            if nodes is None:
                return
            nodes = list(nodes)
            self._first_sights.setdefault(pool, (nodes, now))
            self._meters[pool] = self._meter(pool, None)
        self._keep(self._meters[pool].observe(nodes, self.rates[pool], now))
        if self._prices.daily:
            self.rates[pool] = self._rates(self._pools[pool], now)

    def coming(self, now: datetime) -> dict[str, tuple[tuple[datetime, Rates], ...]]:
        """By pool: the rates that are known to follow within a day, and from when on they hold."""
        until = now + PRICES_AHEAD
        return {
            name: self._prices.changes(pool.vm_size, pool.region or self._region, now, until)
            for name, pool in self._pools.items()
            if self._prices.daily
        }

    def check_region(self, pool: str, account: str) -> None:
        """Warn, once for each pool and region, where its Batch account is elsewhere than its nodes are priced."""
        account = account.replace(" ", "").lower()  # "UK South" too
        if account in ("", LOCAL_REGION) or (pool, account) in self._regions_checked:
            return
        self._regions_checked |= {(pool, account)}
        if not self._pools[pool].region and account != self._region:
            log.warning(
                "nodes of %s are in %s, where the Batch account is, but cost what they would in %s: set "
                "FUSEBUS_COSTS_REGION, or the region of the pool or account", pool, account, self._region,
            )  # fmt: skip

    def add_services(self, sample: CostSample) -> None:
        """Take in what storage and messages of a day cost, once for each day; the next `settle` writes it."""
        day = sample.started_at.astimezone(UTC).date()
        if self._by_day is not None and day not in self.services_days:
            self.services_days |= {day}
            self._keep([sample])

    @property
    def opened(self) -> bool:
        """Whether the books could be read."""
        return self._by_day is not None

    async def settle(self, now: datetime) -> Verdict:
        """Write what is counted, tell what is due, and say what is left. Raises nothing of ledger or bus."""
        if self._by_day is None:
            await self.begin(now)
        await self._write()
        verdict = self.verdict(now)
        await self._tell(verdict, now)
        return verdict

    def verdict(self, now: datetime) -> Verdict:
        """What the budget says at this moment."""
        month = month_of(now)
        spent = foretold = None
        if self._by_day is not None and month not in self._unknown:
            spent = sum(cost for day, cost in self._by_day.items() if f"{day:%Y-%m}" == month)
            foretold = forecast(spent, self._by_day, now)
        self.so_far = MonthSoFar(
            month=month,
            spent=spent,
            forecast=foretold,
            burning_per_hour=sum(meter.burning_per_hour(self.rates[name]) for name, meter in self._meters.items()),
            told=self._told.get(month, frozenset()),
        )
        return self.budget.after(self.so_far)

    async def close(self, now: datetime) -> None:
        """Write what has been counted since the last samples; the books are read anew by the next `begin`."""
        for name, meter in self._meters.items():
            self._keep(meter.close(self.rates[name], now))
        await self._write()
        self._meters, self._by_day = {}, None

    def _rates(self, pool: PoolCosts, at: datetime | None = None) -> Rates:
        try:
            return self._prices.rates(pool.vm_size, pool.region or self._region, at)
        except PriceError as error:
            way_out = f"fusebus prices refresh --size {pool.vm_size}"
            problem = f"FUSEBUS_COSTS_PRICE_FILE: {error}; pool {pool.pool} can't be metered; {way_out} gets it"
            raise SettingsError([problem]) from error

    def forget(self) -> None:
        """Drop what is not written: who leads meanwhile has counted on from the last sample that is."""
        self._meters, self._by_day, self._unwritten, self._first_sights = {}, None, [], {}

    def _meter(self, pool: str, counted_until: datetime | None) -> NodeMeter:
        facts = self._pools[pool]
        return NodeMeter(pool, facts.vm_size, facts.serves, self._sample_seconds, counted_until)

    def _keep(self, samples: list[CostSample]) -> None:
        for sample in samples:
            self._unwritten.append(sample)
            if self._by_day is not None:
                self._by_day[sample.started_at.astimezone(UTC).date()] += sample.cost
        if len(self._unwritten) > MOST_UNWRITTEN:
            lost = self._unwritten[:-MOST_UNWRITTEN]
            self._unwritten = self._unwritten[-MOST_UNWRITTEN:]
            log.error("%d cost samples are given up: the ledger takes none", len(lost))

    async def _write(self) -> None:
        """Samples that could not be written wait for the next look: sizing must not depend on the books."""
        try:
            while self._unwritten:
                sample = self._unwritten[0]
                await self._ledger.add_cost_sample(sample)
                if self._unwritten and self._unwritten[0] is sample:  # else all was dropped meanwhile
                    self._unwritten.pop(0)
        except LedgerError as error:
            log.warning("%d cost samples wait to be written: %s", len(self._unwritten), error)

    async def _tell(self, verdict: Verdict, now: datetime) -> None:
        """Publish, then note: who dies between tells again, under the same id, and the notifier mails once."""
        for alert in verdict.alerts:
            consequence = "" if alert.foretold else what_happens(verdict, alert.month, self.waiting, now)
            try:
                await self._publisher.publish([Outgoing(message=_message(alert, consequence, now))])
                await self._ledger.note_budget_alert(alert.month, alert.mark, now)
            except (BusError, LedgerError) as error:
                log.warning("the alert %s waits for the next look: %s", alert.mark, error)
                return
            log.warning("budget alert %s: %s", alert.mark, verdict.because)
            self._told = {alert.month: self._told.get(alert.month, frozenset()) | {alert.mark}}


def _message(alert: Alert, consequence: str, now: datetime) -> BudgetCrossed:
    return BudgetCrossed(
        month=alert.month,
        share=alert.share,
        spent=alert.spent,
        budget=alert.budget,
        currency=alert.currency,
        crossed_at=now,
        mark=alert.mark,
        forecast=alert.forecast,
        foretold=alert.foretold,
        consequence=consequence,
    )
