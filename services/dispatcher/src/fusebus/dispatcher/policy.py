"""Decides how many nodes and workers there should be, and which steps lead there; values in, values out."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import msgspec

MOST_REMOVED_AT_ONCE = 100  # Batch's limit of one remove request
LEAST_TIME_SHARE = 0.25  # of the deadline: however long booting takes, this much of it is planned with


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """The pool and its worker tasks as they were read; node ids where a step may name nodes."""

    steady: bool
    """Whether Batch accepts a resize now."""
    target: int
    """Nodes that were asked for last."""
    starting: int = 0
    """Allocated, not usable yet."""
    idle: tuple[str, ...] = ()
    busy: int = 0
    """Nodes that run a worker."""
    broken: tuple[str, ...] = ()
    """Unusable for good: they cost and do nothing."""
    preempted: tuple[str, ...] = ()
    """Without a machine and free of charge until Batch gets one back."""
    other: int = 0
    """Offline or of unknown state: they cost, and may still run a worker."""
    leaving: int = 0
    waiting: tuple[str, ...] = ()
    """Ids of worker tasks that have no node yet."""
    running: int = 0
    """Worker tasks on a node."""
    failures: int = 0
    """Worker tasks that failed within the last `failure_window_seconds`."""
    resize_failed_at: datetime | None = None
    """When the last resize was asked for, if it got fewer nodes than that."""
    resize_problem: str = ""

    @property
    def present(self) -> int:
        """Nodes that are there and not on their way out."""
        return self.billed + len(self.preempted) - self.leaving

    @property
    def billed(self) -> int:
        """Nodes that cost money now: all that have a machine."""
        return self.starting + len(self.idle) + self.busy + len(self.broken) + self.other + self.leaving

    @property
    def coming(self) -> int:
        """Nodes that are starting, or asked for and not allocated yet."""
        return self.starting + (0 if self.steady else max(0, self.target - self.present))

    @property
    def live(self) -> int:
        """Worker tasks that run or wait for a node."""
        return self.running + len(self.waiting)


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done; `depth` includes messages that a worker has locked, None where it could not be read."""

    depth: int | None
    seconds_per_image: float
    """Of one worker."""
    measured: bool = False


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the decision must keep to. Times in seconds."""

    max_nodes: int
    quota_nodes: int | None = None
    """What the account may have; None where it could not be read: then Batch itself will say."""
    deadline_seconds: float = 1800.0
    boot_seconds: float = 300.0
    retry_resize_seconds: float = 600.0
    most_failures: int = 6

    @property
    def cap(self) -> int:
        """Most nodes."""
        return self.max_nodes if self.quota_nodes is None else min(self.max_nodes, self.quota_nodes)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How many nodes and live workers there should be, and the reason in words."""

    nodes: int
    workers: int
    because: str
    hold: bool = False
    """Too little is known to decide: take no step, and keep what was decided before."""


class Resize(msgspec.Struct, frozen=True):
    """Ask for so many nodes in all."""

    nodes: int


class RemoveNodes(msgspec.Struct, frozen=True):
    """Let these go: idle, preempted or broken ones, never one that works."""

    node_ids: tuple[str, ...]


class AddWorkers(msgspec.Struct, frozen=True):
    """Queue so many more worker tasks."""

    count: int


class StopWaiting(msgspec.Struct, frozen=True):
    """End these worker tasks before they get a node."""

    task_ids: tuple[str, ...]


Step = Resize | RemoveNodes | AddWorkers | StopWaiting


