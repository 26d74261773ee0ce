"""Counts node-seconds that cost money, in every node state, and turns them into cost samples; the time is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Protocol

import msgspec

from fusebus.costs import Rates
from fusebus.ledger import CostSample

SECONDS_PER_HOUR = 3600.0
PREEMPTED_BILLED_SECONDS = 300.0
"""An evicted machine is not billed, but nobody says when exactly it went: a preempted node costs until it is gone from
the pool, and no longer than this, for Batch keeps listing it until there is a machine for it again."""

_GROUPS = {
    **dict.fromkeys(
        ("creating", "starting", "waitingforstarttask", "rebooting", "reimaging", "upgradingos"), "starting"
    ),
    "idle": "idle",
    "running": "running",
    "unusable": "unusable",
    "starttaskfailed": "unusable",
    "leavingpool": "leaving",
    "preempted": "preempted",
}
_FREE = frozenset({"deallocated"})


class Node(Protocol):
    """What the meter needs to know of a node; times are Batch's."""

    @property
    def id(self) -> str: ...
    @property
    def state(self) -> str:
        """As Batch names it, any case; one that is unknown here costs."""

    @property
    def dedicated(self) -> bool: ...
    @property
    def allocated_at(self) -> datetime | None: ...
    @property
    def since(self) -> datetime | None:
        """In this state."""


class _Billed(msgspec.Struct, frozen=True):
    dedicated: bool
    group: str
    until: datetime | None
    """When it stops to cost, where that is known."""


class _Sums(msgspec.Struct):
    """Of one UTC day, or of the part of it that the sample covers."""

    dedicated: float = 0.0
    spot: float = 0.0
    cost: float = 0.0
    by_state: dict[str, float] = {}

    def add(self, node: _Billed, seconds: float, rates: Rates) -> None:
        if node.dedicated:
            self.dedicated += seconds
        else:
            self.spot += seconds
        self.cost += seconds * (rates.dedicated if node.dedicated else rates.spot) / SECONDS_PER_HOUR
        self.by_state[node.group] = self.by_state.get(node.group, 0.0) + seconds


class NodeMeter:
    """One pool's meter. A node that is seen costs until the next look; one that is new, since it was allocated.

    A look that failed keeps the last sight. `counted_until`: the end of the pool's last sample in the ledger; what has
    been allocated since then (while no dispatcher ran) is counted by the first sight. A sample never crosses midnight
    UTC.
    """

    def __init__(
        self,
        pool: str,
        vm_size: str,
        serves: str = "",
        sample_seconds: float = 60.0,
        counted_until: datetime | None = None,
    ) -> None:
        self._pool, self._vm_size, self._serves = pool, vm_size, serves
        self._sample = timedelta(seconds=sample_seconds)
        self._seen: datetime | None = counted_until
        self._sighted = False
        self._started: datetime | None = counted_until
        self._nodes: dict[str, _Billed] = {}
        self._gone_from: dict[str, datetime] = {}
        self._sums: dict[date, _Sums] = {}

    def observe(self, nodes: Iterable[Node] | None, rates: Rates, now: datetime) -> list[CostSample]:
        """Samples that are finished by now, mostly none or one. `nodes`: all of the pool; None: they were not seen."""
        if nodes is None and not self._sighted:
            return []  # what was allocated since `counted_until` is counted by the first sight
        self._sighted = True
        before, now = self._seen, max(now, self._seen or now)  # a clock that is set back takes no cost back
        for node in self._nodes.values():
            self._count(node, before or now, now, rates)
        if nodes is not None:
            self._look(list(nodes), before, now, rates)
        self._seen = now
        self._started = self._started or now
        over = now - self._started >= self._sample or (not self._nodes and self._sums)
        return self._cut(rates, now) if over or self._started.astimezone(UTC).date() < now.date() else []

    def close(self, rates: Rates, now: datetime) -> list[CostSample]:
        """What has been counted since the last sample."""
        return self.observe(None, rates, now) + self._cut(rates, max(now, self._seen or now))

    def burning_per_hour(self, rates: Rates) -> float:
        """What the nodes of the last look cost an hour."""
        return sum(rates.dedicated if node.dedicated else rates.spot for node in self._nodes.values())

    def _look(self, nodes: list[Node], before: datetime | None, now: datetime, rates: Rates) -> None:
        """Take the new sight, and count what was allocated between the last look and this one."""
        known, self._nodes = self._nodes, {}
        for node in nodes:
            billed = self._billed(node, now)
            if billed is None:
                continue
            self._nodes[node.id] = billed
            if node.id not in known and before is not None and node.allocated_at is not None:
                self._count(billed, max(before, node.allocated_at), now, rates)
        present = {node.id for node in nodes}
        self._gone_from = {name: moment for name, moment in self._gone_from.items() if name in present}

    def _billed(self, node: Node, now: datetime) -> _Billed | None:
        """None where it costs nothing from here on."""
        state = node.state.lower()
        if state in _FREE:
            return None
        group = _GROUPS.get(state, "other")
        if group != "preempted":
            self._gone_from.pop(node.id, None)
            return _Billed(node.dedicated, group, None)
        since = self._gone_from.setdefault(node.id, node.since or now)
        until = since + timedelta(seconds=PREEMPTED_BILLED_SECONDS)
        return _Billed(node.dedicated, group, until) if until > now else None

    def _count(self, node: _Billed, start: datetime, end: datetime, rates: Rates) -> None:
        end = min(end, node.until or end)
        for day, seconds in _by_day(start, end):
            self._sums.setdefault(day, _Sums()).add(node, seconds, rates)

    def _cut(self, rates: Rates, now: datetime) -> list[CostSample]:
        """One sample for each day that was counted, and a new beginning."""
        started, self._started = self._started or now, now
        sums, self._sums = self._sums, {}
        return [self._sample_of(day, found, started, now, rates) for day, found in sorted(sums.items())]

    def _sample_of(self, day: date, sums: _Sums, started: datetime, now: datetime, rates: Rates) -> CostSample:
        midnight = datetime.combine(day, time(), UTC)
        return CostSample(
            pool=self._pool,
            started_at=max(started, midnight),
            ended_at=min(now, midnight + timedelta(days=1)),
            node_seconds=sums.dedicated + sums.spot,
            cost=sums.cost,
            currency=rates.currency,
            estimated=True,
            detail=rates.detail,
            vm_size=self._vm_size,
            serves=self._serves,
            spot_node_seconds=sums.spot,
            seconds_by_state=sums.by_state,
        )


def _by_day(start: datetime, end: datetime) -> Iterator[tuple[date, float]]:
    """The time between two moments, cut at midnight UTC: day and seconds."""
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    while start < end:
        midnight = datetime.combine(start.date() + timedelta(days=1), time(), UTC)
        stop = min(end, midnight)
        yield start.date(), (stop - start).total_seconds()
        start = stop
