"""From what is wanted to what is to be done now: values in, values out; a busy node is never among them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

import msgspec

from fusebus.dispatcher.seen import (
    BROKEN,
    IDLE,
    LEAVING,
    RUNNING,
    STARTING,
    WITHOUT_MACHINE,
    NodeSeen,
    PoolSeen,
    WorkerState,
)
from fusebus.planning.lines import GIVEN_UP, OVERDUE

MOST_REMOVED_AT_ONCE = 100  # Batch's limit of one remove request


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What one pool should have."""

    dedicated: int = 0
    spot: int = 0
    workers: int = 0
    """Worker tasks that run or wait for a node. They end by themselves when they find no work; those above the number
    of nodes of their kind are told to give their work back and end."""
    hold: bool = False
    """Take no step at all."""
    because: str = ""
    late: str = ""
    """What will not be done in time; empty: nothing."""

    @property
    def nodes(self) -> int:
        return self.dedicated + self.spot


class Resize(msgspec.Struct, frozen=True):
    """Ask for so many nodes in all, of each kind."""

    dedicated: int
    spot: int


class RemoveNodes(msgspec.Struct, frozen=True):
    """Let these go: idle, preempted, broken or never ready ones, never one that works."""

    node_ids: tuple[str, ...]


class AddWorkers(msgspec.Struct, frozen=True):
    """Queue so many more worker tasks."""

    count: int


class StopWaiting(msgspec.Struct, frozen=True):
    """End these worker tasks before they get a node."""

    task_ids: tuple[str, ...]


class DrainWorkers(msgspec.Struct, frozen=True):
    """Tell these running workers to give back what they can't finish, and to end."""

    task_ids: tuple[str, ...]


Step = Resize | RemoveNodes | AddWorkers | StopWaiting | DrainWorkers


def overdue(seen: PoolSeen, now: datetime, boot_p95_seconds: float, only_starting: bool = False) -> frozenset[str]:
    """Nodes without a worker that start, are offline or unknown for longer than the policy counts on a coming node."""
    limit = timedelta(seconds=GIVEN_UP * boot_p95_seconds + OVERDUE)
    return frozenset(
        node.id
        for node in _unready(seen.nodes, seen)
        if node.since is not None and now - node.since > limit and (node.state in STARTING or not only_starting)
    )


def steps(target: Target, seen: PoolSeen, late: Collection[str] = ()) -> tuple[Step, ...]:
    """What to do now; what Batch would refuse while it resizes waits for a later look.

    `late`: nodes that are `overdue`; they are treated as broken ones.
    """
    if target.hold:
        return ()
    found: list[Step] = []
    missing = target.workers - seen.live
    if missing > 0:
        found.append(AddWorkers(missing))
    elif missing < 0 and seen.waiting:
        found.append(StopWaiting(seen.waiting[missing:]))
    drained = _surplus(target, seen)
    if drained:
        found.append(DrainWorkers(drained))
    if seen.steady:
        found += _sizing(target, seen, late, tasks_to_place=missing > 0 or len(seen.waiting) > -missing)
    return tuple(found)


def _sizing(target: Target, seen: PoolSeen, late: Collection[str], tasks_to_place: bool) -> list[Step]:
    staying = {kind: seen.staying(kind) for kind in (True, False)}
    wanted = {True: target.dedicated, False: target.spot}
    # Broken nodes go whatever is wanted: what is missing then is asked for once they are gone.
    going = [node.id for node in seen.nodes if node.broken or node.id in late]
    for kind, nodes in staying.items():
        sound = [node for node in nodes if node.id not in going]
        surplus = len(sound) - wanted[kind]
        free = _removable(sound, tasks_to_place)
        # Of a pool that should have some, a node on its way is waited for: it may be idle sooner than another boots.
        free += [] if tasks_to_place or target.nodes else [node.id for node in _unready(sound, seen)]
        going += free[: max(0, surplus)]
    if going:
        return [RemoveNodes(tuple(going[:MOST_REMOVED_AT_ONCE]))]
    there = {kind: len(nodes) for kind, nodes in staying.items()}
    if any(wanted[kind] > there[kind] for kind in there):
        # Never below what is there: of a shrinking pool Batch would choose the nodes by itself.
        return [Resize(max(wanted[True], there[True]), max(wanted[False], there[False]))]
    if seen.target_dedicated > there[True] or seen.target_spot > there[False]:
        return [Resize(there[True], there[False])]  # a failed resize leaves its target: Batch must not come back to it
    return []


def _removable(nodes: list[NodeSeen], tasks_to_place: bool) -> list[str]:
    """Those without a machine first: they cost nothing, and would cost once they came back. An idle node is about to be
    busy while a task waits."""
    gone = [node.id for node in nodes if node.state in WITHOUT_MACHINE]
    return gone + [node.id for node in nodes if node.state == IDLE and not tasks_to_place]


def _unready(nodes: Iterable[NodeSeen], seen: PoolSeen) -> list[NodeSeen]:
    """Those that start, are offline or unknown, and hold no worker."""
    working = {worker.node for worker in seen.workers if worker.state is WorkerState.RUNNING}
    ready = BROKEN | WITHOUT_MACHINE | {IDLE, RUNNING, LEAVING}
    return [node for node in nodes if node.state not in ready and node.id not in working]


def _surplus(target: Target, seen: PoolSeen) -> tuple[str, ...]:
    """Running workers on more nodes than there should be of their kind, the latest started first."""
    dedicated = {node.id: node.dedicated for node in seen.nodes}
    found: list[str] = []
    for kind, wanted in ((True, target.dedicated), (False, target.spot)):
        running = [
            worker.id
            for worker in seen.workers
            if worker.state is WorkerState.RUNNING and dedicated.get(worker.node) is kind
        ]
        found += running[wanted:][::-1]
    return tuple(found)