def decide(fleet: Fleet, demand: Demand, limits: Limits, now: datetime) -> Plan:
    """The plan for this moment. It never asks for less than what works: workers leave by themselves when idle."""
    if demand.depth is None:
        because = "the queue's depth is unknown: holding still"
        return Plan(nodes=fleet.present, workers=fleet.live, because=because, hold=True)
    if demand.depth == 0:
        return _without_work(fleet)
    needed, because = _needed(fleet, demand, limits)
    allowed, why_not = _allowed(fleet, limits, now)
    if needed > allowed:
        because = f"{because}; {why_not}"
    # What works or is about to is kept: stopping a boot half way saves little and costs a boot later.
    kept = fleet.busy + fleet.coming
    nodes, workers = max(min(needed, allowed), kept), max(min(needed, allowed), fleet.live)
    if kept > min(needed, allowed):
        because = f"{because}; what works or boots is kept"
    if fleet.failures >= limits.most_failures and workers > fleet.live:
        why = f"{fleet.failures} workers failed lately: no new ones for now"
        return Plan(nodes=nodes, workers=fleet.live, because=why)
    return Plan(nodes=nodes, workers=workers, because=because)


def steps(plan: Plan, fleet: Fleet) -> tuple[Step, ...]:
    """What to do now; what Batch would refuse while it resizes waits for a later tick."""
    if plan.hold:
        return ()
    found: list[Step] = []
    missing = plan.workers - fleet.live
    if missing > 0:
        found.append(AddWorkers(missing))
    elif missing < 0 and fleet.waiting:
        found.append(StopWaiting(fleet.waiting[missing:]))
    if fleet.steady:
        found += _sizing(plan, fleet, tasks_to_place=missing > 0 or len(fleet.waiting) > -missing)
    return tuple(found)


def _sizing(plan: Plan, fleet: Fleet, tasks_to_place: bool) -> list[Step]:
    surplus = fleet.present - plan.nodes
    # An idle node is about to be busy while a task waits.
    removable = fleet.broken if tasks_to_place else fleet.broken + fleet.preempted + fleet.idle
    if fleet.broken and surplus <= 0:
        return [RemoveNodes(fleet.broken[:MOST_REMOVED_AT_ONCE])]  # replaced once they are gone
    if surplus > 0 and removable:
        return [RemoveNodes(removable[: min(surplus, MOST_REMOVED_AT_ONCE)])]
    if plan.nodes > fleet.present:
        return [Resize(plan.nodes)]
    if fleet.target > fleet.present:
        return [Resize(fleet.present)]  # a resize that failed leaves its target: Batch must not come back to it
    return []


def _without_work(fleet: Fleet) -> Plan:
    if fleet.busy or fleet.running:
        because = f"nothing waits; {fleet.running} workers still run and leave when idle"
    else:
        because = "nothing waits and nothing is in flight"
    return Plan(nodes=fleet.busy, workers=fleet.running, because=because)


def _needed(fleet: Fleet, demand: Demand, limits: Limits) -> tuple[int, str]:
    """Workers that finish the work in time, and the sum in words."""
    assert demand.depth is not None
    ready = fleet.busy + len(fleet.idle)
    available = limits.deadline_seconds if ready else limits.deadline_seconds - limits.boot_seconds
    available = max(available, limits.deadline_seconds * LEAST_TIME_SHARE)
    needed = max(1, math.ceil(demand.depth * demand.seconds_per_image / available))
    how = "measured" if demand.measured else "assumed"
    because = (
        f"{demand.depth} images at {demand.seconds_per_image:.2g} s each ({how}) in {available:.0f} s need "
        f"{needed} worker{'s' * (needed > 1)}; {ready} nodes ready, {fleet.coming} coming"
    )
    return needed, because


def _allowed(fleet: Fleet, limits: Limits, now: datetime) -> tuple[int, str]:
    """Most nodes at this moment, and what keeps it from more."""
    failed = fleet.resize_failed_at
    if failed is not None and now - failed < timedelta(seconds=limits.retry_resize_seconds):
        return min(limits.cap, fleet.present), f"the last resize failed: {fleet.resize_problem}"
    if limits.quota_nodes is not None and limits.quota_nodes < limits.max_nodes:
        return limits.cap, f"the account's quota is {limits.quota_nodes} nodes"
    return limits.cap, f"at most {limits.max_nodes} nodes are allowed"
