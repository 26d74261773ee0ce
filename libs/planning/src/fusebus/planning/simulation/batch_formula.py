"""The autoscale formula that Azure Batch evaluates every 5 minutes, one task an image.

$samples=$ActiveTasks.GetSamplePercent(TimeInterval_Minute*5);
$tasks=$samples<70?max(0,$ActiveTasks.GetSample(1)):max($ActiveTasks.GetSample(1),avg($ActiveTasks.GetSample(TimeInterval_Minute*5)));
min(5,$tasks)
"""

from __future__ import annotations

from collections import deque

from fusebus.planning.simulation.nodes import Pool
from fusebus.planning.simulation.world import World

EVALUATES = 300.0  # seconds
SAMPLES = 30.0  # seconds between two samples of $ActiveTasks
SEEN_LATE = 60.0  # seconds until a sample is seen
INTERVAL = 300.0  # seconds: TimeInterval_Minute * 5
ENOUGH = 70.0  # per cent of the samples
MOST = 5


class BatchFormula:
    """$ActiveTasks counts waiting tasks only. Nodes go idle ones first, which flatters it: busy ones are requeued."""

    name = "batch-formula"
    self_starting = True

    def begin(self, world: World) -> None:
        """Start sampling."""
        self._world = world
        self._scaled = [
            _Autoscale(world, next(p for p in world.pools.values() if p.offer.kind == k)) for k in world.queues
        ]
        world.at(0.0, self._tick)

    def _tick(self, _: object) -> None:
        world = self._world
        for pool in self._scaled:
            pool.sample()
            if world.now % EVALUATES == 0 and world.now:
                pool.evaluate()
        world.sample()
        if world.left or world.billed:
            world.at(world.now + SAMPLES, self._tick)


class _Autoscale:
    def __init__(self, world: World, pool: Pool) -> None:
        self._world, self._pool = world, pool
        self._queue = world.queues[pool.offer.kind]
        self._spot = pool.offer.spot_per_hour is not None
        self._samples: deque[tuple[float, int]] = deque()

    def sample(self) -> None:
        """Waiting tasks now."""
        now = self._world.now
        if not any(begin <= now < end for begin, end in self._world.scenario.outages):
            self._samples.append((now, sum(work.images for work in self._queue.waiting)))
        while self._samples and self._samples[0][0] < now - INTERVAL - SEEN_LATE:
            self._samples.popleft()

    def evaluate(self) -> None:
        """The formula, then what Batch does with its result."""
        self._resize(min(MOST, int(self._tasks())))

    def _tasks(self) -> float:
        now = self._world.now
        seen = [count for at, count in self._samples if at <= now - SEEN_LATE]
        recent = [count for at, count in self._samples if now - INTERVAL < at <= now - SEEN_LATE]
        latest = seen[-1] if seen else 0
        if 100.0 * len(recent) / (INTERVAL / SAMPLES) < ENOUGH:
            return max(0, latest)
        return max(latest, sum(recent) / len(recent))

    def _resize(self, wanted: int) -> None:
        pool, world = self._pool, self._world
        wanted = min(wanted, pool.offer.max_nodes, world.scenario.max_nodes)
        surplus = len(pool.nodes) + pool.preempted - wanted
        if surplus < 0:
            world.count(world.grow(pool, self._spot, -surplus))
        elif surplus > 0:
            lost = min(surplus, pool.preempted)
            pool.preempted -= lost
            order = sorted(pool.nodes, key=lambda node: (node.working is not None, node.ready))
            world.remove(order[: surplus - lost])
            world.shrinks += surplus > lost
