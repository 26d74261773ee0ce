"""Says what is left of a month's budget and which alerts are due; values in, values out, the time too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from fusebus.costs.forecast import month_bounds

SHARES = (0.5, 0.8, 0.9, 1.0)
FORECAST = "forecast"
WIND_DOWN_SECONDS = 900.0  # what a node still costs after buying stops: the images in hand, idle exit, removal
RESUMED_LEFT = 0.1  # of the budget: so much must be left until buying goes on after it was told that all is spent


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to be told once."""

    mark: str
    """Names the alert within its month: who has told it writes that down."""
    month: str
    share: float
    """Of the budget that is spent, for all of it with what is kept for ending what runs; for a forecast, what the
    forecast is of the budget."""
    spent: float
    forecast: float | None
    """Of the whole month; None where there is none yet."""
    budget: float
    currency: str

    @property
    def foretold(self) -> bool:
        """Whether it is about the forecast."""
        return self.mark.startswith(FORECAST)


class MonthSoFar(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the month when the budget is looked at."""

    month: str
    """YYYY-MM, UTC."""
    spent: float | None
    """None where the books could not be read: unknown is not zero."""
    forecast: float | None = None
    burning_per_hour: float = 0.0
    """Of all nodes that are there now."""
    told: frozenset[str] = frozenset()
    """Marks of the alerts that were told already, from the ledger: a restart tells none again."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the policy and the people are to know."""

    left: float | None
    """Money for nodes that may still be bought this month: infinite without a cap, 0: buy nothing; None where it is
    not known: then nothing new may be bought either, and what is there stays."""
    alerts: tuple[Alert, ...]
    because: str

    @property
    def may_buy(self) -> bool:
        """Whether new nodes may be bought at all."""
        return self.left is not None and self.left > 0


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What a month may cost."""

    amount: float
    """0: there is no budget."""
    currency: str
    hard_cap: bool = True
    """Whether a spent budget stops buying; without it, alerts are all that happens."""

    @property
    def spent_mark(self) -> str:
        """The mark of the alert that all of it is spent."""
        return self._mark(1.0)

    def after(self, so_far: MonthSoFar) -> Verdict:
        """The alerts that are due and were not told, and what is left.

        With a hard cap the budget counts as spent once the rest is needed to end what runs. Once that was told, it
        stays spent until it is raised or the month ends, for buying must not flutter around the edge; it goes on only
        where what ran has ended and left RESUMED_LEFT of the budget or more: a large fleet keeps much back.
        """
        if self.amount <= 0:
            return Verdict(left=math.inf, alerts=(), because="there is no budget")
        if so_far.spent is None:
            because = f"it is not known what {so_far.month} has cost so far: nothing new is bought"
            return Verdict(left=None if self.hard_cap else math.inf, alerts=(), because=because)
        alerts = tuple(alert for alert in self._crossed(so_far) if alert.mark not in so_far.told)
        left, because = self._left(so_far, so_far.spent)
        return Verdict(left=left, alerts=alerts, because=because)

    def _left(self, so_far: MonthSoFar, spent: float) -> tuple[float, str]:
        words = f"{spent:,.2f} of {self.amount:,.2f} {self.currency} spent in {so_far.month}"
        if not self.hard_cap:
            return math.inf, f"{words}; the budget is no cap"
        if ending := self._ending(so_far):
            words += f", {ending:,.2f} kept for ending what runs"
        left = self.amount - spent - ending
        if left <= 0 or (self.spent_mark in so_far.told and left < RESUMED_LEFT * self.amount):
            return 0.0, f"{words}; the rest is not spent any more: no new nodes"
        return left, f"{words}; {left:,.2f} left"

    def _ending(self, so_far: MonthSoFar) -> float:
        return so_far.burning_per_hour * WIND_DOWN_SECONDS / 3600 if self.hard_cap else 0.0

    def _mark(self, share: float | str) -> str:
        """A raised budget has marks of its own."""
        head = share if isinstance(share, str) else f"{share:g}"
        return f"{head}-of-{self.amount:.10g}-{self.currency}"

    def _crossed(self, so_far: MonthSoFar) -> list[Alert]:
        """All that hold now, told or not."""
        assert so_far.spent is not None
        spent = dict.fromkeys(SHARES, so_far.spent)
        spent[1.0] += self._ending(so_far)
        found = [
            self._alert(self._mark(share), share, so_far) for share in SHARES if spent[share] >= share * self.amount
        ]
        if so_far.forecast is not None and so_far.forecast > self.amount:
            found.append(self._alert(self._mark(FORECAST), so_far.forecast / self.amount, so_far))
        return found

    def _alert(self, mark: str, share: float, so_far: MonthSoFar) -> Alert:
        assert so_far.spent is not None
        return Alert(
            mark=mark,
            month=so_far.month,
            share=share,
            spent=so_far.spent,
            forecast=so_far.forecast,
            budget=self.amount,
            currency=self.currency,
        )


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """Images that are to be done by one deadline."""

    images: int
    deadline: datetime


def what_happens(verdict: Verdict, month: str, waiting: Sequence[Waiting], now: datetime) -> str:
    """What the budget does to the deadlines, in words; empty while it stops nothing."""
    if verdict.may_buy:
        return ""
    resumes = month_bounds(month)[1]
    images = sum(group.images for group in waiting)
    words = (
        f"{verdict.because}. Nodes that are there go on with what waits, and leave once they are not needed: what "
        f"they cost comes on top. Buying goes on when the budget is raised, or with the new month on "
        f"{resumes:%-d %B} 00:00 UTC."
    )
    if verdict.left is None:
        words = f"{verdict.because}. What is there goes on; buying goes on as soon as the books can be read."
        resumes = now
    late = [group for group in waiting if group.images and group.deadline < resumes]
    if not images:
        return f"{words} Nothing waits."
    if not late:
        return f"{words} {images:,} images wait; none is due before."
    first = min(group.deadline for group in late)
    return (
        f"{words} {images:,} images wait, {sum(group.images for group in late):,} of them are due before and will be "
        f"late unless the nodes that are there finish them; the first are due on {first.astimezone(UTC):%-d %B %H:%M} "
        f"UTC, {_span(resumes - first)} before."
    )


def _span(time: timedelta) -> str:
    hours = time.total_seconds() / 3600
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours"
