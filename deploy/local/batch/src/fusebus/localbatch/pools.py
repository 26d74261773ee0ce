"""Pools and their nodes: sizes, allocation, booting, leaving, quota and the meter; no I/O, the clock is given."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fusebus.localbatch.entities import (
    BILLED_STATES,
    AccountLimits,
    BatchProblem,
    Deallocation,
    Instruction,
    Node,
    NodeState,
    Pool,
    Run,
    SignalProcess,
    StopReason,
)
from fusebus.localbatch.values import checked_id, deallocation

QUOTA_CODES = {True: "AccountCoreQuotaReached", False: "AccountLowPriorityCoreQuotaReached"}  # by `dedicated`


class PoolState:
    """The fleet half of an account; `BatchState` adds the jobs."""

    def __init__(self, limits: AccountLimits, clock: Callable[[], float]) -> None:
        self.limits = limits
        self.clock = clock  # seconds since 1970
        self.pools: dict[str, Pool] = {}
        self.runs: dict[int, Run] = {}
        self._numbers = itertools.count(1)
        self._instructions: list[Instruction] = []

    def pool(self, pool_id: str) -> Pool:
        if pool_id not in self.pools:
            raise BatchProblem(404, "PoolNotFound", f"The specified pool {pool_id} does not exist.")
        return self.pools[pool_id]

    def create_pool(self, pool_id: str, properties: Mapping[str, Any], *, only_new: bool = False) -> Pool:
        """Create, or write over the given properties of an existing pool."""
        checked_id(pool_id)
        if pool_id in self.pools:
            if only_new:
                raise BatchProblem(412, "PreconditionFailed", f"The pool {pool_id} already exists.")
            return self.update_pool(pool_id, properties)
        if not properties.get("vmSize"):
            raise BatchProblem(400, "InvalidRequestBody", "vmSize is required.")
        now = self.clock()
        pool = Pool(pool_id, {}, created=now, modified=now, version=next(self._numbers), steady_since=now)
        self.pools[pool_id] = pool
        try:
            return self.update_pool(pool_id, properties)
        except BatchProblem:
            del self.pools[pool_id]
            raise

    def update_pool(self, pool_id: str, properties: Mapping[str, Any], if_match: str | None = None) -> Pool:
        """Write over the given properties; new scale settings start a resize, which needs a steady pool."""
        pool = self.pool(pool_id)
        self._check_etag(pool, if_match)
        scale = properties.get("scaleSettings")
        if scale is not None:
            if "autoScale" in scale:
                raise BatchProblem(400, "NotSupported", "Autoscale formulas are not supported here.")
            self._resize(pool, scale.get("fixedScale") or {})
        pool.properties.update(properties)
        self._touch(pool)
        return pool

    def stop_resize(self, pool_id: str) -> Pool:
        """Give up what has not been allocated yet: the target becomes what is there."""
        pool = self.pool(pool_id)
        if pool.allocation_due is not None:
            pool.allocation_due = None
            pool.target_dedicated, pool.target_spot = len(pool.staying(True)), len(pool.staying(False))
            pool.resize_errors.append(("ResizeStopped", "Desired number of nodes could not be allocated: stopped."))
            self._touch(pool)
        return pool

    def delete_pool(self, pool_id: str) -> None:
        pool = self.pool(pool_id)
        pool.deleting, pool.allocation_due, pool.steady = True, None, False
        self._remove(pool, [node for node in pool.nodes.values() if not node.removing], Deallocation.REQUEUE)

    def remove_nodes(
        self, pool_id: str, node_ids: Iterable[str], option: Deallocation, if_match: str | None = None
    ) -> Pool:
        """Take named nodes out of a steady pool, and off its target."""
        pool = self.pool(pool_id)
        self._check_etag(pool, if_match)
        self._check_steady(pool)
        nodes = [self.node(pool_id, node_id) for node_id in dict.fromkeys(node_ids)]
        if not 1 <= len(nodes) <= 100:
            raise BatchProblem(400, "InvalidPropertyValue", "Between 1 and 100 nodes can be removed at once.")
        pool.target_dedicated -= sum(node.dedicated for node in nodes)
        pool.target_spot -= sum(not node.dedicated for node in nodes)
        pool.target_dedicated, pool.target_spot = max(0, pool.target_dedicated), max(0, pool.target_spot)
        self._begin_resize(pool, option)
        self._remove(pool, nodes, option)
        self._touch(pool)
        return pool

    def node(self, pool_id: str, node_id: str) -> Node:
        node = self.pool(pool_id).nodes.get(node_id)
        if node is None:
            raise BatchProblem(404, "NodeNotFound", f"The specified node {node_id} does not exist.")
        return node

    def preempt(self, pool_id: str, node_id: str) -> None:
        """Take a Spot node's machine away without notice; Batch gives one back later and runs its task again."""
        node = self.node(pool_id, node_id)
        if node.dedicated or node.removing or node.state is NodeState.PREEMPTED:
            raise BatchProblem(409, "NodeStateInvalid", "Only a Spot node that is in use can be preempted.")
        if node.run is not None:
            node.run.stopping = StopReason.REQUEUED
            self._signal(node.run, kill=True)
            node.run = None  # the machine is gone at once, whenever its process is seen to have ended
        self._enter(self.pool(pool_id), node, NodeState.PREEMPTED, self.limits.preempted_seconds)

    def billed_node_seconds(self, pool_id: str) -> dict[bool, float]:
        """Node-seconds that cost money so far, by `dedicated`."""
        pool, now = self.pool(pool_id), self.clock()
        total = dict(pool.billed_seconds)
        for node in pool.nodes.values():
            if node.billed_since is not None:
                total[node.dedicated] += now - node.billed_since
        return total

    # --- time

    def advance_pools(self, now: float) -> None:
        """Machines arrive, boot, come back and leave."""
        for pool in list(self.pools.values()):
            self._allocate_due(pool, now)
            for node in list(pool.nodes.values()):
                self._step_node(pool, node, now)
            self._settle(pool)

    def _allocate_due(self, pool: Pool, now: float) -> None:
        if pool.allocation_due is None or now < pool.allocation_due:
            return
        pool.allocation_due = None
        for dedicated, target in ((True, pool.target_dedicated), (False, pool.target_spot)):
            wanted = target - len(pool.staying(dedicated))
            here = sum(len(other.nodes) for other in self.pools.values())
            room = wanted if self.limits.capacity is None else max(0, self.limits.capacity - here)
            for _ in range(min(wanted, room)):
                self._add_node(pool, dedicated, now)
            if wanted > room:
                kind = "dedicated" if dedicated else "Spot/low-priority"
                message = f"The account has reached its quota of {self.limits.capacity} nodes: {kind} target {target}."
                pool.resize_errors.append((QUOTA_CODES[dedicated], message))

    def _add_node(self, pool: Pool, dedicated: bool, now: float) -> None:
        pool.nodes_made += 1
        node_id = f"tvm-{pool.id}-{pool.nodes_made:04d}"
        boot = self.limits.boot_seconds * (1 - self.limits.allocation_share)
        pool.nodes[node_id] = Node(node_id, dedicated, NodeState.STARTING, now, now, now + boot, billed_since=now)

    def _step_node(self, pool: Pool, node: Node, now: float) -> None:
        """What happens to a node by the passing of time alone."""
        if node.due is None or now < node.due:
            return
        match node.state:
            case NodeState.STARTING:
                self._enter(pool, node, NodeState.IDLE)
            case NodeState.PREEMPTED:
                self._enter(pool, node, NodeState.STARTING, self.limits.boot_seconds)
            case NodeState.LEAVING:
                self._meter(pool, node, billed=False)
                del pool.nodes[node.id]

    def _settle(self, pool: Pool) -> None:
        """A resize is over when nothing is to come and nobody is leaving."""
        if pool.deleting and not pool.nodes:
            del self.pools[pool.id]
        resizing = pool.allocation_due is not None or any(node.removing for node in pool.nodes.values())
        if not pool.steady and not resizing and not pool.deleting:
            pool.steady, pool.steady_since = True, self.clock()

    # --- steps

    def _resize(self, pool: Pool, scale: Mapping[str, Any]) -> None:
        self._check_steady(pool)
        dedicated, spot = int(scale.get("targetDedicatedNodes") or 0), int(scale.get("targetLowPriorityNodes") or 0)
        if dedicated < 0 or spot < 0:
            raise BatchProblem(400, "InvalidPropertyValue", "A target must not be negative.")
        option = deallocation(scale.get("nodeDeallocationOption"))
        pool.target_dedicated, pool.target_spot = dedicated, spot
        for kind, target in ((True, dedicated), (False, spot)):
            nodes = pool.staying(kind)
            if target != len(nodes):
                self._begin_resize(pool, option)
            if target > len(nodes):
                pool.allocation_due = self.clock() + self.limits.boot_seconds * self.limits.allocation_share
            # Batch chooses by itself; it prefers nodes without a task.
            by_loss = sorted(nodes, key=lambda node: (node.run is not None, -node.allocated))
            self._remove(pool, by_loss[: max(0, len(nodes) - target)], option)

    def _begin_resize(self, pool: Pool, option: Deallocation) -> None:
        pool.steady, pool.resize_started, pool.resize_errors = False, self.clock(), []
        pool.deallocation = option

    def _remove(self, pool: Pool, nodes: Iterable[Node], option: Deallocation) -> None:
        for node in nodes:
            node.removing = True
            if node.run is None:
                self._enter(pool, node, NodeState.LEAVING, self.limits.leave_seconds)
            elif option is not Deallocation.TASK_COMPLETION:
                self._enter(pool, node, NodeState.LEAVING)
                requeue = option is Deallocation.REQUEUE
                self._stop(node.run, StopReason.REQUEUED if requeue else StopReason.TERMINATED)

    def _enter(self, pool: Pool, node: Node, state: NodeState, for_seconds: float | None = None) -> None:
        node.state, node.since = state, self.clock()
        node.due = None if for_seconds is None else node.since + for_seconds
        # A preempted node that is removed has no machine to give back.
        no_machine = state is NodeState.LEAVING and node.billed_since is None
        self._meter(pool, node, billed=state in BILLED_STATES and not no_machine)

    def _meter(self, pool: Pool, node: Node, billed: bool) -> None:
        now = self.clock()
        if node.billed_since is not None:
            pool.billed_seconds[node.dedicated] += now - node.billed_since
        node.billed_since = now if billed else None

    def _stop(self, run: Run, reason: StopReason) -> None:
        """SIGTERM now, SIGKILL after the grace; an earlier reason stays."""
        if run.stopping is None:
            run.stopping, run.kill_at = reason, self.clock() + self.limits.terminate_grace_seconds
            self._signal(run, kill=False)

    def _signal(self, run: Run, kill: bool) -> None:
        if kill:
            run.kill_at = None
        self._instructions.append(SignalProcess(run.id, kill))

    def _touch(self, pool: Pool) -> None:
        pool.version, pool.modified = next(self._numbers), self.clock()

    @staticmethod
    def _check_etag(pool: Pool, if_match: str | None) -> None:
        if if_match not in (None, "*", pool.etag):
            raise BatchProblem(412, "ConditionNotMet", f"The pool has changed: its ETag is {pool.etag}.")

    @staticmethod
    def _check_steady(pool: Pool) -> None:
        if not pool.steady:
            raise BatchProblem(409, "PoolBeingResized", "The specified pool is being resized.")
