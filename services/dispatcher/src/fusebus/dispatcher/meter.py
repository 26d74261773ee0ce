"""Counts node-seconds that cost money, in every node state, and turns them into cost samples; the time is given."""

from __future__ import annotations

from datetime import datetime

from fusebus.ledger import CostSample

SECONDS_PER_HOUR = 3600.0


class Meter:
    """Nodes seen at one moment count until the next: a moment without sight keeps the last number."""

    def __init__(self, pool: str, price_per_hour: float, currency: str, sample_seconds: float) -> None:
        self._pool = pool
        self._price = price_per_hour
        self._currency = currency
        self._sample_seconds = sample_seconds
        self._started: datetime | None = None  # of the sample under way
        self._seen: datetime | None = None
        self._nodes = 0
        self._node_seconds = 0.0

    def observe(self, now: datetime, nodes: int | None) -> CostSample | None:
        """A finished sample, or None. `nodes`: all that are billed; None where they could not be counted."""
        self._count(now)
        if nodes is not None:
            self._nodes = nodes
        over = self._started is not None and (now - self._started).total_seconds() >= self._sample_seconds
        return self.close(now) if over or (self._nodes == 0 and self._node_seconds > 0) else None

    def close(self, now: datetime) -> CostSample | None:
        """What has been counted since the last sample; None if nothing."""
        self._count(now)
        started, self._started = self._started, now
        node_seconds, self._node_seconds = self._node_seconds, 0.0
        if started is None or node_seconds == 0:
            return None
        return CostSample(
            pool=self._pool,
            started_at=started,
            ended_at=now,
            node_seconds=node_seconds,
            cost=node_seconds * self._price / SECONDS_PER_HOUR,
            currency=self._currency,
            estimated=True,
            detail=f"{self._price:g} {self._currency} per node and hour, from the settings",
        )

    def _count(self, now: datetime) -> None:
        if self._seen is not None:
            self._node_seconds += self._nodes * max(0.0, (now - self._seen).total_seconds())
        if self._started is None:
            self._started = now
        self._seen = now
