"""Pools: sizes, resizes with their timeouts and errors, quota and market, removal, the meter; no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fusebus.localbatch.entities import BatchProblem, Deallocation, Node, NodeState, Pool
from fusebus.localbatch.machines import Machines
from fusebus.localbatch.quota import quota_room
from fusebus.localbatch.values import check_settings, checked_id, deallocation, seconds, whole_number

MAX_NODES_REMOVED = 100  # in one call: Batch's own limit


class PoolState(Machines):
    """The fleet half of an account; `BatchState` adds the jobs."""

    def create_pool(self, pool_id: str, properties: Mapping[str, Any], *, only_new: bool = False) -> Pool:
        """Create, or write over the given properties of an existing pool."""
        checked_id(pool_id)
        if pool_id in self.pools:
            if only_new:
                raise BatchProblem(412, "PreconditionFailed", f"The pool {pool_id} already exists.")
            return self.update_pool(pool_id, properties)
        if not properties.get("vmSize"):
            raise BatchProblem(400, "InvalidRequestBody", "vmSize is required.")
        if len(self.pools) >= self.limits.max_pools:
            raise BatchProblem(409, "PoolQuotaReached", "Pool quota for the account has been reached.")
        now = self.clock()
        # The size is there from the start: the first resize asks for it.
        pool = Pool(pool_id, {"vmSize": properties["vmSize"]}, now, now, next(self._numbers), steady_since=now)
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
        check_settings((properties.get("startTask") or {}).get("environmentSettings"), "startTask.environmentSettings")
        scale = properties.get("scaleSettings")
        if scale is not None:
            if "autoScale" in scale:
                raise BatchProblem(400, "NotSupported", "Autoscale formulas are not supported here.")
            self._resize(pool, scale.get("fixedScale") or {})
        pool.properties.update(properties)
        self._touch(pool)
        return pool

    def stop_resize(self, pool_id: str, if_match: str | None = None) -> Pool:
        """Give up what has not been allocated yet and keep nodes that still run a task; the target stays as it was."""
        pool = self.pool(pool_id)
        self._check_etag(pool, if_match)
        if pool.steady or pool.deleting:
            raise BatchProblem(409, "OperationInvalidForCurrentState", f"The pool {pool_id} is not being resized.")
        if pool.stop_due is None:
            if pool.allocation_due is not None or pool.short:
                pool.resize_errors.append(("ResizeStopped", "Desired number of nodes could not be allocated: stopped."))
            pool.allocation_due, pool.short = None, frozenset()
            pool.stop_due = self.clock() + self.limits.stop_seconds
            for node in pool.nodes.values():
                node.removing = node.removing and node.state is NodeState.LEAVING
            self._touch(pool)
        return pool

    def delete_pool(self, pool_id: str, if_match: str | None = None) -> None:
        pool = self.pool(pool_id)
        self._check_etag(pool, if_match)
        if pool.deleting:
            raise BatchProblem(409, "PoolBeingDeleted", f"The specified pool {pool_id} is being deleted.")
        pool.deleting, pool.allocation_due, pool.short, pool.steady = True, None, frozenset(), False
        # Also those that were to leave after their task: nobody waits for it any more.
        going = [node for node in pool.nodes.values() if node.state is not NodeState.LEAVING]
        self._remove(pool, going, Deallocation.REQUEUE)

    def remove_nodes(
        self,
        pool_id: str,
        node_ids: Iterable[str],
        option: Deallocation,
        if_match: str | None = None,
        timeout: str | None = None,
    ) -> Pool:
        """Take named nodes out of a steady pool, and off its target."""
        pool = self.pool(pool_id)
        self._check_etag(pool, if_match)
        self._check_steady(pool)
        timeout_seconds = self._resize_timeout(timeout)
        names = list(dict.fromkeys(node_ids))
        if not 1 <= len(names) <= MAX_NODES_REMOVED:
            message = f"Between 1 and {MAX_NODES_REMOVED} nodes can be removed at once."
            raise BatchProblem(400, "InvalidPropertyValue", message)
        nodes = [self.node(pool_id, node_id) for node_id in names]
        pool.target_dedicated = max(0, pool.target_dedicated - sum(node.dedicated for node in nodes))
        pool.target_spot = max(0, pool.target_spot - sum(not node.dedicated for node in nodes))
        self._begin_resize(pool, option, timeout_seconds)
        self._remove(pool, nodes, option)
        self._touch(pool)
        return pool

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
                self.step_node(pool, node, now)
            self._settle(pool, now)

    def _allocate_due(self, pool: Pool, now: float) -> None:
        if pool.allocation_due is not None and now >= pool.allocation_due:
            pool.allocation_due = None
            error = self._refused_resize(pool)
            if error is None:
                self._allocate(pool, now)
            else:
                pool.resize_errors.append(error)
        elif pool.short:
            self._allocate(pool, now)
        if pool.short and pool.gives_up_at is not None and now >= pool.gives_up_at:
            self._report_timeout(pool)
            pool.short = frozenset()

    def _refused_resize(self, pool: Pool) -> tuple[str, str] | None:
        if pool.size.lower() in self.faults.missing_sizes:
            return "UnsupportedVMSize", f"The VM size {pool.size} is not available in this region."
        return self.faults.resize_fault(pool.id)

    def _allocate(self, pool: Pool, now: float) -> None:
        """As many nodes as quota and market have; `short` when only the market is in the way."""
        pool.short = frozenset()
        for dedicated, target in ((True, pool.target_dedicated), (False, pool.target_spot)):
            wanted = target - len(pool.staying(dedicated))
            room, reason = quota_room(self.pools.values(), self.quota, pool.size, dedicated)
            if room is not None and wanted > room:
                wanted = room
                if reason not in pool.resize_errors:
                    pool.resize_errors.append(reason)
            market = self._market_room(pool, dedicated)
            if market is not None and wanted > market:
                wanted, pool.short = market, pool.short | {dedicated}
            for _ in range(wanted):
                self._add_node(pool, dedicated, now)

    def _report_timeout(self, pool: Pool) -> None:
        for dedicated in sorted(pool.short, reverse=True):
            kind = "dedicated" if dedicated else "Spot/low-priority"
            message = f"Desired number of {kind} nodes could not be allocated as the resize timeout was reached"
            pool.resize_errors.append(("AllocationTimedout", message))

    def _add_node(self, pool: Pool, dedicated: bool, now: float) -> None:
        pool.nodes_made += 1
        node_id = f"tvm-{pool.id}-{pool.nodes_made:04d}"
        spread = self.limits.boot_spread if self.faults.boot_spread is None else self.faults.boot_spread
        factor = self._chance(node_id, "boot").lognormvariate(0, spread)
        node = Node(node_id, dedicated, NodeState.STARTING, now, now, None, billed_since=now, boot_factor=factor)
        node.due = now + self._boot_seconds(node) * (1 - self.limits.allocation_share)
        pool.nodes[node_id] = node

    def _settle(self, pool: Pool, now: float) -> None:
        """A resize is over when nothing is to come and nobody is leaving."""
        if pool.deleting and not pool.nodes:
            del self.pools[pool.id]
        if pool.stop_due is not None and now >= pool.stop_due:
            pool.stop_due = None
        waiting = pool.allocation_due is not None or bool(pool.short) or pool.stop_due is not None
        resizing = waiting or any(node.removing for node in pool.nodes.values())
        if not pool.steady and not resizing and not pool.deleting:
            pool.steady, pool.steady_since = True, self.clock()

    # --- steps

    def _resize(self, pool: Pool, scale: Mapping[str, Any]) -> None:
        self._check_steady(pool)
        dedicated = whole_number(scale.get("targetDedicatedNodes"), "targetDedicatedNodes")
        spot = whole_number(scale.get("targetLowPriorityNodes"), "targetLowPriorityNodes")
        if dedicated < 0 or spot < 0:
            raise BatchProblem(400, "InvalidPropertyValue", "A target must not be negative.")
        option = deallocation(scale.get("nodeDeallocationOption"))
        timeout = self._resize_timeout(scale.get("resizeTimeout"))
        pool.target_dedicated, pool.target_spot = dedicated, spot
        for kind, target in ((True, dedicated), (False, spot)):
            nodes = pool.staying(kind)
            if target != len(nodes):
                self._begin_resize(pool, option, timeout)
            if target > len(nodes):
                median = self.limits.boot_seconds if self.faults.boot_seconds is None else self.faults.boot_seconds
                pool.allocation_due = self.clock() + median * self.limits.allocation_share
            # Batch chooses by itself; it prefers nodes without a task.
            by_loss = sorted(nodes, key=lambda node: (node.run is not None, -node.allocated))
            self._remove(pool, by_loss[: max(0, len(nodes) - target)], option)

    def _resize_timeout(self, given: str | None) -> float:
        timeout = seconds(given)
        if timeout is None:
            return self.limits.resize_timeout_seconds
        if timeout < self.limits.minimum_resize_timeout_seconds:
            least = self.limits.minimum_resize_timeout_seconds
            raise BatchProblem(400, "InvalidPropertyValue", f"resizeTimeout must be at least {least:g} seconds.")
        return timeout

    def _begin_resize(self, pool: Pool, option: Deallocation, timeout: float) -> None:
        pool.steady, pool.resize_started, pool.resize_errors = False, self.clock(), []
        pool.deallocation, pool.resize_timeout = option, timeout

    def _remove(self, pool: Pool, nodes: Iterable[Node], option: Deallocation) -> None:
        for node in nodes:
            node.removing = True
            self._drop_start_run(node)
            if node.run is None:
                self._settle_node(pool, node)
            elif option is not Deallocation.TASK_COMPLETION:
                self._enter(pool, node, NodeState.LEAVING)
                self._stop_for(node.run, option)

    def _touch(self, pool: Pool) -> None:
        pool.version, pool.modified = next(self._numbers), self.clock()

    @staticmethod
    def _check_etag(pool: Pool, if_match: str | None) -> None:
        if if_match not in (None, "*", pool.etag):
            raise BatchProblem(412, "ConditionNotMet", f"The pool has changed: its ETag is {pool.etag}.")

    @staticmethod
    def _check_steady(pool: Pool) -> None:
        if pool.deleting:
            raise BatchProblem(409, "PoolBeingDeleted", f"The specified pool {pool.id} is being deleted.")
        if not pool.steady:
            raise BatchProblem(409, "PoolBeingResized", "The specified pool is being resized.")
