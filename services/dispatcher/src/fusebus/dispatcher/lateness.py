"""Tells once, for each time that the work of a job kind turns late, that somebody must be told. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

OVER_SECONDS = 3600.0  # without late work, until work that turns late is news again


class LateWatch(msgspec.Struct, frozen=True, kw_only=True):
    """Of one job kind."""

    since: datetime | None = None
    """When late work was first seen; None: there is none, and was none lately."""
    seen_at: datetime | None = None
    """When it was seen last."""
    told: bool = False

    @property
    def due(self) -> bool:
        """Whether somebody is to be told: two looks saw it, for one alone may have come in the middle of a change."""
        return not self.told and self.since is not None and self.seen_at is not None and self.seen_at > self.since

    def observe(self, late: bool | None, now: datetime) -> LateWatch:
        """After a look; None: what is late could not be told."""
        if late is None:
            return self
        over = self.seen_at is None or now - self.seen_at >= timedelta(seconds=OVER_SECONDS)
        if not late:
            return LateWatch() if over else self
        return LateWatch(since=now, seen_at=now) if over else msgspec.structs.replace(self, seen_at=now)
