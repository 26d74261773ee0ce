"""What is done once a day: storage and messages of the day before into the books, the bill read and compared.

It runs beside the loop. Only the process that leads has open accounts; the others do nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, date, datetime, time, timedelta
from typing import Protocol

from fusebus.costs import PriceList, month_before, month_of
from fusebus.costs.bill import BillError, read_bill
from fusebus.costs.drift import Billed, Metered, compare
from fusebus.costs.services import services_cost
from fusebus.costs.settings import CostSettings
from fusebus.dispatcher.accounts import Accounts
from fusebus.ledger import SERVICES, BilledDay, CostSample, LedgerError, RunRow, UploadRow

CHECK_SECONDS = 600.0  # between two looks at the clock
DAYS_CAUGHT_UP = 3  # after a pause of the dispatcher
LONGEST_RUN = timedelta(days=7)  # a delivery that takes longer counts only so far
DAYS_OF_BOTH_MONTHS = 5  # of a new month on which the old one's bill is read too

log = logging.getLogger(__name__)


class NightBooks(Protocol):
    """The ledger, as far as it is needed here; raises LedgerError."""

    async def runs_opened(self, start: datetime, end: datetime) -> list[RunRow]:
        """All suppliers' runs."""

    async def uploads(self, run_id: str) -> list[UploadRow]:
        """Of one run."""

    def cost_samples(self, month: str) -> AsyncIterator[CostSample]:
        """All of a month."""

    async def write_bill(self, days: Iterable[BilledDay]) -> None:
        """The last reading counts."""


class Nightly:
    """Does its work once a day, from `bill_hour_utc` on; what fails is logged and tried again by a later look."""

    def __init__(
        self,
        settings: CostSettings,
        ledger: NightBooks,
        accounts: Accounts,
        leads: Callable[[], bool] = lambda: True,
        prices: PriceList | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings, self._ledger, self._accounts, self._leads = settings, ledger, accounts, leads
        self._prices = prices or settings.prices()
        self._clock = clock
        self._done: date | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Look at the clock again and again until `stop`. Whatever fails here, sizing goes on."""
        stopping = asyncio.create_task(stop.wait())
        while not stop.is_set():
            look = asyncio.create_task(self._look_and_log())
            await asyncio.wait({look, stopping}, return_when=asyncio.FIRST_COMPLETED)
            look.cancel()  # a bill that is slow to come is not waited for by a process that ends
            with contextlib.suppress(asyncio.CancelledError):
                await look
            await asyncio.wait({stopping}, timeout=CHECK_SECONDS)

    async def _look_and_log(self) -> None:
        try:
            await self.look()
        except Exception:
            log.exception("the night's accounts are left to a later look")

    async def look(self) -> bool:
        """Whether the night's work was done now."""
        now = self._clock().astimezone(UTC)
        due = now.hour >= self._settings.bill_hour_utc and self._done != now.date()
        if not (due and self._leads() and self._accounts.opened):
            return False
        try:
            await self.services(now)
            await self.bill(now)
        except (LedgerError, BillError) as error:
            log.warning("the night's accounts are left to a later look: %s", error)
            return False
        self._done = now.date()
        return True

    async def services(self, now: datetime) -> None:
        """Put storage and messages of the last days into the books where they are missing. Raises LedgerError."""
        for back in range(DAYS_CAUGHT_UP, 0, -1):
            day = now.date() - timedelta(days=back)
            if day not in self._accounts.services_days:
                self._accounts.add_services(await self._sample(day))

    async def bill(self, now: datetime) -> None:
        """Read the bill, keep it, and log where it differs from the meter. Raises BillError, LedgerError."""
        if not self._settings.bill_scope:
            return
        month = month_of(now)
        months = [month_before(month), month] if now.day <= DAYS_OF_BOTH_MONTHS else [month]
        for one in months:
            lines = await read_bill(self._settings.bill_scope, one, url=self._settings.bill_url)
            await self._ledger.write_bill(
                BilledDay(day=line.day, service=line.service, cost=line.cost, currency=line.currency, read_at=now)
                for line in lines
            )
            await self._compare(one, lines, now)

    async def _compare(self, month: str, lines: list[Billed], now: datetime) -> None:
        metered: dict[str, Metered] = {}
        async for sample in self._ledger.cost_samples(month):
            if sample.currency == self._settings.currency:
                day = str(sample.started_at.astimezone(UTC).date())
                before = metered.get(day, Metered())
                services = sample.pool == SERVICES
                metered[day] = Metered(
                    nodes=before.nodes + (0 if services else sample.cost),
                    services=before.services + (sample.cost if services else 0),
                )
        found, foreign = compare(metered, lines, self._settings.currency, now.date())
        if foreign:
            log.warning("the bill is in %s and can't be compared", ", ".join(sorted(foreign)))
        for line in found:
            if line.worth_a_look:
                log.warning(
                    "%s %s: %.2f metered, %.2f billed; see fusebus cost --by day", line.day, line.kind, line.metered,
                    line.billed or 0.0,
                )  # fmt: skip

    async def _sample(self, day: date) -> CostSample:
        start = datetime.combine(day, time(), UTC)
        end = start + timedelta(days=1)
        images, size = 0, 0
        for run in await self._ledger.runs_opened(start - LONGEST_RUN, end):
            if run.last_upload_at < start:
                continue
            for upload in await self._ledger.uploads(run.run_id):
                if start <= upload.entered_at < end:
                    images, size = images + 1, size + upload.size
        cost = services_cost(
            self._prices.services, images=images, bytes_in=size, days=1, keep_days=self._settings.keep_days
        )
        return CostSample(
            pool=SERVICES,
            started_at=start,
            ended_at=end,
            node_seconds=0.0,
            cost=cost.total,
            currency=self._prices.currency,
            estimated=True,
            detail=f"{images} uploads of {size / 1e6:.1f} MB; {cost.words}",
        )
