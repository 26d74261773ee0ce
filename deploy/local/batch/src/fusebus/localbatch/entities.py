"""What exists in a Batch account: pools, nodes, jobs, tasks and single runs, with their states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fusebus.localbatch.limits import AccountLimits as AccountLimits  # read from here by its users


class NodeState(StrEnum):
    """The node states of the data plane that occur here; values as on the wire."""

    STARTING = "starting"
    WAITING_FOR_START_TASK = "waitingforstarttask"
    START_TASK_FAILED = "starttaskfailed"
    IDLE = "idle"
    RUNNING = "running"
    OFFLINE = "offline"  # no task, and it shall get none
    REBOOTING = "rebooting"
    REIMAGING = "reimaging"
    UNUSABLE = "unusable"
    LEAVING = "leavingpool"
    PREEMPTED = "preempted"


# A node costs money from its allocation until it is gone, whatever it does; only while preempted there is no machine.
BILLED_STATES = frozenset(NodeState) - {NodeState.PREEMPTED}


class Deallocation(StrEnum):
    """What happens to the task on a node that is removed."""

    REQUEUE = "requeue"
    TERMINATE = "terminate"
    TASK_COMPLETION = "taskcompletion"


class EventKind(StrEnum):
    """What the platform announces to a machine; values as in the document of the metadata service."""

    PREEMPT = "Preempt"
    REBOOT = "Reboot"
    REDEPLOY = "Redeploy"
    FREEZE = "Freeze"


class JobState(StrEnum):
    ACTIVE = "active"
    DISABLING = "disabling"
    DISABLED = "disabled"
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


@dataclass
class Notice:
    """One event of a node's Scheduled Events."""

    id: str
    kind: EventKind
    not_before: float
    seconds: float  # how long it lasts; negative: for good


@dataclass
class StartTaskInfo:
    """The last run of a node's start task."""

    started: float
    ended: float | None = None
    exit_code: int | None = None
    failure: tuple[str, str] | None = None  # code, sentence
    retries: int = 0
    last_retry: float | None = None


@dataclass
class Node:
    id: str
    dedicated: bool
    state: NodeState
    since: float  # when it entered `state`
    allocated: float
    due: float | None  # when `state` ends by itself
    billed_since: float | None
    machine: int = 1  # counts the machines that bore this name: files are of one of them
    boot_factor: float = 1.0  # this machine's share of luck: its boots take so many times the median
    booted: float | None = None
    run: Run | None = None
    start_run: StartRun | None = None
    start_info: StartTaskInfo | None = None
    schedulable: bool = True
    removing: bool = False  # no new task; gone once its task has ended
    after_run: NodeState | None = None  # REBOOTING or REIMAGING, once its task has ended
    notice: Notice | None = None
    incarnation: int = 1  # of the document that tells of `notice`
    evict_at: float | None = None  # when the market takes it, with a notice
    errors: list[tuple[str, str]] = field(default_factory=list)  # code, sentence
    recent: list[Task] = field(default_factory=list)  # the last tasks that ran here, the newest first
    tasks_run: int = 0
    tasks_succeeded: int = 0

    @property
    def has_machine(self) -> bool:
        return self.billed_since is not None


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
    resize_timeout: float = 900.0  # seconds, of the current or last resize
    resize_started: float | None = None
    resize_errors: list[tuple[str, str]] = field(default_factory=list)  # of the last resize: code, sentence
    allocation_due: float | None = None  # when requested machines arrive
    # Kinds (`dedicated`) of which the market had too few machines; asked again until the timeout of the resize.
    short: frozenset[bool] = frozenset()
    stop_due: float | None = None  # stopping until then
    steady: bool = True
    steady_since: float = 0.0
    deleting: bool = False
    nodes: dict[str, Node] = field(default_factory=dict)
    nodes_made: int = 0
    billed_seconds: dict[bool, float] = field(default_factory=lambda: {True: 0.0, False: 0.0})  # by `dedicated`

    @property
    def etag(self) -> str:
        return f'W/"0x{self.version:08X}"'

    @property
    def size(self) -> str:
        return str(self.properties.get("vmSize"))

    @property
    def allocation_state(self) -> str:
        return "steady" if self.steady else "stopping" if self.stop_due is not None else "resizing"

    @property
    def gives_up_at(self) -> float | None:
        """When a resize that waits for machines ends without them."""
        return self.resize_started + self.resize_timeout if self.short and self.resize_started is not None else None

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
    previous: tuple[JobState, float] | None = None
    version: int = 1
    modified: float = 0.0
    ended: float | None = None
    end_reason: str | None = None
    tasks: dict[str, Task] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        return f'W/"0x{self.version:08X}"'


@dataclass
class Task:
    job: Job
    id: str
    sequence: int  # order of arrival: first in, first out, also after a requeue
    body: dict[str, Any]
    created: float
    max_retries: int  # -1: for ever
    wall_clock_seconds: float | None
    retention_seconds: float  # from its end until its files go
    state: TaskState = TaskState.ACTIVE
    since: float = 0.0
    version: int = 1
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
    machine: int = 0  # of the node, where it ran last
    files_gone: bool = False  # the time of retention is over

    @property
    def etag(self) -> str:
        return f'W/"0x{self.version:08X}"'


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


@dataclass
class StartRun:
    """One execution of a start task on a node."""

    id: int
    pool: Pool
    node: Node


@dataclass(frozen=True)
class Upload:
    """Files that go to storage when a task has ended."""

    pattern: str  # relative to the task's working folder; `**` for any depth
    container_url: str  # with a signature that may write
    path: str  # of the blob, or the prefix of several
    condition: str  # tasksuccess, taskfailure, taskcompletion


@dataclass(frozen=True)
class StartProcess:
    run_id: int
    job_id: str
    task_id: str
    command_line: str
    environment: Mapping[str, str]
    uploads: tuple[Upload, ...] = ()


@dataclass(frozen=True)
class StartNodeProcess:
    """A start task: its output lies with the node."""

    run_id: int
    pool_id: str
    node_id: str
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


@dataclass(frozen=True)
class DropNodeFiles:
    pool_id: str
    node_id: str


Instruction = StartProcess | StartNodeProcess | SignalProcess | DropFiles | DropNodeFiles
