"""Stops buying nodes that turn out unusable and workers that fail at once: pure, one breaker per pool."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from fusebus.dispatcher.seen import IDLE, RUNNING, PoolSeen, WorkerState

PROBE = 1  # nodes and workers that may try again when the time is over


class BreakerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """When it opens, and for how long."""

    most_broken: int = 3
    """Nodes that turned out unusable within `window_seconds`, none that came up in between."""
    most_failed: int = 6
    """Workers that failed within `failure_window_seconds`."""
    window_seconds: float = 7200.0  # nodes that never get ready take a while each to show it
    failure_window_seconds: float = 120.0
    open_seconds: float = 600.0
    """Doubled each time a probe fails."""
    longest_open_seconds: float = 7200.0
    proof_seconds: float = 60.0
    """A worker that runs so long proves that workers can."""


class Cause(StrEnum):
    """What opened a breaker, and what must succeed to close it."""

    NODES = "nodes"
    WORKERS = "workers"


class Breaker(msgspec.Struct, frozen=True, kw_only=True):
    """What one pool has gone through. Closed: buy; open: don't; half-open: one node and one worker may try."""

    broken: dict[str, datetime] = {}
    """Nodes seen broken, and when first."""
    sound: frozenset[str] | None = frozenset()
    """Nodes that were usable at the last look; None: nobody here has looked yet, so none of them came up just now."""
    cause: Cause | None = None
    """None: closed."""
    open_until: datetime | None = None
    openings: int = 0
    """In a row, without a success in between."""
    because: str = ""

    def observe(
        self, seen: PoolSeen, limits: BreakerLimits, now: datetime, late: Collection[str] = frozenset()
    ) -> Breaker:
        """The breaker after this look. `late`: nodes that did not get ready in time; they count as broken."""
        since = now - timedelta(seconds=limits.window_seconds)
        sound = frozenset(node.id for node in seen.nodes if node.state in (IDLE, RUNNING))
        came_up = self.sound is not None and bool(sound - self.sound)
        bad = {*seen.broken, *late}
        fresh = [name for name in sorted(bad) if name not in self.broken]
        # A node came up: what broke before it says nothing about the next one.
        known = {name: at for name, at in self.broken.items() if at >= since and (not came_up or name in bad)}
        after = msgspec.structs.replace(self, broken=known | dict.fromkeys(fresh, now), sound=sound)
        if self.cause is None:
            return after._if_too_many(seen, came_up, limits, now)
        if self.open_until is not None and now < self.open_until:
            return after
        return after._after_the_probe(seen, came_up, bool(fresh), limits, now)

    def room(self, seen: PoolSeen, now: datetime) -> tuple[int, int] | None:
        """Most nodes and most live workers for now; None where the breaker is closed."""
        if self.open_until is None:
            return None
        probe = PROBE if now >= self.open_until else 0
        return max(seen.present - len(seen.broken), probe), max(seen.live, probe)

    def words(self, now: datetime) -> str:
        """Why nothing new is bought; empty where it is closed."""
        if self.open_until is None:
            return ""
        if now >= self.open_until:
            return f"{self.because}: one node and one worker may try again"
        return f"{self.because}: nothing new until {self.open_until:%H:%M:%S} UTC"

    def _if_too_many(self, seen: PoolSeen, came_up: bool, limits: BreakerLimits, now: datetime) -> Breaker:
        if len(self.broken) >= limits.most_broken and not came_up:
            return self._open(Cause.NODES, f"{len(self.broken)} nodes in a row turned out unusable", limits, now)
        failed = len(seen.failed_since(now - timedelta(seconds=limits.failure_window_seconds)))
        if failed >= limits.most_failed:
            because = f"{failed} workers failed within {limits.failure_window_seconds:.0f} s"
            return self._open(Cause.WORKERS, because, limits, now)
        return self

    def _after_the_probe(
        self, seen: PoolSeen, came_up: bool, fresh: bool, limits: BreakerLimits, now: datetime
    ) -> Breaker:
        assert self.open_until is not None and self.cause is not None
        later = [one for one in seen.workers if one.since is not None and one.since > self.open_until]
        if fresh or any(one.failed for one in later):
            return self._open(self.cause, self.because, limits, now)
        proof = now - timedelta(seconds=limits.proof_seconds)
        works = any(
            (one.state is WorkerState.ENDED and not one.problem)
            or (one.state is WorkerState.RUNNING and one.since is not None and one.since <= proof)
            for one in later
        )
        if works or (came_up and self.cause is Cause.NODES):
            return Breaker(sound=self.sound)
        return self

    def _open(self, cause: Cause, because: str, limits: BreakerLimits, now: datetime) -> Breaker:
        seconds = min(limits.open_seconds * 2**self.openings, limits.longest_open_seconds)
        return Breaker(
            broken=self.broken,  # those still there are not new at the next look
            sound=self.sound,
            cause=cause,
            open_until=now + timedelta(seconds=seconds),
            openings=self.openings + 1,
            because=because,
        )
