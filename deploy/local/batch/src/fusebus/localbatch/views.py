"""Writes entities as the JSON that the two SDKs read: ARM pools, and data-plane pools, nodes, jobs and tasks."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import formatdate
from enum import StrEnum
from typing import Any

from fusebus.localbatch.entities import Job, JobState, Node, Pool, StartTaskInfo, Task, TaskState

DEALLOCATION_NAMES = {"requeue": "Requeue", "terminate": "Terminate", "taskcompletion": "TaskCompletion"}  # in ARM


def time_text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def arm_pool(pool: Pool, resource_id: str) -> dict[str, Any]:
    properties = {
        **pool.properties,
        "provisioningState": "Deleting" if pool.deleting else "Succeeded",
        "provisioningStateTransitionTime": time_text(pool.created),
        "allocationState": pool.allocation_state.capitalize(),
        "allocationStateTransitionTime": time_text(_allocation_since(pool)),
        "creationTime": time_text(pool.created),
        "lastModified": time_text(pool.modified),
        "currentDedicatedNodes": _count(pool, dedicated=True),
        "currentLowPriorityNodes": _count(pool, dedicated=False),
        "taskSlotsPerNode": 1,
        "scaleSettings": {"fixedScale": {**_targets(pool), "resizeTimeout": _duration(pool.resize_timeout)}},
    }
    if pool.resize_started is not None:
        properties["resizeOperationStatus"] = _resize_status(pool, pool.resize_started)
    kind = "Microsoft.Batch/batchAccounts/pools"
    return {"id": resource_id, "name": pool.id, "type": kind, "etag": pool.etag, "properties": properties}


def _resize_status(pool: Pool, started: float) -> dict[str, Any]:
    """Of the current or the last resize; its errors stay until the next one."""
    status = {
        **_targets(pool),
        "resizeTimeout": _duration(pool.resize_timeout),
        "nodeDeallocationOption": DEALLOCATION_NAMES[pool.deallocation],
        "startTime": time_text(started),
    }
    if pool.resize_errors:
        status["errors"] = [{"code": code, "message": message} for code, message in pool.resize_errors]
    return status


def pool_view(pool: Pool, base: str) -> dict[str, Any]:
    configuration = (pool.properties.get("deploymentConfiguration") or {}).get("virtualMachineConfiguration")
    optional = {name: pool.properties.get(name) for name in ("displayName", "startTask", "metadata")}
    optional["virtualMachineConfiguration"] = configuration
    return {
        **{name: value for name, value in optional.items() if value is not None},
        "id": pool.id,
        "url": f"{base}/pools/{pool.id}",
        "eTag": pool.etag,
        "lastModified": time_text(pool.modified),
        "creationTime": time_text(pool.created),
        "state": "deleting" if pool.deleting else "active",
        "stateTransitionTime": time_text(pool.created),
        "allocationState": pool.allocation_state,
        "allocationStateTransitionTime": time_text(_allocation_since(pool)),
        "vmSize": pool.properties.get("vmSize"),
        "resizeTimeout": _duration(pool.resize_timeout),
        "resizeErrors": [{"code": code, "message": message} for code, message in pool.resize_errors],
        "currentDedicatedNodes": _count(pool, dedicated=True),
        "currentLowPriorityNodes": _count(pool, dedicated=False),
        **_targets(pool),
        "enableAutoScale": False,
        "taskSlotsPerNode": 1,
    }


def account_pool_properties(body: dict[str, Any]) -> dict[str, Any]:
    """The ARM properties of a pool that the data plane describes."""
    same = ("vmSize", "displayName", "startTask", "metadata", "taskSlotsPerNode", "networkConfiguration")
    properties = {name: body[name] for name in same if name in body}
    if "virtualMachineConfiguration" in body:
        properties["deploymentConfiguration"] = {"virtualMachineConfiguration": body["virtualMachineConfiguration"]}
    scale = ("targetDedicatedNodes", "targetLowPriorityNodes", "resizeTimeout", "nodeDeallocationOption")
    if body.get("enableAutoScale"):
        properties["scaleSettings"] = {"autoScale": {"formula": body.get("autoScaleFormula")}}
    elif any(name in body for name in scale):
        properties["scaleSettings"] = {"fixedScale": {name: body[name] for name in scale if name in body}}
    return properties


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
        "schedulingState": "enabled" if node.schedulable and not node.removing else "disabled",
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
    return view | _node_history(node, pool, base)


def _node_history(node: Node, pool: Pool, base: str) -> dict[str, Any]:
    """What is told only once there is something to tell."""
    view: dict[str, Any] = {}
    if node.recent:
        view["recentTasks"] = [_recent(task, base) for task in node.recent]
    if node.booted is not None:
        view["lastBootTime"] = time_text(node.booted)
    if node.errors:
        view["errors"] = [{"code": code, "message": message} for code, message in node.errors]
    if pool.properties.get("startTask"):
        view["startTask"] = pool.properties["startTask"]
    if node.start_info is not None:
        view["startTaskInfo"] = _start_info(node.start_info)
    return view


def _recent(task: Task, base: str) -> dict[str, Any]:
    return {
        "taskUrl": _task_url(task, base),
        "jobId": task.job.id,
        "taskId": task.id,
        "taskState": task.state.value,
        "executionInfo": _execution(task),
    }


def _start_info(info: StartTaskInfo) -> dict[str, Any]:
    view: dict[str, Any] = {
        "state": "running" if info.ended is None else "completed",
        "startTime": time_text(info.started),
        "retryCount": info.retries,
    }
    if info.last_retry is not None:
        view["lastRetryTime"] = time_text(info.last_retry)
    if info.ended is not None:
        view |= {"endTime": time_text(info.ended), "result": "success" if info.failure is None else "failure"}
    if info.exit_code is not None:
        view["exitCode"] = info.exit_code
    if info.failure is not None:
        view["failureInfo"] = _failure(*info.failure)
    return view


def scheduled_events(node: Node) -> dict[str, Any]:
    """The document of the instance metadata service, version 2020-07-01."""
    document: dict[str, Any] = {"DocumentIncarnation": node.incarnation, "Events": []}
    if node.notice is not None:
        notice = node.notice
        event = {
            "EventId": notice.id,
            "EventStatus": "Scheduled",
            "EventType": notice.kind.value,
            "ResourceType": "VirtualMachine",
            "Resources": [node.id],
            "NotBefore": formatdate(notice.not_before, usegmt=True),
            "Description": "Virtual machine is going to be affected.",
            "EventSource": "Platform",
            "DurationInSeconds": int(notice.seconds),
        }
        document["Events"].append(event)
    return document


def job_view(job: Job, base: str) -> dict[str, Any]:
    execution: dict[str, Any] = {"startTime": time_text(job.created), "poolId": job.pool_id}
    if job.ended is not None and job.state is JobState.COMPLETED:
        execution |= {"endTime": time_text(job.ended), "terminateReason": job.end_reason}
    view = {
        "priority": 0,
        "onAllTasksComplete": "noaction",
        **job.body,
        "url": f"{base}/jobs/{job.id}",
        "eTag": job.etag,
        "creationTime": time_text(job.created),
        "lastModified": time_text(job.modified),
        "state": job.state.value,
        "stateTransitionTime": time_text(job.since),
        "executionInfo": execution,
    }
    return view | _previous(job.previous)


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
    view |= _previous(task.previous)
    if task.node_id is not None:
        node_url = f"{base}/pools/{task.pool_id}/nodes/{task.node_id}"
        view["nodeInfo"] = {
            "affinityId": f"TVM:{task.node_id}",
            "nodeUrl": node_url,
            "poolId": task.pool_id,
            "nodeId": task.node_id,
            "taskRootDirectory": f"workitems/{task.job.id}/job-1/{task.id}",
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
            execution["failureInfo"] = _failure(*task.failure)
    return execution


def _failure(code: str, message: str) -> dict[str, str]:
    return {"category": "usererror", "code": code, "message": message}


def _previous(previous: tuple[StrEnum, float] | None) -> dict[str, str]:
    if previous is None:
        return {}
    return {"previousState": previous[0].value, "previousStateTransitionTime": time_text(previous[1])}


def _duration(seconds: float) -> str:
    return f"PT{seconds:g}S"


def _task_url(task: Task, base: str) -> str:
    return f"{base}/jobs/{task.job.id}/tasks/{task.id}"


def _targets(pool: Pool) -> dict[str, int]:
    return {"targetDedicatedNodes": pool.target_dedicated, "targetLowPriorityNodes": pool.target_spot}


def _count(pool: Pool, dedicated: bool) -> int:
    """Nodes in the pool, those on their way out and preempted ones included, as Batch counts."""
    return sum(node.dedicated is dedicated for node in pool.nodes.values())


def _allocation_since(pool: Pool) -> float:
    return pool.steady_since if pool.steady else (pool.resize_started or pool.created)
