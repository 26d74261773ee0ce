"""Writes entities as the JSON that the two SDKs read: ARM pools, and data-plane pools, nodes, jobs and tasks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fusebus.localbatch.entities import Job, JobState, Node, NodeState, Pool, Task, TaskState

RESIZE_TIMEOUT = "PT15M"  # Batch's default; allocation here takes seconds
DEALLOCATION_NAMES = {"requeue": "Requeue", "terminate": "Terminate", "taskcompletion": "TaskCompletion"}  # in ARM


def time_text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def arm_pool(pool: Pool, resource_id: str) -> dict[str, Any]:
    properties = {
        **pool.properties,
        "provisioningState": "Deleting" if pool.deleting else "Succeeded",
        "provisioningStateTransitionTime": time_text(pool.created),
        "allocationState": "Steady" if pool.steady else "Resizing",
        "allocationStateTransitionTime": time_text(_allocation_since(pool)),
        "creationTime": time_text(pool.created),
        "lastModified": time_text(pool.modified),
        "currentDedicatedNodes": _count(pool, dedicated=True),
        "currentLowPriorityNodes": _count(pool, dedicated=False),
        "taskSlotsPerNode": 1,
        "scaleSettings": {"fixedScale": {**_targets(pool), "resizeTimeout": RESIZE_TIMEOUT}},
    }
    if pool.resize_started is not None:
        properties["resizeOperationStatus"] = {
            **_targets(pool),
            "resizeTimeout": RESIZE_TIMEOUT,
            "nodeDeallocationOption": DEALLOCATION_NAMES[pool.deallocation],
            "startTime": time_text(pool.resize_started),
        }
        if pool.resize_errors:
            errors = [{"code": code, "message": message} for code, message in pool.resize_errors]
            properties["resizeOperationStatus"]["errors"] = errors
    kind = "Microsoft.Batch/batchAccounts/pools"
    return {"id": resource_id, "name": pool.id, "type": kind, "etag": pool.etag, "properties": properties}


def pool_view(pool: Pool, base: str) -> dict[str, Any]:
    return {
        "id": pool.id,
        "url": f"{base}/pools/{pool.id}",
        "eTag": pool.etag,
        "lastModified": time_text(pool.modified),
        "creationTime": time_text(pool.created),
        "state": "deleting" if pool.deleting else "active",
        "stateTransitionTime": time_text(pool.created),
        "allocationState": "steady" if pool.steady else "resizing",
        "allocationStateTransitionTime": time_text(_allocation_since(pool)),
        "vmSize": pool.properties.get("vmSize"),
        "resizeTimeout": RESIZE_TIMEOUT,
        "resizeErrors": [{"code": code, "message": message} for code, message in pool.resize_errors],
        "currentDedicatedNodes": _count(pool, dedicated=True),
        "currentLowPriorityNodes": _count(pool, dedicated=False),
        **_targets(pool),
        "enableAutoScale": False,
        "taskSlotsPerNode": 1,
    }


def node_counts(pool: Pool) -> dict[str, Any]:
    names = ["creating", "idle", "offline", "preempted", "rebooting", "reimaging", "running", "starting"]
    names += ["startTaskFailed", "leavingPool", "unknown", "unusable", "waitingForStartTask", "deallocated"]
    names += ["deallocating", "upgradingOS"]
    kinds = {}
    for kind, dedicated in (("dedicated", True), ("lowPriority", False)):
        states = [node.state.value for node in pool.nodes.values() if node.dedicated is dedicated]
        kinds[kind] = {**{name: states.count(name.lower()) for name in names}, "total": len(states)}
    return {"poolId": pool.id, **kinds}


def node_view(node: Node, pool: Pool, base: str) -> dict[str, Any]:
    url = f"{base}/pools/{pool.id}/nodes/{node.id}"
    view: dict[str, Any] = {
        "id": node.id,
        "url": url,
        "state": node.state.value,
        "schedulingState": "disabled" if node.removing else "enabled",
        "stateTransitionTime": time_text(node.since),
        "allocationTime": time_text(node.allocated),
        "ipAddress": "127.0.0.1",
        "affinityId": f"TVM:{node.id}",
        "vmSize": pool.properties.get("vmSize"),
        "totalTasksRun": node.tasks_run,
        "totalTasksSucceeded": node.tasks_succeeded,
        "runningTasksCount": int(node.run is not None),
        "runningTaskSlotsCount": int(node.run is not None),
        "isDedicated": node.dedicated,
        "virtualMachineInfo": {},
    }
    if node.run is not None:
        task = node.run.task
        recent = {
            "taskUrl": _task_url(task, base),
            "jobId": task.job.id,
            "taskId": task.id,
            "taskState": task.state.value,
        }
        view["recentTasks"] = [recent]
    if node.state is not NodeState.STARTING:
        view["lastBootTime"] = time_text(node.allocated)
    return view


def job_view(job: Job, base: str) -> dict[str, Any]:
    execution: dict[str, Any] = {"startTime": time_text(job.created), "poolId": job.pool_id}
    if job.ended is not None and job.state is JobState.COMPLETED:
        execution |= {"endTime": time_text(job.ended), "terminateReason": job.end_reason}
    return {
        **job.body,
        "url": f"{base}/jobs/{job.id}",
        "eTag": job.etag,
        "creationTime": time_text(job.created),
        "lastModified": time_text(job.since),
        "state": job.state.value,
        "stateTransitionTime": time_text(job.since),
        "executionInfo": execution,
    }


def task_view(task: Task, base: str) -> dict[str, Any]:
    view = {
        **task.body,
        "url": _task_url(task, base),
        "eTag": task.etag,
        "creationTime": time_text(task.created),
        "lastModified": time_text(task.since),
        "state": task.state.value,
        "stateTransitionTime": time_text(task.since),
        "requiredSlots": 1,
        "executionInfo": _execution(task),
    }
    if task.previous is not None:
        view |= {"previousState": task.previous[0].value, "previousStateTransitionTime": time_text(task.previous[1])}
    if task.node_id is not None:
        node_url = f"{base}/pools/{task.pool_id}/nodes/{task.node_id}"
        view["nodeInfo"] = {
            "affinityId": f"TVM:{task.node_id}",
            "nodeUrl": node_url,
            "poolId": task.pool_id,
            "nodeId": task.node_id,
            "taskRootDirectory": f"workitems/{task.job.id}/{task.id}",
        }
    return view


def task_counts(job: Job) -> dict[str, Any]:
    states = [task.state for task in job.tasks.values()]
    failed = sum(task.state is TaskState.COMPLETED and task.failure is not None for task in job.tasks.values())
    completed = states.count(TaskState.COMPLETED)
    counts = {
        "active": states.count(TaskState.ACTIVE),
        "running": states.count(TaskState.RUNNING),
        "completed": completed,
        "succeeded": completed - failed,
        "failed": failed,
    }
    return {"taskCounts": counts, "taskSlotCounts": counts}


def _execution(task: Task) -> dict[str, Any]:
    execution: dict[str, Any] = {"retryCount": task.retries, "requeueCount": task.requeues}
    times = {
        "startTime": task.started,
        "endTime": task.ended if task.state is TaskState.COMPLETED else None,
        "lastRetryTime": task.last_retry,
        "lastRequeueTime": task.last_requeue,
    }
    execution |= {name: time_text(value) for name, value in times.items() if value is not None}
    if task.state is TaskState.COMPLETED:
        execution["result"] = "success" if task.failure is None else "failure"
        if task.exit_code is not None:
            execution["exitCode"] = task.exit_code
        if task.failure is not None:
            code, message = task.failure
            execution["failureInfo"] = {"category": "usererror", "code": code, "message": message}
    return execution


def _task_url(task: Task, base: str) -> str:
    return f"{base}/jobs/{task.job.id}/tasks/{task.id}"


def _targets(pool: Pool) -> dict[str, int]:
    return {"targetDedicatedNodes": pool.target_dedicated, "targetLowPriorityNodes": pool.target_spot}


def _count(pool: Pool, dedicated: bool) -> int:
    """Nodes in the pool, those on their way out and preempted ones included, as Batch counts."""
    return sum(node.dedicated is dedicated for node in pool.nodes.values())


def _allocation_since(pool: Pool) -> float:
    return pool.steady_since if pool.steady else (pool.resize_started or pool.created)
