"""The pools as they were read: what is there, what comes, what went wrong lately."""

from __future__ import annotations

import msgspec


class Quantiles(msgspec.Struct, frozen=True):
    """A measured (or assumed) distribution, in seconds."""

    p50: float
    p95: float
    measured: bool = False


class NodeCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The nodes of one pool at one price class (dedicated or Spot), by what they do."""

    target: int = 0
    """Nodes that were asked for last."""
    starting: int = 0
    """Allocated, not usable yet; they cost."""
    idle: int = 0
    """Usable, without a worker."""
    busy: int = 0
    """With a worker: never to be removed."""
    broken: int = 0
    """Unusable for good: they cost and do nothing."""
    other: int = 0
    """Offline or of unknown state: they cost, and may still run a worker."""
    leaving: int = 0
    preempted: int = 0
    """Lost to Azure and free of charge; Batch brings them back by itself when it can."""

    @property
    def ready(self) -> int:
        """Nodes that work or could at once."""
        return self.idle + self.busy

    @property
    def present(self) -> int:
        """Nodes that count towards the target: there (or preempted), and not on their way out."""
        return self.starting + self.ready + self.broken + self.other + self.preempted

    @property
    def billed(self) -> int:
        """Nodes that cost money now."""
        return self.starting + self.ready + self.broken + self.other + self.leaving


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A resize that got fewer nodes than it asked for."""

    spot: bool
    at: float
    """Seconds since 1970."""
    reason: str
    """Batch's words: AccountCoreQuotaReached, AllocationTimedOut, ..."""
    times: int = 1
    """In a row, this one included: the pause before the next try grows with it."""


class PoolState(msgspec.Struct, frozen=True, kw_only=True):
    """One pool now. Times in seconds since 1970."""

    name: str
    steady: bool = True
    """Whether Batch accepts a resize now."""
    dedicated: NodeCounts = NodeCounts()
    spot: NodeCounts = NodeCounts()
    running: int = 0
    """Worker tasks on a node."""
    waiting: int = 0
    """Worker tasks that have no node yet."""
    boot: Quantiles = Quantiles(300.0, 480.0)
    """From asking for a node until it works."""
    ordered_at: float | None = None
    """When the nodes that still come were asked for; None: unknown, then they come in a whole `boot`."""
    idle_since: float | None = None
    """Since when the longest idle node has been idle."""
    refusals: tuple[Refusal, ...] = ()
    """The newest of each price class."""
    evicted: int = 0
    """Spot nodes lost within `Limits.storm_seconds`."""
    evicted_at: float | None = None
    """When the last one was lost, however long ago."""
    out_of_order: str = ""
    """Why nothing may be bought here (unusable nodes, a start task that fails); empty: in order."""

    def counts(self, spot: bool) -> NodeCounts:
        """The nodes of one price class."""
        return self.spot if spot else self.dedicated

    def coming(self, spot: bool) -> int:
        """Nodes that are starting, or asked for and not allocated yet."""
        counts = self.counts(spot)
        return counts.starting + (0 if self.steady else max(0, counts.target - counts.present))

    @property
    def live(self) -> int:
        """Workers that run or wait for a node."""
        return self.running + self.waiting


class Fleet(msgspec.Struct, frozen=True):
    """All pools, those that could not be read left out: nothing is decided for them."""

    pools: tuple[PoolState, ...] = ()
