"""Foretells what a month will cost from the days before: values in, a value or None out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

DAYS_LOOKED_AT = 28  # whole weeks, so that each day of the week counts alike
DAYS_FOR_A_WEEK = 14  # with so many known days Mondays are foretold from Mondays
LEAST_DAYS = 2  # fewer known whole days foretell nothing


def month_of(moment: datetime) -> str:
    """YYYY-MM, UTC."""
    return f"{moment.astimezone(UTC):%Y-%m}"


def month_bounds(month: str) -> tuple[datetime, datetime]:
    """First moment of the month and of the next one, UTC. Raises ValueError for anything but YYYY-MM."""
    begin = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    if f"{begin:%Y-%m}" != month:  # 2026-1 too is read, but names no month in the ledger
        raise ValueError(f"{month!r} is not YYYY-MM")
    try:
        return begin, (begin + timedelta(days=32)).replace(day=1)
    except OverflowError as error:
        raise ValueError(f"{month} has no month after it") from error


def month_before(month: str) -> str:
    """The month before, YYYY-MM."""
    return month_of(month_bounds(month)[0] - timedelta(days=1))


def forecast(spent: float, by_day: Mapping[date, float], now: datetime) -> float | None:
    """What the month of `now` will have cost at its end; None while too few days are known.

    `spent`: this month until now. `by_day`: cost of each UTC day that had any, this month's and the one's before; days
    between the first of them and today that are missing cost nothing. A day to come is taken to cost the mean of the
    same day of the week over the last 28 days, or of all days where fewer than 14 are known.
    """
    now = now.astimezone(UTC)
    today = now.date()
    before = [day for day in by_day if day < today]
    if not before:
        return None
    first = max(min(before), today - timedelta(days=DAYS_LOOKED_AT))
    known = {first + timedelta(days=number): 0.0 for number in range((today - first).days)}
    if len(known) < LEAST_DAYS:
        return None
    known = {day: by_day.get(day, 0.0) for day in known}
    end = month_bounds(month_of(now))[1]
    rest_of_today = 1 - (now - datetime(now.year, now.month, now.day, tzinfo=UTC)) / timedelta(days=1)
    to_come = rest_of_today * _expected(today, known)
    day = today + timedelta(days=1)
    while day < end.date():
        to_come += _expected(day, known)
        day += timedelta(days=1)
    return spent + to_come


def _expected(day: date, known: Mapping[date, float]) -> float:
    costs = list(known.values())
    if len(known) >= DAYS_FOR_A_WEEK:
        costs = [cost for other, cost in known.items() if other.weekday() == day.weekday()]
    return sum(costs) / len(costs)
