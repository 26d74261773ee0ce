"""A pool as it was read from Batch: its nodes, its worker tasks, its targets and what kept it from them."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

STARTING = frozenset({"creating", "starting", "waitingforstarttask", "rebooting", "reimaging", "upgradingos"})
"""Has a machine, not usable yet."""
BROKEN = frozenset({"unusable", "starttaskfailed"})
"""Costs, and will never do anything."""
WITHOUT_MACHINE = frozenset({"preempted", "deallocated"})
"""Free of charge until Batch gets a machine again."""
IDLE, RUNNING, LEAVING = "idle", "running", "leavingpool"


class NodeSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One node. Times are Batch's."""

    id: str
    state: str
    """As Batch names it, lower case; one that is unknown here counts as in use."""
    dedicated: bool = False
    allocated_at: datetime | None = None
    since: datetime | None = None
    """In this state."""
    problem: str = ""
    """What Batch says is wrong with it."""

    @property
    def broken(self) -> bool:
        return self.state in BROKEN


class WorkerState(StrEnum):
    """Of a worker task."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


class WorkerSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One finite worker task."""

    id: str
    state: WorkerState
    since: datetime | None = None
    node: str = ""
    failed: bool = False
    """Ended badly by itself: not by our own wish, and not because its node went."""
    problem: str = ""
    version: str = ""
    """ETag: guards its end and its deletion."""


class PoolSeen(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a decision on one pool rests on, read at one moment."""

    name: str
    steady: bool
    """Whether Batch accepts a resize now."""
    target_dedicated: int = 0
    """Nodes that were asked for last."""
    target_spot: int = 0
    nodes: tuple[NodeSeen, ...] = ()
    workers: tuple[WorkerSeen, ...] = ()
    resized_at: datetime | None = None
    """When the last resize began."""
    shortfall: str = ""
    """Why the last resize got fewer nodes than were asked for; empty where it did not, or is under way."""
    term: int = 0
    """Of the dispatcher that wrote to the pool last, 0: none yet."""
    pool_version: str = ""
    """ETag in the management plane: guards resizes."""
    node_version: str = ""
    """ETag in the data plane: guards removals."""

    def staying(self, dedicated: bool) -> list[NodeSeen]:
        """Nodes of one kind that are there and not on their way out."""
        return [node for node in self.nodes if node.dedicated is dedicated and node.state != LEAVING]

    def count(self, *states: str, dedicated: bool | None = None) -> int:
        """Nodes in any of these states."""
        kinds = (True, False) if dedicated is None else (dedicated,)
        return sum(node.state in states and node.dedicated in kinds for node in self.nodes)

    @property
    def present(self) -> int:
        """Nodes that are there and not on their way out."""
        return sum(node.state != LEAVING for node in self.nodes)

    @property
    def billed(self) -> int:
        """Nodes that cost money now: all that have a machine."""
        return sum(node.state not in WITHOUT_MACHINE for node in self.nodes)

    @property
    def starting(self) -> int:
        return self.count(*STARTING)

    @property
    def coming(self) -> int:
        """Nodes that are starting, or asked for and not allocated yet."""
        missing = max(0, self.target_dedicated - len(self.staying(True)))
        missing += max(0, self.target_spot - len(self.staying(False)))
        return self.starting + (0 if self.steady else missing)

    @property
    def idle(self) -> tuple[str, ...]:
        return tuple(node.id for node in self.nodes if node.state == IDLE)

    @property
    def busy(self) -> int:
        """Nodes that run a worker."""
        return self.count(RUNNING)

    @property
    def broken(self) -> tuple[str, ...]:
        return tuple(node.id for node in self.nodes if node.broken)

    @property
    def waiting(self) -> tuple[str, ...]:
        """Worker tasks that have no node yet, in order of arrival."""
        return tuple(worker.id for worker in self.workers if worker.state is WorkerState.WAITING)

    @property
    def running(self) -> int:
        """Worker tasks on a node."""
        return sum(worker.state is WorkerState.RUNNING for worker in self.workers)

    @property
    def live(self) -> int:
        """Worker tasks that run or wait for a node."""
        return self.running + len(self.waiting)

    def failed_since(self, moment: datetime) -> list[WorkerSeen]:
        """Workers that failed from then on."""
        return [one for one in self.workers if one.failed and one.since is not None and one.since >= moment]

    def by_state(self) -> dict[str, int]:
        """How many nodes are in each state, by name."""
        found = sorted({node.state for node in self.nodes})
        return {state: self.count(state) for state in found}

    def resize_failed_lately(self, now: datetime, retry_seconds: float) -> bool:
        """Whether the last resize fell short less than that ago: asking again so soon would get the same answer."""
        if not self.shortfall or self.resized_at is None:
            return False
        return now - self.resized_at < timedelta(seconds=retry_seconds)
