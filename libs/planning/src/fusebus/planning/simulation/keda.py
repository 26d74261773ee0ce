"""KEDA's Service Bus scaler with the HPA rule, one pod a node; what Kubernetes 1.30 and KEDA 2.14 document."""

from __future__ import annotations

import math
from collections import deque

from fusebus.planning.simulation.nodes import Node, Pool
from fusebus.planning.simulation.world import World

TARGET = 5  # messages a replica (`messageCount`), those that workers have locked counted
POLL = 30.0  # seconds (`pollingInterval`): wakes from zero
SYNC = 15.0  # seconds: the HPA's own
TOLERANCE = 0.1
UP_SHARE, UP_PODS = 1.0, 4  # whichever allows more, each 15 s
DOWN_WINDOW = 300.0  # seconds of stabilisation
COOLDOWN = 300.0  # seconds without messages before the last pod goes


class Keda:
    """Nodes follow the pods at once: no time of a cluster autoscaler is added, which flatters it."""

    name = "keda"
    self_starting = True

    def begin(self, world: World) -> None:
        """Start polling."""
        self._world = world
        self._scalers = [
            _Scaler(world, next(p for p in world.pools.values() if p.offer.kind == k)) for k in world.queues
        ]
        world.at(0.0, self._sync)

    def _sync(self, _: object) -> None:
        world = self._world
        for scaler in self._scalers:
            scaler.sync()
        world.sample()
        if world.left or world.billed or any(scaler.replicas for scaler in self._scalers):
            world.at(world.now + SYNC, self._sync)


class _Scaler:
    def __init__(self, world: World, pool: Pool) -> None:
        self._world, self._pool = world, pool
        self._queue = world.queues[pool.offer.kind]
        self._spot = pool.offer.spot_per_hour is not None
        self._active_at = -math.inf
        self._advice: deque[tuple[float, int]] = deque()
        self.replicas = 0

    def sync(self) -> None:
        """Every 15 s; KEDA itself looks at every second of them."""
        now, depth = self._world.now, self._queue.depth
        unknown = any(begin <= now < end for begin, end in self._world.scenario.outages)
        if not unknown:
            if now % POLL == 0:
                self._activate(depth)
            if self.replicas:
                self.replicas = self._advised(depth)
        self._follow()

    def _activate(self, depth: int) -> None:
        if depth:
            self._active_at = self._world.now
            self.replicas = max(self.replicas, 1)
        elif self._world.now - self._active_at >= COOLDOWN:
            self.replicas = 0
            self._advice.clear()

    def _advised(self, depth: int) -> int:
        """The HPA: desired = ceil(total / target), limits, stabilisation of the way down; at least 1."""
        ratio = depth / (TARGET * self.replicas)
        desired = self.replicas if abs(ratio - 1.0) <= TOLERANCE else math.ceil(depth / TARGET)
        desired = min(max(desired, 1), self._world.scenario.max_nodes, self._pool.offer.max_nodes)
        now = self._world.now
        self._advice.append((now, desired))
        while self._advice[0][0] <= now - DOWN_WINDOW:
            self._advice.popleft()
        stable = min(self.replicas, max(advice for _, advice in self._advice)) if desired < self.replicas else desired
        most = max(math.ceil(self.replicas * (1 + UP_SHARE)), self.replicas + UP_PODS)
        return min(stable, most)

    def _follow(self) -> None:
        """Pods get their nodes; on the way down those that start go first, then the youngest, busy or not."""
        pool, world = self._pool, self._world
        pool.preempted = 0  # asked for again below
        missing = self.replicas - len(pool.nodes)
        if missing > 0:
            world.count(world.grow(pool, self._spot, missing))
        elif missing < 0:
            order = sorted(pool.nodes, key=lambda node: (node.ready, -node.born))
            victims: list[Node] = order[:-missing]
            world.remove(victims)
            world.shrinks += 1
