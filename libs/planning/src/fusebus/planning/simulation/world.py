"""Batch, the queue and the bill on virtual time; the same for every policy."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from fusebus.planning.prices import PoolOffer
from fusebus.planning.room import applies
from fusebus.planning.simulation.nodes import SECONDS_PER_HOUR, Batchful, Node, Pool
from fusebus.planning.simulation.scenario import Draws, Lump, Scenario

DUE_BUCKETS = 24  # the ledger's deliveries: so many a deadline
GIVE_UP = 5 * 86_400.0  # seconds after the last deadline: what is not done then never will be


class Queue:
    """The images of one kind, first come first served."""

    def __init__(self, deadline: float) -> None:
        self.waiting: deque[Batchful] = deque()
        self.depth = 0
        """With those that workers hold."""
        self.arrived = 0
        self.due: dict[int, list[float]] = {}
        """By bucket: images left, deadline, since, total."""
        self._bucket = max(60.0, deadline / DUE_BUCKETS)
        self.deadline = deadline
        self.finished_or_arrived = 0

    def add(self, at: float, first: int, images: int) -> None:
        """Images arrive."""
        bucket = int(at // self._bucket)
        entry = self.due.setdefault(bucket, [0.0, at + self.deadline, at, 0.0])
        entry[0] += images
        entry[3] += images
        self.waiting.append(Batchful(at, first, images, bucket))
        self.depth += images
        self.arrived += images
        self.finished_or_arrived += images

    def done(self, work: Batchful) -> None:
        """A worker has finished them."""
        self.depth -= work.images
        self.finished_or_arrived += work.images
        entry = self.due[work.bucket]
        entry[0] -= work.images
        if entry[0] <= 0:
            del self.due[work.bucket]


class World:
    """Virtual time with its events. A scaler looks at it and calls `grow`, `resize`, `remove`, `kill` and `drain`."""

    def __init__(self, scenario: Scenario, draws: Draws, self_starting: bool) -> None:
        self.scenario = scenario
        self.draws = draws
        self.now = 0.0
        self.self_starting = self_starting
        """Nodes take work without a worker task (the baselines)."""
        self.queues = {kind: Queue(scenario.deadline) for kind in scenario.kinds}
        self.pools = {offer.pool: Pool(offer, scenario) for offer in scenario.offers}
        self.left = scenario.images
        self.hits = self.evictions = self.busy_removed = self.peak = 0
        self.grows = self.shrinks = 0
        """Resizes that brought nodes, or let nodes go."""
        self.refused = 0
        """Those that brought none."""
        self._booting: Counter[str] = Counter()
        self.worked = 0.0
        self.latency: Counter[int] = Counter()
        self.on_change: Callable[[], None] = lambda: None
        self.timeline: list[tuple[float, int, int, float]] = []
        self._events: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._sequence = 0
        self._prepare()

    # time

    def at(self, when: float, call: Callable[[Any], None], value: Any = None) -> None:
        """Call it then."""
        self._sequence += 1
        heapq.heappush(self._events, (when, self._sequence, call, value))

    def run(self) -> None:
        """Until everything is done and gone."""
        events, pop = self._events, heapq.heappop
        last = max((lump.at for lump in self.scenario.lumps), default=0.0) + self.scenario.deadline + GIVE_UP
        while events and (self.left or self.billed):
            when, _, call, value = pop(events)
            if when > last:
                break
            self.now = when
            call(value)
        self.settle()
        self.sample()

    def _prepare(self) -> None:
        first = 0
        for lump in self.scenario.lumps:
            self.at(lump.at, self._arrive, (lump, first))
            first += lump.images
        for begin, end in self.scenario.storms:
            self.at(max(0.0, begin), self._storm)
            self.at(end, self._calm)
        for change in self.scenario.changes:
            self.at(change.at, lambda _: self.settle())

    # what happens

    def _arrive(self, arrival: tuple[Lump, int]) -> None:
        lump, first = arrival
        self.queues[lump.kind].add(self.now, first, lump.images)
        for pool in self.pools.values():
            if pool.offer.kind == lump.kind:
                self._wake(pool)
        self.on_change()

    def _wake(self, pool: Pool) -> None:
        """Workers that wait for work get it."""
        queue = self.queues[pool.offer.kind]
        for node in pool.resting():
            if queue.waiting:
                self._take(node)

    def _stormy(self) -> list[Pool]:
        return [pool for pool in self.pools.values() if self.scenario.storms_in(pool.offer.region)]

    def _storm(self, _: object) -> None:
        for pool in self._stormy():
            for node in list(pool.nodes):
                if node.spot:
                    self.at(self.now + self.draws.lives.uniform(0.0, 120.0), self._evict, node)

    def _calm(self, _: object) -> None:
        for pool in self._stormy():
            lost, pool.preempted = pool.preempted, 0
            self._start(pool, True, lost)

    def _evict(self, node: Node) -> None:
        pool = node.pool
        if node not in pool.nodes:
            return
        self.evictions += 1
        pool.evicted.append(self.now)
        self._drop(node)
        if self.scenario.has_spot(self.now, pool.offer.region):
            self._start(pool, True, 1)
        else:
            pool.preempted += 1
        self.on_change()

    # nodes

    def _start(self, pool: Pool, spot: bool, count: int) -> None:
        for _ in range(count):
            boot = self.draws.boot(pool.offer.kind, self._booting[pool.offer.kind])
            self._booting[pool.offer.kind] += 1
            node = Node(pool, spot, self.now, self._price(pool.offer, spot))
            pool.nodes[node] = None
            self.at(self.now + boot, self._booted, node)
            if spot and self.scenario.spot_life:
                self.at(self.now + self.draws.lives.expovariate(1.0 / self.scenario.spot_life), self._evict, node)
        if count:
            pool.ordered_at = self.now
        self.peak = max(self.peak, self.billed)

    def _booted(self, node: Node) -> None:
        if node in node.pool.nodes:
            node.ready = True
            node.idle_since = self.now
            self.place(node.pool)

    def place(self, pool: Pool) -> None:
        """Give waiting worker tasks to idle nodes."""
        for node in pool.nodes:
            if node.ready and not node.worker and (pool.tasks or self.self_starting):
                pool.tasks -= 0 if self.self_starting else 1
                node.worker, node.draining = True, False
                self._take(node)

    def _take(self, node: Node) -> None:
        queue = self.queues[node.pool.offer.kind]
        node.working = None
        if node.draining or not queue.waiting:
            node.resting = self.now
            if not self.self_starting:
                self.at(self.now + node.pool.idle_exit, self._leave, (node, self.now))
            if node.draining:
                self._leave((node, self.now))
            return
        work = queue.waiting.popleft()
        most = node.pool.claim
        if work.images > most:
            queue.waiting.appendleft(Batchful(work.at, work.first + most, work.images - most, work.bucket))
            work = Batchful(work.at, work.first, most, work.bucket)
        node.working, node.resting = work, None
        took = self.draws.hardness(work.first, work.images) * node.pool.seconds
        self.worked += took
        self.at(self.now + took, self._done, (node, work))

    def _done(self, finished: tuple[Node, Batchful]) -> None:
        node, work = finished
        if node.working is not work:
            return  # its node is gone
        self.queues[node.pool.offer.kind].done(work)
        self.left -= work.images
        age = self.now - work.at
        self.latency[int(age)] += work.images
        if age <= self.scenario.deadline:
            self.hits += work.images
        self._take(node)

    def _leave(self, left: tuple[Node, float]) -> None:
        """A worker without work ends."""
        node, since = left
        if node.worker and node.resting == since:
            node.worker, node.resting, node.idle_since = False, None, self.now
            node.draining = False
            self.place(node.pool)

    def _drop(self, node: Node) -> None:
        """The node is gone; what it worked at goes back to the head of the queue."""
        node.settle(self.now)
        node.pool.spent += node.cost
        node.pool.seconds_billed += self.now - node.born
        del node.pool.nodes[node]
        if node.working is not None:
            self.queues[node.pool.offer.kind].waiting.appendleft(node.working)
            node.working = None
            for pool in self.pools.values():
                if pool.offer.kind == node.pool.offer.kind:
                    self._wake(pool)

    # what scalers do

    def grow(self, pool: Pool, spot: bool, count: int) -> int:
        """Ask for so many more; how many Azure gives: quotas and Spot's absence keep the rest."""
        given = count if not spot or self.scenario.has_spot(self.now, pool.offer.region) else 0
        for quota in self.scenario.quotas_at(self.now):
            if applies(quota, pool.offer, spot):
                used = sum(p.offer.vcpus * p.there(spot) for p in self.pools.values() if applies(quota, p.offer, spot))
                given = min(given, max(0, quota.vcpus - used) // pool.offer.vcpus)
        self._start(pool, spot, max(0, given))
        return max(0, given)

    def count(self, given: int) -> None:
        """A resize that was to bring nodes, and how many it brought."""
        self.grows += given > 0
        self.refused += given == 0

    def remove(self, nodes: list[Node]) -> None:
        """Nodes that do nothing are let go."""
        for node in nodes:
            self.busy_removed += node.working is not None
            self._drop(node)

    def stop_working(self, node: Node) -> None:
        """Its worker ends after what it holds."""
        node.draining = True
        if node.worker and node.working is None and node.resting is not None:
            self._leave((node, node.resting))

    @property
    def boots(self) -> int:
        """Of all kinds so far."""
        return self._booting.total()

    # money

    @property
    def billed(self) -> int:
        """Nodes that cost now."""
        return sum(len(pool.nodes) for pool in self.pools.values())

    @property
    def cost(self) -> float:
        """So far."""
        return sum(pool.cost(self.now) for pool in self.pools.values())

    def _price(self, offer: PoolOffer, spot: bool) -> float:
        return self.scenario.price(offer, spot, self.now) or 0.0

    def settle(self) -> None:
        """Count what was used so far at the old prices; from now on new ones hold."""
        for pool in self.pools.values():
            for node in pool.nodes:
                node.settle(self.now)
                node.price = self._price(pool.offer, node.spot) / SECONDS_PER_HOUR
        self.on_change()

    def sample(self) -> None:
        """Remember this moment for the plots."""
        depth = sum(queue.depth for queue in self.queues.values())
        self.timeline.append((self.now, self.billed, depth, self.cost))
