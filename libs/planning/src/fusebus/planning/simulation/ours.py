"""Drives a world with `decide`, as the dispatcher's loop does: look, decide, take the steps that Batch would accept."""

from __future__ import annotations

import math

from fusebus.planning.demand import Demand, Due, KindDemand, Window
from fusebus.planning.fleet import Fleet, NodeCounts, PoolState, Quantiles, Refusal
from fusebus.planning.forecast import Arrivals
from fusebus.planning.limits import Limits
from fusebus.planning.lines import FORGOTTEN
from fusebus.planning.plan import Late, Plan, PoolPlan
from fusebus.planning.policy import decide, same
from fusebus.planning.prices import Prices
from fusebus.planning.releasing import LATE_WINDOW
from fusebus.planning.simulation.nodes import Node, Pool
from fusebus.planning.simulation.world import World

LOOK = 15.0  # seconds between two looks
ALLOCATES = 45.0  # seconds that a pool resizes until Batch has found the machines
REMOVES = 30.0  # seconds that it resizes while nodes leave
RESIZE_TIMEOUT = 300.0  # seconds after which Batch gives a resize up: the least it allows


class Ours:
    """The policy of this package. Looks in vain are left out: `Plan.wait_until` says until when nothing changes."""

    name = "ours"
    self_starting = False

    def __init__(self, skipping: bool = True) -> None:
        self._skipping = skipping
        self._arrivals: dict[str, Arrivals] = {}
        self._arrived: dict[str, int] = {}
        self._next = math.inf
        self._last: Plan | None = None
        self._grown: dict[str, tuple[bool, int]] = {}
        self._watch: dict[str, tuple[float, int, float]] = {}
        self.reasons: list[tuple[float, str]] = []
        self.late: dict[str, Late] = {}

    def begin(self, world: World) -> None:
        """Start looking."""
        self._world, base = world, world.scenario.service
        self._service = {
            offer.pool: Quantiles(base.p50 / offer.images_per_second, base.p95 / offer.images_per_second, True)
            for offer in world.scenario.offers
        }
        world.on_change = self._poke
        self._schedule(0.0)
        for window in world.scenario.windows:
            world.at(window.known, lambda _: self._poke())

    def _poke(self) -> None:
        """Something changed: the next look is not left out."""
        due = math.floor(self._world.now / LOOK + 1) * LOOK
        if self._next > due:
            self._schedule(due)

    def _schedule(self, when: float) -> None:
        self._next = when
        self._world.at(when, self._look, when)

    def _look(self, when: float) -> None:
        if when != self._next:
            return  # another look took its place
        world = self._world
        fleet, demand = self._fleet(), self._demand()
        limits, prices = self._limits(), self._prices()
        plan = decide(fleet, demand, limits, prices, world.now)
        if not same(self._last, plan):
            self.reasons.append((world.now, plan.because))
        for late in plan.late:
            self.late[late.kind] = late
        self._last = plan
        self._act(plan, fleet)
        world.sample()
        self._schedule(self._after(plan))

    def _after(self, plan: Plan) -> float:
        world = self._world
        resizing = [pool.steady_at for pool in world.pools.values() if pool.steady_at > world.now]
        if self._skipping and plan.wait_until is not None and not world.billed and not resizing:
            return max(world.now + LOOK, math.floor(plan.wait_until / LOOK) * LOOK)
        if self._skipping and not world.billed and not resizing and not any(q.depth for q in world.queues.values()):
            return math.inf
        return world.now + LOOK

    # what is seen

    def _fleet(self) -> Fleet:
        return Fleet(tuple(self._state(pool) for pool in self._world.pools.values()))

    def _state(self, pool: Pool) -> PoolState:
        now, limits = self._world.now, self._limits()
        self._finish_resize(pool)
        idle = [
            node.idle_since for node in pool.nodes if node.ready and not node.worker and node.idle_since is not None
        ]
        recent = [at for at in pool.evicted if now - at < limits.storm_seconds]
        refusals = (Refusal(spot=spot, at=at, reason=why, times=n) for spot, (at, why, n) in pool.refused.items())
        return PoolState(
            name=pool.offer.pool,
            steady=pool.steady_at <= now,
            dedicated=_counts(pool, False),
            spot=_counts(pool, True),
            running=sum(node.worker for node in pool.nodes),
            waiting=pool.tasks,
            boot=self._world.scenario.boot,
            ordered_at=pool.ordered_at,
            idle_since=min(idle, default=None),
            refusals=tuple(refusals),
            evicted=len(recent),
            evicted_at=pool.evicted[-1] if pool.evicted else None,
        )

    def _finish_resize(self, pool: Pool) -> None:
        """A resize that got too few nodes ends with an error."""
        if pool.steady_at <= self._world.now and pool.offer.pool in self._grown:
            spot, missing = self._grown.pop(pool.offer.pool)
            at, _, times = pool.refused.pop(spot, (-math.inf, "", 0))
            if missing:
                there = self._world.scenario.has_spot(pool.steady_at, pool.offer.region)
                why = "AccountCoreQuotaReached" if there else "AllocationTimedOut"
                again = times + 1 if self._world.now - at < FORGOTTEN else 1
                pool.refused[spot] = (self._world.now, why, again)

    def _demand(self) -> Demand:
        return Demand(tuple(self._kind(kind) for kind in self._world.scenario.kinds))

    def _kind(self, kind: str) -> KindDemand:
        world, queue, now = self._world, self._world.queues[kind], self._world.now
        hidden = any(begin <= now < end for begin, end in world.scenario.outages)
        known = self._known(kind, hidden)
        oldest = min((entry[2] for entry in queue.due.values()), default=None)
        nodes = [node for pool in world.pools.values() if pool.offer.kind == kind for node in pool.nodes]
        return KindDemand(
            kind=kind,
            depth=None if hidden else queue.depth,
            due=tuple(
                Due(images=int(left), deadline=deadline, since=since, total=int(total))
                for left, deadline, since, total in queue.due.values()
            ),
            windows=self._windows() if kind == world.scenario.kinds[0] else (),
            oldest_age=None if oldest is None else now - oldest,
            in_flight=sum(node.working.images for node in nodes if node.working),
            service=self._service,
            arrivals_per_second=known.per_second(now),
            gap=known.gap(now),
            quiet=known.quiet(now),
            delivery_age=known.delivery_age(now),
            fruitless=self._fruitless(kind),
        )

    def _known(self, kind: str, hidden: bool) -> Arrivals:
        """The forecast after this look; while the depth can't be read, as it was."""
        known, arrived = self._arrivals.get(kind, Arrivals()), self._world.queues[kind].arrived
        if not hidden:
            known = known.observe(self._world.now, arrived - self._arrived.get(kind, 0))
            self._arrivals[kind], self._arrived[kind] = known, arrived
        return known

    def _fruitless(self, kind: str) -> float:
        """Seconds in which workers were at it since anything was finished or arrived."""
        world, queue = self._world, self._world.queues[kind]
        at_it = any(n.worker for p in world.pools.values() if p.offer.kind == kind for n in p.nodes)
        at, marks, spent = self._watch.get(kind, (world.now, 0, 0.0))
        spent = spent + at_it * (world.now - at) if marks == queue.finished_or_arrived else 0.0
        self._watch[kind] = (world.now, queue.finished_or_arrived, spent)
        return spent

    def _windows(self) -> tuple[Window, ...]:
        now, deadline = self._world.now, self._world.scenario.deadline
        return tuple(
            Window(opens_at=window.at, images=window.images, deadline=window.at + deadline)
            for window in self._world.scenario.windows
            if window.known <= now < window.at + LATE_WINDOW
        )

    def _limits(self) -> Limits:
        return self._world.scenario.limits(self._world.now)

    def _prices(self) -> Prices:
        scenario, now = self._world.scenario, self._world.now
        known = tuple(change for change in scenario.changes if change.at <= now or scenario.changes_known)
        return Prices(offers=scenario.offers, changes=known)

    # what is done

    def _act(self, plan: Plan, fleet: Fleet) -> None:
        for state in fleet.pools:
            wanted = plan.pool(state.name)
            if wanted is not None and not wanted.hold:
                self._step(self._world.pools[state.name], wanted, state)

    def _step(self, pool: Pool, wanted: PoolPlan, state: PoolState) -> None:
        """Workers first, then one resize if Batch would take it."""
        if wanted.workers > state.live:
            pool.tasks += wanted.workers - state.live
        elif wanted.workers < state.live:
            pool.tasks -= min(pool.tasks, state.live - wanted.workers)
        for spot in (True, False):
            surplus = pool.there(spot) - (wanted.spot if spot else wanted.dedicated)
            self._drain(pool, spot, surplus if surplus > 0 else 0)
        self._world.place(pool)
        if state.steady and not self._grow(pool, wanted, state):
            self._shrink(pool, wanted)

    def _drain(self, pool: Pool, spot: bool, surplus: int) -> None:
        """Workers on nodes that are to go end after what they hold; of those that rest first."""
        surplus -= sum(n.spot == spot and (not n.ready or not n.worker or n.draining) for n in pool.nodes)
        workers = [n for n in pool.nodes if n.spot == spot and n.worker and not n.draining]
        for node in sorted(workers, key=lambda n: n.working is not None)[: max(0, surplus)]:
            self._world.stop_working(node)

    def _grow(self, pool: Pool, wanted: PoolPlan, state: PoolState) -> bool:
        world, asked, came = self._world, False, 0
        for spot, count in ((True, wanted.spot), (False, wanted.dedicated)):
            missing = count - state.counts(spot).present
            if missing > 0:
                given = world.grow(pool, spot, missing)
                late = spot and not world.scenario.has_spot(world.now, pool.offer.region)
                pool.steady_at = world.now + (RESIZE_TIMEOUT if late else ALLOCATES)
                self._grown[pool.offer.pool] = (spot, missing - given)
                pool.ordered_at = world.now
                pool.target[spot], asked = count, True
                came += given
        if asked:
            world.count(came)
        return asked

    def _shrink(self, pool: Pool, wanted: PoolPlan) -> None:
        gone, lost = list[Node](), 0
        for spot, count in ((True, wanted.spot), (False, wanted.dedicated)):
            surplus = pool.there(spot) + (pool.preempted if spot else 0) - count
            if spot and surplus > 0:
                lost = min(surplus, pool.preempted)
                pool.preempted -= lost
                surplus -= lost
            idle = [n for n in pool.nodes if n.spot == spot and not n.worker]
            gone += sorted(idle, key=lambda n: n.ready)[: max(0, surplus)]
            pool.target[spot] = count
        if gone or lost:
            self._world.remove(gone)
            self._world.shrinks += 1
            pool.steady_at = self._world.now + REMOVES


def _counts(pool: Pool, spot: bool) -> NodeCounts:
    nodes = [node for node in pool.nodes if node.spot == spot]
    return NodeCounts(
        target=pool.target[spot],
        starting=sum(not node.ready for node in nodes),
        idle=sum(node.ready and not node.worker for node in nodes),
        busy=sum(node.worker for node in nodes),
        preempted=pool.preempted if spot else 0,
    )
