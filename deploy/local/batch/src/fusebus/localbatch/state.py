"""The state machine of a Batch account: requests and process ends in, instructions out; no I/O, the clock is given."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from fusebus.localbatch.entities import (
    DropFiles,
    Instruction,
    Job,
    JobState,
    Node,
    NodeState,
    Pool,
    Run,
    StartProcess,
    StopReason,
    Task,
    TaskState,
    Upload,
)
from fusebus.localbatch.jobs import JobsState
from fusebus.localbatch.values import settings_of

RECENT_TASKS = 10  # that a node tells of


class BatchState(JobsState):
    """Every method is one event. After each, and at `next_deadline`, call `advance` and carry out what it returns."""

    def advance(self) -> list[Instruction]:
        """Let everything happen that is due or possible now; returns what is to be done about processes and files."""
        now = self.clock()
        self.advance_pools(now)
        self._stop_overdue(now)
        self._assign()
        for job in list(self.jobs.values()):
            self._settle_job(job)
        self._end_retention(now)
        instructions, self._instructions = self._instructions, []
        return instructions

    def next_deadline(self) -> float | None:
        """When `advance` has something to do again if no event comes before."""
        times: list[float | None] = list(self.node_deadlines())
        for pool in self.pools.values():
            times += [pool.allocation_due, pool.gives_up_at, pool.stop_due]
        for run in self.runs.values():
            times.append(run.kill_at)
            if run.task.wall_clock_seconds is not None and run.stopping is None:
                times.append(run.started + run.task.wall_clock_seconds)
        if self._retained:
            times.append(self._retained[0][0])
        return min((time for time in times if time is not None), default=None)

    def _stop_overdue(self, now: float) -> None:
        for run in self.runs.values():
            limit = run.task.wall_clock_seconds
            if run.stopping is None and limit is not None and now >= run.started + limit:
                self._stop(run, StopReason.TIMED_OUT)
            if run.kill_at is not None and now >= run.kill_at:
                self._signal(run, kill=True)

    def _assign(self) -> None:
        """First task, first idle node; tasks of all jobs of a pool by priority, then in order of arrival."""
        for pool in self.pools.values():
            idle = [node for node in pool.nodes.values() if node.state is NodeState.IDLE and node.run is None]
            if not idle:
                continue
            jobs = [job for job in self.jobs.values() if job.pool_id == pool.id and job.state is JobState.ACTIVE]
            waiting = [task for job in jobs for task in job.tasks.values() if task.state is TaskState.ACTIVE]
            waiting.sort(key=lambda task: (-int(task.job.body.get("priority") or 0), task.sequence))
            for node, task in zip(idle, waiting, strict=False):
                self._start(pool, node, task)

    def _start(self, pool: Pool, node: Node, task: Task) -> None:
        now = self.clock()
        run = Run(next(self._numbers), task, pool, node, started=now)
        self.runs[run.id] = node.run = run
        node.recent = [task, *(other for other in node.recent if other is not task)][:RECENT_TASKS]
        self._enter(pool, node, NodeState.RUNNING)
        self._set_task(task, TaskState.RUNNING)
        task.started, task.ended, task.exit_code, task.failure = now, None, None, None
        task.pool_id, task.node_id, task.machine = pool.id, node.id, node.machine
        environment = {
            **settings_of(task.job.body.get("commonEnvironmentSettings")),
            **settings_of(task.body.get("environmentSettings")),
            "AZ_BATCH_POOL_ID": pool.id,
            "AZ_BATCH_NODE_ID": node.id,
            "AZ_BATCH_NODE_IS_DEDICATED": str(node.dedicated).lower(),
            "AZ_BATCH_JOB_ID": task.job.id,
            "AZ_BATCH_TASK_ID": task.id,
        }
        uploads = tuple(_uploads(task.body.get("outputFiles") or ()))
        command = task.body["commandLine"]
        self._instructions.append(StartProcess(run.id, task.job.id, task.id, command, environment, uploads))

    def _settle_job(self, job: Job) -> None:
        done = bool(job.tasks) and all(task.state is TaskState.COMPLETED for task in job.tasks.values())
        if done and job.state is JobState.ACTIVE and job.body.get("onAllTasksComplete") == "terminatejob":
            self.terminate_job(job.id, "AllTasksCompleted")
        if any(run.task.job is job for run in self.runs.values()):
            return
        if job.state is JobState.DELETING:
            del self.jobs[job.id]
        elif job.state is JobState.TERMINATING:
            self._set_job(job, JobState.COMPLETED)
            job.ended = job.since
        elif job.state is JobState.DISABLING:
            self._set_job(job, JobState.DISABLED)

    def _end_retention(self, now: float) -> None:
        """Files of ended tasks go when their time is over; the tasks stay."""
        while self._retained and self._retained[0][0] <= now:
            due, _, task = heapq.heappop(self._retained)
            known = task.job.tasks.get(task.id) is task and self.jobs.get(task.job.id) is task.job
            over = task.ended is not None and task.ended + task.retention_seconds <= due
            if known and over and task.state is TaskState.COMPLETED:  # else it ran once more
                task.files_gone = True
                self._instructions.append(DropFiles(task.job.id, task.id))


def _uploads(files: Iterable[dict[str, object]]) -> Iterable[Upload]:
    for file in files:
        destination, options = file.get("destination"), file.get("uploadOptions")
        container = destination.get("container") if isinstance(destination, dict) else None
        if not isinstance(container, dict):
            continue
        condition = options.get("uploadCondition") if isinstance(options, dict) else None
        yield Upload(
            pattern=str(file.get("filePattern") or ""),
            container_url=str(container.get("containerUrl") or ""),
            path=str(container.get("path") or ""),
            condition=str(condition or "taskcompletion").lower(),
        )
