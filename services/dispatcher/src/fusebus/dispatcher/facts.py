"""Everything that one look saw, as values: a field that could not be read is None, and says so."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from fusebus.contracts.messages import JobKind
from fusebus.dispatcher.quota import Quota
from fusebus.dispatcher.seen import PoolSeen
from fusebus.dispatcher.settings import PoolSettings
from fusebus.ledger import Controls, Window


class OpenRun(msgspec.Struct, frozen=True, kw_only=True):
    """What is not over of one delivery, of one job kind and with one deadline."""

    run_id: str
    job_kind: JobKind
    images: int
    """Accepted, without a final."""
    total: int
    """Accepted."""
    oldest_at: datetime
    """When the oldest of `images` was entered."""
    deadline: datetime
    """Of that one."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """One moment."""

    now: datetime
    pools: Mapping[str, PoolSeen]
    """Those that could be read."""
    unread: Mapping[str, PoolSeen] = {}
    """Of the others, as they were seen shortly before: they count, and get no step."""
    unread_seconds: Mapping[str, float] = {}
    """How long ago that was."""
    problems: Mapping[str, str] = {}
    """Why the others could not, by pool."""
    depths: Mapping[JobKind, int | None] = {}
    """Messages by job kind, locked ones included."""
    disabled: frozenset[JobKind] = frozenset()
    """Kinds whose subscription somebody has disabled: workers would get nothing."""
    quotas: Mapping[str, Quota] = {}
    """By Batch account; of those that were read at least once."""
    controls: Controls | None = None
    """Pins and pauses; None where they were never read."""
    windows: tuple[Window, ...] | None = None
    """Announced work; None where it could not be read."""
    open_runs: tuple[OpenRun, ...] | None = None
    """Deliveries that are not over; None where they could not be read."""

    @property
    def known(self) -> Mapping[str, PoolSeen]:
        """Every pool of which something is known."""
        return {**self.unread, **self.pools}

    def quota_of(self, pool: PoolSettings) -> Quota:
        """Of the account that the pool is in; everything unknown where it could not be read."""
        return self.quotas.get(pool.batch, Quota())

    def place_of(self, pool: PoolSettings) -> str:
        """Where its quotas and its market are: the region, with the account where there are several."""
        region = self.quota_of(pool).region or pool.region
        if len(self.quotas) < 2:
            return region
        return f"{region} ({pool.batch})" if region else pool.batch

    def runs_of(self, kind: JobKind) -> tuple[OpenRun, ...]:
        """Deliveries of one kind that are not over; none where they could not be read."""
        return tuple(run for run in self.open_runs or () if run.job_kind is kind)
