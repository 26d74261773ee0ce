"""From the SDKs' objects to a PoolSeen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from azure.batch import models as batch_models
from azure.mgmt.batch import models as arm_models

from fusebus.dispatcher.seen import NodeSeen, PoolSeen, WorkerSeen, WorkerState

TERM = "fusebus-term"
"""Name of the metadata item in which a leader leaves its term on each pool."""
STOPPED = "stopped by the dispatcher or a person"
NODE_FIELDS = [
    "id",
    "state",
    "stateTransitionTime",
    "allocationTime",
    "isDedicated",
    "errors",
    "startTaskInfo",
]
TASK_FIELDS = ["id", "eTag", "state", "stateTransitionTime", "executionInfo", "nodeInfo"]


def pool_seen(
    name: str,
    pool: arm_models.Pool,
    data_version: str,
    nodes: Sequence[batch_models.BatchNode],
    tasks: Sequence[batch_models.BatchTask],
    resized_at: datetime | None,
) -> PoolSeen:
    """`resized_at`: when our own last resize began, in Batch's time; what an earlier one suffered is old news."""
    facts = pool.properties or arm_models.PoolProperties()
    scale = facts.scale_settings.fixed_scale if facts.scale_settings else None
    target_dedicated = (scale.target_dedicated_nodes or 0) if scale else 0
    target_spot = (scale.target_low_priority_nodes or 0) if scale else 0
    steady = _lower(facts.allocation_state) == "steady"
    found = tuple(_node(node) for node in nodes)
    seen = PoolSeen(
        name=name,
        steady=steady,
        target_dedicated=target_dedicated,
        target_spot=target_spot,
        nodes=found,
        workers=tuple(_worker(task) for task in sorted(tasks, key=lambda task: str(task.id))),
        resized_at=facts.resize_operation_status.start_time if facts.resize_operation_status else None,
        shortfall=_shortfall(facts, steady, resized_at),
        term=term_of(facts),
        pool_version=pool.etag or "",
        node_version=data_version,
    )
    complete = len(seen.staying(True)) >= target_dedicated and len(seen.staying(False)) >= target_spot
    return msgspec.structs.replace(seen, shortfall="") if complete else seen


def term_of(facts: arm_models.PoolProperties) -> int:
    """Of the leader that wrote to the pool last; 0 where none did."""
    texts = [item.value for item in facts.metadata or () if item.name == TERM]
    return int(texts[0]) if texts and texts[0].isdecimal() else 0


def with_term(facts: arm_models.PoolProperties, term: int) -> list[arm_models.MetadataItem]:
    """The pool's metadata, which is only ever written as a whole, with this term."""
    others = [item for item in facts.metadata or () if item.name != TERM]
    return [*others, arm_models.MetadataItem(name=TERM, value=str(term))]


def _shortfall(facts: arm_models.PoolProperties, steady: bool, resized_at: datetime | None) -> str:
    """Errors of the last resize, in words. They stay until the next one: those of an earlier one don't count."""
    status = facts.resize_operation_status
    if status is None or not steady or not status.errors:
        return ""
    if resized_at is not None and status.start_time is not None and status.start_time < resized_at:
        return ""
    return "; ".join(f"{error.code}: {error.message}" for error in status.errors)


def _node(node: batch_models.BatchNode) -> NodeSeen:
    problems = [f"{error.code}: {error.message}" for error in node.errors or ()]
    start = node.start_task_info
    if start is not None and start.failure_info is not None:
        problems.append(f"start task: {start.failure_info.code}: {start.failure_info.message}")
    return NodeSeen(
        id=node.id,
        state=_lower(node.state),
        dedicated=bool(node.is_dedicated),
        allocated_at=node.allocation_time,
        since=node.state_transition_time,
        problem="; ".join(problems),
    )


def _worker(task: batch_models.BatchTask) -> WorkerSeen:
    state = {"active": WorkerState.WAITING, "completed": WorkerState.ENDED}.get(_lower(task.state), WorkerState.RUNNING)
    info = task.execution_info
    failure = info.failure_info if info is not None and state is WorkerState.ENDED else None
    # One that was terminated was our own wish.
    failed = failure is not None and failure.code != "TaskEnded"
    problem = ""
    if failure is not None:
        problem = f"{failure.code}: {failure.message}" if failed else STOPPED
    return WorkerSeen(
        id=task.id,
        state=state,
        since=task.state_transition_time,
        node=(task.node_info.node_id or "") if task.node_info is not None else "",
        failed=failed,
        problem=problem,
        version=task.etag or "",
    )


def _lower(value: object) -> str:
    return str(getattr(value, "value", value)).lower()
