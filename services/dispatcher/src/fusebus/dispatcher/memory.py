"""What the dispatcher has learnt: rates, boots, arrivals, breakers, what broken nodes said."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from fusebus.contracts.messages import JobKind
from fusebus.dispatcher.breaker import Breaker, BreakerLimits
from fusebus.dispatcher.facts import Facts
from fusebus.dispatcher.lateness import LateWatch
from fusebus.dispatcher.learning import P95_OVER_P50, Boots, Evictions, Progress, at_it, quantiles, refusals
from fusebus.dispatcher.rate import Rate
from fusebus.dispatcher.settings import DispatcherSettings, PoolSettings
from fusebus.dispatcher.steps import overdue
from fusebus.dispatcher.waiting import Ages
from fusebus.planning import Arrivals, Quantiles, Refusal

LEAST_BOOT_SECONDS = 1.0  # whatever the settings say: the policy divides by it
MOST_LOGS = 20  # nodes and workers whose last words are kept per pool


class PoolMemory:
    """Of one pool."""

    def __init__(self, pool: PoolSettings) -> None:
        self.rate = Rate(seconds_per_image=pool.seconds_per_image)
        self.boots = Boots()
        self.evictions = Evictions()
        self.refusals: dict[bool, Refusal] = {}
        self.breaker = Breaker()
        self.logs: dict[str, str] = {}
        """Last words by node or worker, the newest last."""
        boot = max(pool.boot_seconds, LEAST_BOOT_SECONDS)
        self._assumed_boot = Quantiles(boot, boot * P95_OVER_P50)

    @property
    def boot(self) -> Quantiles:
        """Seconds from asking for a node until it works."""
        return quantiles(self.boots.samples, self._assumed_boot)

    @property
    def service(self) -> Quantiles | None:
        """Seconds per image of one node; None until it has been measured."""
        if not self.rate.measured:
            return None
        spread = quantiles(self.rate.samples, Quantiles(0.0, 0.0))
        # The average follows changes faster; the spread is that of the samples.
        middle = self.rate.seconds_per_image
        return Quantiles(middle, max(middle, spread.p95), measured=True)


class KindMemory:
    """Of one job kind."""

    def __init__(self) -> None:
        self.arrivals = Arrivals()
        self.progress = Progress()
        self.ages = Ages()
        self.late = LateWatch()
        self.depth: int | None = None
        """The last that could be read; `progress` has its own, from when all pools could be read too."""


class Memory:
    """One process's; a restart begins with the settings' assumptions."""

    def __init__(self, settings: DispatcherSettings) -> None:
        self._settings = settings
        self.pools = {pool.name: PoolMemory(pool) for pool in settings.all_pools}
        self.kinds = {pool.job_kind: KindMemory() for pool in settings.all_pools}
        self._limits = BreakerLimits(
            most_broken=settings.most_broken_nodes,
            most_failed=settings.most_failures,
            failure_window_seconds=settings.failure_window_seconds,
            open_seconds=settings.breaker_seconds,
        )

    def observe(self, facts: Facts, monotonic: float) -> None:
        """Learn from one look."""
        for kind in self.kinds:
            self._observe_kind(kind, facts, monotonic)
        for name, seen in facts.pools.items():
            pool = self.pools[name]
            pool.boots = pool.boots.observe(seen)
            pool.evictions = pool.evictions.observe(seen, facts.now, self._settings.storm_seconds)
            pool.refusals = refusals(pool.refusals, seen, facts.now)
            late = overdue(seen, facts.now, pool.boot.p95, only_starting=True)
            pool.breaker = pool.breaker.observe(seen, self._limits, facts.now, late)

    def observe_late(self, late: Collection[str], facts: Facts) -> None:
        """Learn which job kinds the policy says will be late; of one whose depth is unknown it says nothing."""
        for kind, memory in self.kinds.items():
            known = facts.depths.get(kind) is not None
            memory.late = memory.late.observe(kind.value in late if known else None, facts.now)

    def _observe_kind(self, kind: JobKind, facts: Facts, monotonic: float) -> None:
        memory, depth = self.kinds[kind], facts.depths.get(kind)
        if depth is not None:
            arrived = max(0, depth - memory.depth) if memory.depth is not None else 0
            memory.arrivals = memory.arrivals.observe(facts.now.timestamp(), arrived)
            memory.depth = depth
        names = [pool.name for pool in self._settings.all_pools if pool.job_kind is kind]
        speed = sum(
            facts.pools[name].running / self.pools[name].rate.seconds_per_image for name in names if name in facts.pools
        )
        memory.ages = memory.ages.observe(monotonic, depth, speed)
        if any(name not in facts.pools for name in names):
            return  # who works on this queue is not known
        running = {name: facts.pools[name].running for name in names}
        memory.progress = memory.progress.observe(monotonic, depth, at_it(facts.pools[name] for name in names))
        for name in names:
            pool = self.pools[name]
            alone = running[name] == sum(running.values())
            pool.rate = pool.rate.observe(monotonic, depth, running[name]) if alone else pool.rate.interrupted()

    def breaker_words(self, pool: str, now: datetime) -> str:
        """Why nothing new is bought for a pool, with the last words of what failed; empty where nothing is wrong."""
        words = self.pools[pool].breaker.words(now)
        logs = [f"{name}: {text}" for name, text in list(self.pools[pool].logs.items())[-1:] if text]
        return f"{words}; last words of {logs[0]}" if words and logs else words

    def unheard(self, facts: Facts) -> list[tuple[str, str, bool]]:
        """Pool, id and whether it is a node, of broken nodes and failed workers whose logs are not known yet."""
        found = []
        for pool, seen in facts.pools.items():
            known = self.pools[pool].logs
            found += [(pool, node.id, True) for node in seen.nodes if node.broken and node.id not in known]
            found += [(pool, one.id, False) for one in seen.workers[-MOST_LOGS:] if one.failed and one.id not in known]
        return found

    def hear(self, pool: str, name: str, text: str) -> None:
        """Keep the last words of a node or worker."""
        logs = self.pools[pool].logs
        logs[name] = text
        while len(logs) > 2 * MOST_LOGS:
            logs.pop(next(iter(logs)))
