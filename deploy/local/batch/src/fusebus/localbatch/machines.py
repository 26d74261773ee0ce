"""The life of a node: boots, start task, scheduling, reboots, notices, evictions, breakage, the meter; no I/O."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

from fusebus.localbatch.entities import (
    BILLED_STATES,
    BatchProblem,
    Deallocation,
    DropNodeFiles,
    EventKind,
    Instruction,
    Node,
    NodeState,
    Notice,
    Pool,
    Run,
    SignalProcess,
    StartNodeProcess,
    StartRun,
    StartTaskInfo,
    StopReason,
)
from fusebus.localbatch.fleet_faults import FleetFaults
from fusebus.localbatch.limits import AccountLimits
from fusebus.localbatch.quota import Quota
from fusebus.localbatch.values import settings_of, whole_number

_REBOOTABLE = (NodeState.IDLE, NodeState.RUNNING, NodeState.OFFLINE, NodeState.START_TASK_FAILED)
_NOT_NOW = {
    NodeState.STARTING: "NodeBeingStarted",
    NodeState.WAITING_FOR_START_TASK: "NodeBeingStarted",
    NodeState.REBOOTING: "NodeBeingRebooted",
    NodeState.REIMAGING: "NodeBeingReimaged",
    NodeState.UNUSABLE: "NodeStateUnusable",
}
FREEZE_SECONDS = 9.0  # how long a Freeze says that it lasts; processes here do not feel it


class Machines:
    """All nodes of an account; `PoolState` says how many there are, `BatchState` gives them tasks."""

    def __init__(self, limits: AccountLimits, clock: Callable[[], float]) -> None:
        self.limits = limits
        self.clock = clock  # seconds since 1970
        self.faults = FleetFaults()
        self.quota = Quota.of(limits)
        self.pools: dict[str, Pool] = {}
        self.runs: dict[int, Run] = {}
        self.start_runs: dict[int, StartRun] = {}
        self._numbers = itertools.count(1)
        self._instructions: list[Instruction] = []

    def pool(self, pool_id: str) -> Pool:
        if pool_id not in self.pools:
            raise BatchProblem(404, "PoolNotFound", f"The specified pool {pool_id} does not exist.")
        return self.pools[pool_id]

    def node(self, pool_id: str, node_id: str) -> Node:
        node = self.pool(pool_id).nodes.get(node_id)
        if node is None:
            raise BatchProblem(404, "NodeNotFound", f"The specified node {node_id} does not exist.")
        return node

    # --- what clients ask of a node

    def reboot(self, pool_id: str, node_id: str, option: Deallocation, *, reimage: bool = False) -> None:
        """Restart the machine, after its task has ended as `option` says; its start task runs again."""
        pool, node = self.pool(pool_id), self.node(pool_id, node_id)
        if node.removing or node.state not in _REBOOTABLE:
            code = _NOT_NOW.get(node.state, "OperationInvalidForCurrentState")
            raise BatchProblem(409, code, f"The specified node {node_id} is {node.state.value}.")
        node.after_run = NodeState.REIMAGING if reimage else NodeState.REBOOTING
        self._drop_start_run(node)
        if node.run is None:
            self._settle_node(pool, node)
        elif option is not Deallocation.TASK_COMPLETION:
            self._enter(pool, node, node.after_run)
            self._stop_for(node.run, option)

    def disable_scheduling(self, pool_id: str, node_id: str, option: Deallocation) -> None:
        """No new task; the one at hand ends as `option` says. Without a task the node is offline."""
        pool, node = self.pool(pool_id), self._scheduled(pool_id, node_id, schedulable=True)
        node.schedulable = False
        if node.state is NodeState.IDLE:
            self._settle_node(pool, node)
        elif node.run is not None and option is not Deallocation.TASK_COMPLETION:
            self._stop_for(node.run, option)

    def enable_scheduling(self, pool_id: str, node_id: str) -> None:
        pool, node = self.pool(pool_id), self._scheduled(pool_id, node_id, schedulable=False)
        node.schedulable = True
        if node.state is NodeState.OFFLINE:
            self._settle_node(pool, node)

    def _scheduled(self, pool_id: str, node_id: str, *, schedulable: bool) -> Node:
        node = self.node(pool_id, node_id)
        if node.schedulable is not schedulable:
            code = "NodeAlreadyInTargetSchedulingState"
            raise BatchProblem(409, code, f"The specified node {node_id} is already in the target scheduling state.")
        return node

    # --- what the platform does to a node

    def announce(self, pool_id: str, node_id: str, kind: EventKind, notice_seconds: float) -> Notice:
        """Put an event into the node's Scheduled Events; it happens when its time has come."""
        node = self.node(pool_id, node_id)
        if kind is EventKind.PREEMPT:
            self._check_preemptible(node)
        if not node.has_machine:
            raise BatchProblem(409, "NodeStateInvalid", f"The node {node_id} is {node.state.value}: it has no machine.")
        seconds = FREEZE_SECONDS if kind is EventKind.FREEZE else -1.0
        name = f"{self._chance(node_id, node.machine, node.incarnation).getrandbits(128):032X}"
        event_id = "-".join((name[:8], name[8:12], name[12:16], name[16:20], name[20:]))
        node.notice, node.incarnation = (
            Notice(event_id, kind, self.clock() + notice_seconds, seconds),
            node.incarnation + 1,
        )
        return node.notice

    def acknowledge(self, pool_id: str, node_id: str, event_id: str) -> None:
        """The node is ready for the event: it happens now. Unknown events are ignored, as the real service does."""
        node = self.node(pool_id, node_id)
        if node.notice is not None and node.notice.id == event_id:
            node.notice.not_before = self.clock()

    def preempt(self, pool_id: str, node_id: str) -> None:
        """Take a Spot node's machine away without notice; Batch gives one back later and runs its task again."""
        pool, node = self.pool(pool_id), self.node(pool_id, node_id)
        self._check_preemptible(node)
        self._lose_run(node)
        node.after_run, node.evict_at = None, None
        self._forget_notice(node)
        self._wipe(pool, node)
        self._enter(pool, node, NodeState.PREEMPTED, self.limits.preempted_seconds)

    def break_node(self, pool_id: str, node_id: str, recover_seconds: float | None = None) -> None:
        """Batch can't use the node any more: it costs, does nothing, and its task runs elsewhere."""
        pool, node = self.pool(pool_id), self.node(pool_id, node_id)
        if node.removing or not node.has_machine:
            raise BatchProblem(409, "NodeStateInvalid", f"The node {node_id} is {node.state.value}.")
        self._break(pool, node, recover_seconds)

    def _break(self, pool: Pool, node: Node, recover_seconds: float | None) -> None:
        self._lose_run(node)
        node.after_run = None
        node.errors = [("NodeUnusable", "The Batch service lost the connection to the node's agent.")]
        self._enter(pool, node, NodeState.UNUSABLE, recover_seconds)

    @staticmethod
    def _check_preemptible(node: Node) -> None:
        if node.dedicated or node.removing or node.state is NodeState.PREEMPTED:
            raise BatchProblem(409, "NodeStateInvalid", "Only a Spot node that is in use can be preempted.")

    # --- time

    def node_deadlines(self) -> Iterator[float | None]:
        """When time alone will change a node."""
        for pool in self.pools.values():
            for node in pool.nodes.values():
                yield node.due
                yield node.evict_at
                yield node.notice.not_before if node.notice is not None else None

    def step_node(self, pool: Pool, node: Node, now: float) -> None:
        """What happens to a node by the passing of time alone."""
        if node.evict_at is not None and now >= node.evict_at:
            node.evict_at = None
            if not node.removing and node.has_machine:
                self.announce(pool.id, node.id, EventKind.PREEMPT, self.limits.notice_seconds)
        if node.notice is not None and now >= node.notice.not_before:
            self._happen(pool, node, node.notice)
        if node.due is None or now < node.due:
            return
        match node.state:
            case NodeState.STARTING | NodeState.REBOOTING | NodeState.REIMAGING:
                self._booted(pool, node)
            case NodeState.PREEMPTED:
                self._bring_back(pool, node)
            case NodeState.UNUSABLE:
                node.errors = []
                self._settle_node(pool, node)
            case NodeState.LEAVING:
                self._meter(pool, node, billed=False)
                del pool.nodes[node.id]
                self._instructions.append(DropNodeFiles(pool.id, node.id))

    def _happen(self, pool: Pool, node: Node, notice: Notice) -> None:
        self._forget_notice(node)
        if node.removing or notice.kind is EventKind.FREEZE:
            return
        if notice.kind is EventKind.PREEMPT:
            self.preempt(pool.id, node.id)
        elif node.state not in (NodeState.STARTING, NodeState.UNUSABLE):
            self._lose_run(node)
            self._enter(pool, node, NodeState.REBOOTING, self.limits.reboot_seconds)

    def _bring_back(self, pool: Pool, node: Node) -> None:
        """A machine for a preempted node, if the market has one by now."""
        if self._market_room(pool, node.dedicated) == 0:
            node.due = self.clock() + max(self.limits.preempted_seconds, 0.1)
        else:
            self._enter(pool, node, NodeState.STARTING, self._boot_seconds(node))

    def _booted(self, pool: Pool, node: Node) -> None:
        now = self.clock()
        node.booted, node.start_info, node.errors = now, None, []
        mean = self.limits.spot_lifetime_seconds
        if mean is not None and not node.dedicated and node.evict_at is None:
            drawn = self._chance(node.id, node.machine, "life").expovariate(1 / mean)
            node.evict_at = now + drawn
        if self.faults.boots_unusable(pool.id):
            self._break(pool, node, None)
        else:
            self._run_start_task(pool, node)

    # --- the start task

    def _run_start_task(self, pool: Pool, node: Node) -> None:
        task = pool.properties.get("startTask") or {}
        if not task.get("commandLine"):
            self._settle_node(pool, node)
            return
        run = StartRun(next(self._numbers), pool, node)
        self.start_runs[run.id] = node.start_run = run
        node.start_info = node.start_info or StartTaskInfo(started=self.clock())
        forced = self.faults.start_task_exit(pool.id)
        line = task["commandLine"] if forced is None else f"/bin/sh -c 'echo injected failure >&2; exit {forced}'"
        environment = {
            **settings_of(task.get("environmentSettings")),
            "AZ_BATCH_POOL_ID": pool.id,
            "AZ_BATCH_NODE_ID": node.id,
            "AZ_BATCH_NODE_IS_DEDICATED": str(node.dedicated).lower(),
        }
        self._instructions.append(StartNodeProcess(run.id, pool.id, node.id, line, environment))
        if task.get("waitForSuccess", True):
            self._enter(pool, node, NodeState.WAITING_FOR_START_TASK)
        elif node.state is not NodeState.RUNNING:
            self._settle_node(pool, node)

    def start_task_ended(self, run_id: int, exit_code: int | None, problem: tuple[str, str] | None) -> None:
        run = self.start_runs.pop(run_id)
        pool, node = run.pool, run.node
        info = node.start_info
        if node.start_run is not run or info is None:
            return  # the machine was taken, restarted or removed meanwhile
        node.start_run, info.ended, info.exit_code = None, self.clock(), exit_code
        waited = node.state is NodeState.WAITING_FOR_START_TASK
        if exit_code == 0:
            info.failure = None
            if waited:
                self._settle_node(pool, node)
            return
        info.failure = problem or ("FailureExitCode", "The task exited with an exit code representing a failure")
        allowed = whole_number((pool.properties.get("startTask") or {}).get("maxTaskRetryCount"), "maxTaskRetryCount")
        if allowed < 0 or info.retries < allowed:
            info.retries, info.last_retry, info.ended = info.retries + 1, self.clock(), None
            self._run_start_task(pool, node)
        elif waited:
            self._enter(pool, node, NodeState.START_TASK_FAILED)

    def _drop_start_run(self, node: Node) -> None:
        if node.start_run is not None:
            self._instructions.append(SignalProcess(node.start_run.id, kill=True))
            node.start_run = None

    # --- steps

    def _chance(self, *what: object) -> random.Random:
        """Luck that is the same in every run with the same seed, whatever happens in between."""
        return random.Random("/".join(map(str, (self.limits.seed, *what))))  # noqa: S311  no secret is drawn

    def _settle_node(self, pool: Pool, node: Node) -> None:
        """What a machine that is up and has no task does next."""
        if node.removing:
            self._enter(pool, node, NodeState.LEAVING, self.limits.leave_seconds)
        elif node.after_run is not None:
            state, node.after_run = node.after_run, None
            if state is NodeState.REIMAGING:
                self._wipe(pool, node)
            self._enter(pool, node, state, self.limits.reboot_seconds)
        else:
            self._enter(pool, node, NodeState.IDLE if node.schedulable else NodeState.OFFLINE)

    def _boot_seconds(self, node: Node) -> float:
        median = self.faults.boot_seconds
        return (self.limits.boot_seconds if median is None else median) * node.boot_factor

    def _market_room(self, pool: Pool, dedicated: bool) -> int | None:
        """Machines of the pool's size and one kind that can still be had; None: any number."""
        limit = self.faults.market.get((pool.size.lower(), dedicated))
        if limit is None:
            return None
        alike = [other for other in self.pools.values() if other.size.lower() == pool.size.lower()]
        nodes = [node for other in alike for node in other.nodes.values()]
        return max(0, limit - sum(node.has_machine and node.dedicated is dedicated for node in nodes))

    def _lose_run(self, node: Node) -> None:
        """The machine is gone at once, whenever its processes are seen to have ended."""
        self._drop_start_run(node)
        if node.run is not None:
            node.run.stopping = node.run.stopping or StopReason.REQUEUED
            self._signal(node.run, kill=True)
            node.run = None

    def _wipe(self, pool: Pool, node: Node) -> None:
        node.machine += 1
        self._instructions.append(DropNodeFiles(pool.id, node.id))

    def _forget_notice(self, node: Node) -> None:
        if node.notice is not None:
            node.notice, node.incarnation = None, node.incarnation + 1

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

    def _stop_for(self, run: Run, option: Deallocation) -> None:
        self._stop(run, StopReason.REQUEUED if option is Deallocation.REQUEUE else StopReason.TERMINATED)

    def _stop(self, run: Run, reason: StopReason) -> None:
        """SIGTERM now, SIGKILL after the grace; an earlier reason stays."""
        if run.stopping is None:
            run.stopping, run.kill_at = reason, self.clock() + self.limits.terminate_grace_seconds
            self._signal(run, kill=False)

    def _signal(self, run: Run, kill: bool) -> None:
        if kill:
            run.kill_at = None
        self._instructions.append(SignalProcess(run.id, kill))
