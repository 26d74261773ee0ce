"""What exists in a Batch account: pools, nodes, jobs, tasks and single runs, with their states and limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class NodeState(StrEnum):
    """The node states of the data plane that occur here; values as on the wire."""

    STARTING = "starting"
    IDLE = "idle"
    RUNNING = "running"
    LEAVING = "leavingpool"
    PREEMPTED = "preempted"


# A node costs money from its allocation until it is gone, whatever it does; only while preempted there is no machine.
BILLED_STATES = frozenset(NodeState) - {NodeState.PREEMPTED}


class Deallocation(StrEnum):
    """What happens to the task on a node that is removed."""

    REQUEUE = "requeue"
    TERMINATE = "terminate"
    TASK_COMPLETION = "taskcompletion"


class JobState(StrEnum):
    ACTIVE = "active"
    TERMINATING = "terminating"
    COMPLETED = "completed"
    DELETING = "deleting"


class TaskState(StrEnum):
    ACTIVE = "active"
    RUNNING = "running"
    COMPLETED = "completed"


class StopReason(StrEnum):
    """Why a run is being stopped from here; decides what becomes of its task."""

    TERMINATED = "terminated"
    REQUEUED = "requeued"
    TIMED_OUT = "timed out"
    DELETED = "deleted"


class BatchProblem(Exception):
    """A request that the service refuses: HTTP status, Batch error code, sentence."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True)
class AccountLimits:
    """How this account behaves. All times in seconds; `capacity` in nodes over all pools, None without limit."""

    boot_seconds: float = 2.0  # from the request to idle
    allocation_share: float = 0.25  # part of boot_seconds in which the pool is Resizing and no node exists yet
    leave_seconds: float = 0.2  # from the end of its task until a removed node is gone
    preempted_seconds: float = 5.0  # until a preempted node is given back
    terminate_grace_seconds: float = 10.0  # between SIGTERM and SIGKILL
    capacity: int | None = None


@dataclass
class Node:
    id: str
    dedicated: bool
    state: NodeState
    since: float  # when it entered `state`
    allocated: float
    due: float | None  # when `state` ends by itself
    billed_since: float | None
    run: Run | None = None
    removing: bool = False  # no new task; gone once its task has ended
    tasks_run: int = 0
    tasks_succeeded: int = 0


@dataclass
class Pool:
    id: str
    properties: dict[str, Any]  # the ARM properties a client wrote, as JSON
    created: float
    modified: float
    version: int = 1  # of what clients write: the ETag
    target_dedicated: int = 0
    target_spot: int = 0
    deallocation: Deallocation = Deallocation.REQUEUE
    resize_started: float | None = None
    resize_errors: list[tuple[str, str]] = field(default_factory=list)  # of the last resize: code, sentence
    allocation_due: float | None = None  # when requested machines arrive
    steady: bool = True
    steady_since: float = 0.0
    deleting: bool = False
    nodes: dict[str, Node] = field(default_factory=dict)
    nodes_made: int = 0
    billed_seconds: dict[bool, float] = field(default_factory=lambda: {True: 0.0, False: 0.0})  # by `dedicated`

    @property
    def etag(self) -> str:
        return f'W/"0x{self.version:08X}"'

    def staying(self, dedicated: bool) -> list[Node]:
        """Nodes of one kind that are not on their way out."""
        return [node for node in self.nodes.values() if node.dedicated is dedicated and not node.removing]


@dataclass
class Job:
    id: str
    pool_id: str
    body: dict[str, Any]
    created: float
    state: JobState = JobState.ACTIVE
    since: float = 0.0
    ended: float | None = None
    end_reason: str | None = None
    tasks: dict[str, Task] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        return f'W/"0x{int(self.since * 1e6):X}"'


@dataclass
class Task:
    job: Job
    id: str
    sequence: int  # order of arrival: first in, first out, also after a requeue
    body: dict[str, Any]
    created: float
    max_retries: int  # -1: for ever
    wall_clock_seconds: float | None
    state: TaskState = TaskState.ACTIVE
    since: float = 0.0
    previous: tuple[TaskState, float] | None = None
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    failure: tuple[str, str] | None = None  # code, sentence
    retries: int = 0
    last_retry: float | None = None
    requeues: int = 0
    last_requeue: float | None = None
    pool_id: str | None = None
    node_id: str | None = None

    @property
    def etag(self) -> str:
        return f'W/"0x{int(self.since * 1e6):X}"'


@dataclass
class Run:
    """One execution of a task on a node."""

    id: int
    task: Task
    pool: Pool
    node: Node
    started: float
    stopping: StopReason | None = None
    kill_at: float | None = None


@dataclass(frozen=True)
class StartProcess:
    run_id: int
    job_id: str
    task_id: str
    command_line: str
    environment: Mapping[str, str]


@dataclass(frozen=True)
class SignalProcess:
    run_id: int
    kill: bool  # SIGKILL, else SIGTERM


@dataclass(frozen=True)
class DropFiles:
    job_id: str
    task_id: str


Instruction = StartProcess | SignalProcess | DropFiles
