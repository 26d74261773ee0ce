"""One scenario under one policy, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from fusebus.planning.simulation.batch_formula import BatchFormula
from fusebus.planning.simulation.bound import lower_bound
from fusebus.planning.simulation.keda import Keda
from fusebus.planning.simulation.nodes import SECONDS_PER_HOUR
from fusebus.planning.simulation.ours import Ours
from fusebus.planning.simulation.scenario import Draws, Scenario
from fusebus.planning.simulation.world import World


class Scaler(Protocol):
    """A policy at work in a world."""

    name: str
    self_starting: bool
    """Whether its nodes take work without worker tasks."""

    def begin(self, world: World) -> None:
        """Start looking at it."""


POLICIES: dict[str, Callable[[], Scaler]] = {"ours": Ours, "keda": Keda, "batch-formula": BatchFormula}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Costs in the offers' currency, times in seconds."""

    scenario: str
    policy: str
    images: int
    hits: int
    """Done by their deadline."""
    cost: float
    bound: float
    """What no policy can undercut."""
    node_hours: float
    boots: int
    most_nodes: int
    resizes: int
    """That changed the number of nodes."""
    grows: int
    refused: int
    """Resizes that were to bring nodes and brought none."""
    bursts: int | None
    busy_removed: int
    evictions: int
    p50: int
    """Age of an image when it is done."""
    p95: int
    says: str = ""
    """The scenario in one line."""
    storms: tuple[tuple[float, float], ...] = ()
    """From when to when there was no Spot (where, the scenario says)."""
    late: str = ""
    """The last alert."""
    timeline: list[tuple[float, int, int, float]] = []
    """Second, billed nodes, queue, cost so far."""
    reasons: list[tuple[float, str]] = []

    @property
    def hit_share(self) -> float:
        """Of all images."""
        return self.hits / self.images if self.images else 1.0

    @property
    def ratio(self) -> float:
        """Cost by bound."""
        return self.cost / self.bound if self.bound else 1.0


def simulate(scenario: Scenario, policies: Sequence[str] = tuple(POLICIES)) -> list[Outcome]:
    """One outcome a policy. Raises KeyError for a policy that is none."""
    bound = lower_bound(scenario, Draws(scenario))
    return [_one(scenario, POLICIES[name](), bound) for name in policies]


def _one(scenario: Scenario, scaler: Scaler, bound: float) -> Outcome:
    world = World(scenario, Draws(scenario), scaler.self_starting)
    scaler.begin(world)
    world.run()
    return _outcome(scenario, scaler, world, bound)


def _outcome(scenario: Scenario, scaler: Scaler, world: World, bound: float) -> Outcome:
    seconds = sum(p.seconds_billed + sum(world.now - n.born for n in p.nodes) for p in world.pools.values())
    alerts = scaler.late.values() if isinstance(scaler, Ours) else ()
    return Outcome(
        scenario=scenario.name,
        policy=scaler.name,
        images=scenario.images,
        hits=world.hits,
        cost=world.cost,
        bound=bound,
        node_hours=seconds / SECONDS_PER_HOUR,
        boots=world.boots,
        most_nodes=world.peak,
        resizes=world.grows + world.shrinks,
        grows=world.grows,
        refused=world.refused,
        bursts=scenario.bursts,
        busy_removed=world.busy_removed,
        evictions=world.evictions,
        p50=_quantile(world, 0.5),
        p95=_quantile(world, 0.95),
        says=scenario.says,
        storms=scenario.storms,
        late="; ".join(late.because for late in alerts),
        timeline=world.timeline,
        reasons=scaler.reasons if isinstance(scaler, Ours) else [],
    )


def _quantile(world: World, share: float) -> int:
    """Age of the images done; 0 where none was."""
    total, seen = sum(world.latency.values()), 0
    for age in sorted(world.latency):
        seen += world.latency[age]
        if seen >= share * total:
            return age
    return 0
