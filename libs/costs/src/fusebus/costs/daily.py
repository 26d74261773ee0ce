"""Prices that hold in some hours of every day, such as an off-peak price of Spot, and when they begin and end."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, time, timedelta
from typing import Annotated

import msgspec
from msgspec import Meta

Clock = Annotated[str, Meta(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$")]
"""Hours and minutes, UTC."""


class DailyHours(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A span of every day. One that ends before it begins goes on into the next day; equal ends: all day."""

    begins: Clock
    ends: Clock

    def hold(self, at: datetime) -> bool:
        """Whether the moment is within."""
        now, begins, ends = at.astimezone(UTC).time(), _time(self.begins), _time(self.ends)
        return begins <= now < ends if begins < ends else now >= begins or now < ends


def edges(hours: Iterable[DailyHours], after: datetime, until: datetime) -> list[datetime]:
    """The moments at which one of them begins or ends, later than `after` and not later than `until`."""
    clocks = {_time(clock) for one in hours for clock in (one.begins, one.ends)}
    after, until = after.astimezone(UTC), until.astimezone(UTC)
    days = [after.date() + timedelta(days=day) for day in range((until.date() - after.date()).days + 1)]
    found = (datetime.combine(day, clock, UTC) for day in days for clock in clocks)
    return sorted(moment for moment in found if after < moment <= until)


def _time(clock: str) -> time:
    return time.fromisoformat(clock)
