"""The nodes of a simulated pool and what they hold."""

from __future__ import annotations

from fusebus.planning.prices import PoolOffer
from fusebus.planning.simulation.scenario import Scenario

SECONDS_PER_HOUR = 3600.0
IDLE_EXIT = 60.0  # seconds: the inferencer's own setting
CLAIM_SECONDS = 5.0  # a worker holds several short images at a time, about so much of work


class Batchful:
    """Images of one arrival that wait or are worked at together."""

    __slots__ = ("at", "bucket", "first", "images")

    def __init__(self, at: float, first: int, images: int, bucket: int) -> None:
        self.at, self.first, self.images, self.bucket = at, first, images, bucket


class Node:
    """One VM, billed from the moment it was asked for until it is gone."""

    __slots__ = (
        "born", "cost", "draining", "idle_since", "pool", "price", "ready", "resting", "settled", "spot", "worker",
        "working",
    )  # fmt: skip

    def __init__(self, pool: Pool, spot: bool, now: float, per_hour: float) -> None:
        self.pool, self.spot, self.born, self.settled = pool, spot, now, now
        self.price, self.cost = per_hour / SECONDS_PER_HOUR, 0.0
        self.ready = self.worker = self.draining = False
        self.working: Batchful | None = None
        self.resting: float | None = None
        self.idle_since: float | None = None

    def settle(self, now: float) -> None:
        """Count the seconds since the last time."""
        self.cost += (now - self.settled) * self.price
        self.settled = now


class Pool:
    """One pool of the simulated Batch."""

    def __init__(self, offer: PoolOffer, scenario: Scenario) -> None:
        self.offer = offer
        self.seconds = scenario.service.p50 / offer.images_per_second
        self.claim = max(1, int(CLAIM_SECONDS / self.seconds))
        self.idle_exit = IDLE_EXIT
        self.nodes: dict[Node, None] = {}
        self.tasks = 0
        """Worker tasks without a node."""
        self.preempted = 0
        self.evicted: list[float] = []
        self.ordered_at: float | None = None
        self.steady_at = 0.0
        """When the resize under way ends."""
        self.target = {True: 0, False: 0}
        self.refused: dict[bool, tuple[float, str, int]] = {}
        """By Spot: when, why, and how often in a row."""
        self.spent = self.seconds_billed = 0.0

    def there(self, spot: bool) -> int:
        """Nodes of that price class that cost money."""
        return sum(node.spot == spot for node in self.nodes)

    def resting(self) -> list[Node]:
        """Nodes whose worker waits for work."""
        return [node for node in self.nodes if node.resting is not None]

    def cost(self, now: float) -> float:
        """So far."""
        return self.spent + sum(node.cost + (now - node.settled) * node.price for node in self.nodes)
