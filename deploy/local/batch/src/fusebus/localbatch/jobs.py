"""Jobs and tasks: what clients ask of them and what becomes of a task when its process is gone; no I/O."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from typing import Any

from fusebus.localbatch.entities import (
    BatchProblem,
    DropFiles,
    Job,
    JobState,
    NodeState,
    Run,
    StopReason,
    Task,
    TaskState,
)
from fusebus.localbatch.limits import AccountLimits
from fusebus.localbatch.pools import PoolState
from fusebus.localbatch.values import check_output_files, check_settings, checked_id, seconds, whole_number

JOB_CHANGES = ("priority", "constraints", "poolInfo", "metadata", "onAllTasksComplete", "onTaskFailure")
"""What an update of a job may write; each value given replaces the whole."""
_NOT_ACTIVE = {
    JobState.DISABLING: "JobDisabled",
    JobState.DISABLED: "JobDisabled",
    JobState.TERMINATING: "JobBeingTerminated",
    JobState.DELETING: "JobBeingDeleted",
    JobState.COMPLETED: "JobCompleted",
}


class JobsState(PoolState):
    """Jobs and tasks on top of the fleet."""

    def __init__(self, limits: AccountLimits, clock: Callable[[], float]) -> None:
        super().__init__(limits, clock)
        self.jobs: dict[str, Job] = {}
        self._retained: list[tuple[float, int, Task]] = []  # a heap: when files go, of which ended task

    # --- jobs

    def job(self, job_id: str) -> Job:
        if job_id not in self.jobs:
            raise BatchProblem(404, "JobNotFound", f"The specified job {job_id} does not exist.")
        return self.jobs[job_id]

    def create_job(self, body: Mapping[str, Any]) -> Job:
        job_id = checked_id(body.get("id"))
        if job_id in self.jobs:
            raise BatchProblem(409, "JobExists", f"The specified job {job_id} already exists.")
        pool_id = (body.get("poolInfo") or {}).get("poolId")
        if not pool_id:
            raise BatchProblem(400, "InvalidPropertyValue", "poolInfo.poolId is required: pools are not made per job.")
        if sum(job.state is not JobState.COMPLETED for job in self.jobs.values()) >= self.limits.max_active_jobs:
            message = "Active job and schedule quota for the account has been reached."
            raise BatchProblem(409, "ActiveJobAndScheduleQuotaReached", message)
        check_settings(body.get("commonEnvironmentSettings"), "commonEnvironmentSettings")
        whole_number(body.get("priority"), "priority")
        now = self.clock()
        self.jobs[job_id] = Job(
            job_id, pool_id, dict(body), created=now, since=now, version=next(self._numbers), modified=now
        )
        return self.jobs[job_id]

    def update_job(self, job_id: str, body: Mapping[str, Any], *, replace: bool = False) -> Job:
        """Write what an update may write; `replace` forgets what is not given."""
        job = self.job(job_id)
        self._check_not_ending(job)
        whole_number(body.get("priority"), "priority")
        pool_id = (body.get("poolInfo") or {}).get("poolId")
        if pool_id and pool_id != job.pool_id and job.state is not JobState.DISABLED:
            raise BatchProblem(409, "JobNotDisabled", "The pool of a job can be changed while the job is disabled.")
        job.pool_id = pool_id or job.pool_id
        for name in JOB_CHANGES:
            if body.get(name) is not None:
                job.body[name] = body[name]
            elif replace and name != "poolInfo":
                job.body.pop(name, None)
        job.version, job.modified = next(self._numbers), self.clock()
        return job

    def disable_job(self, job_id: str, what: str | None) -> None:
        """Start no task; those that run are requeued or terminated, or (`wait`) end by themselves."""
        job = self.job(job_id)
        self._check_not_ending(job)
        reasons = {"requeue": StopReason.REQUEUED, "terminate": StopReason.TERMINATED, "wait": None}
        if (what or "").lower() not in reasons:
            raise BatchProblem(400, "InvalidPropertyValue", "disableTasks is requeue, terminate or wait.")
        reason = reasons[(what or "").lower()]
        if job.state is JobState.ACTIVE:
            self._set_job(job, JobState.DISABLING)
        for run in self.runs.values():
            if run.task.job is job and reason is not None:
                self._stop(run, reason)

    def enable_job(self, job_id: str) -> None:
        job = self.job(job_id)
        self._check_not_ending(job)
        if job.state is not JobState.ACTIVE:
            self._set_job(job, JobState.ACTIVE)

    def terminate_job(self, job_id: str, reason: str = "UserTerminate") -> Job:
        job = self.job(job_id)
        if job.state is JobState.COMPLETED:
            raise BatchProblem(409, "JobCompleted", f"The specified job {job_id} is already completed.")
        if job.state not in (JobState.TERMINATING, JobState.DELETING):
            self._set_job(job, JobState.TERMINATING)
            job.end_reason = reason
            for task in job.tasks.values():
                self._end_task_early(task)
        return job

    def delete_job(self, job_id: str) -> None:
        job = self.job(job_id)
        if job.state is JobState.DELETING:
            raise BatchProblem(409, "JobBeingDeleted", f"The specified job {job_id} is being deleted.")
        self._set_job(job, JobState.DELETING)
        for task_id in list(job.tasks):
            self.delete_task(job_id, task_id)

    @staticmethod
    def _check_not_ending(job: Job) -> None:
        if job.state in (JobState.TERMINATING, JobState.DELETING, JobState.COMPLETED):
            raise BatchProblem(409, _NOT_ACTIVE[job.state], f"The specified job {job.id} is {job.state}.")

    # --- tasks

    def task(self, job_id: str, task_id: str) -> Task:
        task = self.job(job_id).tasks.get(task_id)
        if task is None:
            raise BatchProblem(404, "TaskNotFound", f"The specified task {task_id} does not exist.")
        return task

    def create_task(self, job_id: str, body: Mapping[str, Any]) -> Task:
        job = self.job(job_id)
        task_id = checked_id(body.get("id"))
        if job.state not in (JobState.ACTIVE, JobState.DISABLING, JobState.DISABLED):
            raise BatchProblem(409, _NOT_ACTIVE[job.state], f"The specified job {job_id} is {job.state}.")
        ending = any(run.task.job.id == job_id and run.task.id == task_id for run in self.runs.values())
        if task_id in job.tasks or ending:  # a deleted task's process may still be ending in the same folder
            raise BatchProblem(409, "TaskExists", f"The specified task {task_id} already exists.")
        if not str(body.get("commandLine") or "").strip():
            raise BatchProblem(400, "InvalidRequestBody", "commandLine is required.")
        check_settings(body.get("environmentSettings"), "environmentSettings")
        check_output_files(body.get("outputFiles"))
        job.tasks[task_id] = self._new_task(job, task_id, body)
        return job.tasks[task_id]

    def _new_task(self, job: Job, task_id: str, body: Mapping[str, Any]) -> Task:
        constraints = {**(job.body.get("constraints") or {}), **(body.get("constraints") or {})}
        retention = seconds(constraints.get("retentionTime"))
        now, number = self.clock(), next(self._numbers)
        return Task(
            job,
            task_id,
            sequence=number,
            body=dict(body),
            created=now,
            since=now,
            version=number,
            max_retries=whole_number(constraints.get("maxTaskRetryCount"), "maxTaskRetryCount"),
            wall_clock_seconds=seconds(constraints.get("maxWallClockTime")),
            retention_seconds=self.limits.retention_seconds if retention is None else retention,
        )

    def terminate_task(self, job_id: str, task_id: str) -> None:
        task = self.task(job_id, task_id)
        if task.state is TaskState.COMPLETED:
            raise BatchProblem(409, "TaskCompleted", f"The specified task {task_id} is already completed.")
        self._end_task_early(task)

    def reactivate_task(self, job_id: str, task_id: str) -> None:
        """Run a task that failed once more, with all its retries."""
        task = self.task(job_id, task_id)
        if task.state is not TaskState.COMPLETED:
            raise BatchProblem(409, "TaskNotCompleted", f"The specified task {task_id} is {task.state}.")
        if task.failure is None:
            raise BatchProblem(409, "TaskSucceeded", f"The specified task {task_id} has completed successfully.")
        self._check_not_ending(task.job)
        task.retries, task.exit_code, task.failure, task.ended = 0, None, None, None
        task.started, task.pool_id, task.node_id, task.files_gone = None, None, None, False
        self._set_task(task, TaskState.ACTIVE)

    def delete_task(self, job_id: str, task_id: str) -> None:
        task = self.task(job_id, task_id)
        del task.job.tasks[task_id]
        run = self._run_of(task)
        if run is not None:
            run.stopping = StopReason.DELETED  # its files go once its process is gone
            self._signal(run, kill=True)
        else:
            self._instructions.append(DropFiles(job_id, task_id))

    # --- the end of a process

    def process_ended(self, run_id: int, exit_code: int | None, problem: tuple[str, str] | None = None) -> None:
        """A process is gone: its exit code (128 + signal), or what went wrong around it (code, sentence)."""
        if run_id in self.start_runs:
            self.start_task_ended(run_id, exit_code, problem)
            return
        run = self.runs.pop(run_id)
        task, node = run.task, run.node
        task.exit_code, task.ended = exit_code, self.clock()
        node.tasks_run += 1
        node.tasks_succeeded += exit_code == 0
        if node.run is run:  # else its machine was taken meanwhile
            node.run = None
            if node.state in (NodeState.RUNNING, NodeState.LEAVING, NodeState.REBOOTING, NodeState.REIMAGING):
                self._settle_node(run.pool, node)
        self._conclude(run, exit_code, problem)

    def _conclude(self, run: Run, exit_code: int | None, problem: tuple[str, str] | None) -> None:
        task = run.task
        match run.stopping:
            case StopReason.DELETED:
                self._instructions.append(DropFiles(task.job.id, task.id))
            case StopReason.REQUEUED:
                task.requeues, task.last_requeue = task.requeues + 1, self.clock()
                self._set_task(task, TaskState.ACTIVE)
            case StopReason.TERMINATED:
                self._complete(task, ("TaskEnded", "Task was ended by user request"))
            case StopReason.TIMED_OUT:
                self._fail(task, ("TaskTimedOut", "The task exceeded its maximum wall clock time"))
            case None if exit_code == 0 and problem is None:
                self._complete(task, None)
            case None:
                code = ("FailureExitCode", "The task exited with an exit code representing a failure")
                self._fail(task, problem or code)

    # --- steps

    def _run_of(self, task: Task) -> Run | None:
        return next((run for run in self.runs.values() if run.task is task), None)

    def _end_task_early(self, task: Task) -> None:
        run = self._run_of(task)
        if run is not None:
            self._stop(run, StopReason.TERMINATED)
            run.stopping = StopReason.TERMINATED  # a person's word counts more than a requeue under way
        elif task.state is TaskState.ACTIVE:
            self._complete(task, ("TaskEnded", "Task was ended by user request"))

    def _fail(self, task: Task, failure: tuple[str, str]) -> None:
        running = (JobState.ACTIVE, JobState.DISABLING, JobState.DISABLED)
        if task.job.state in running and (task.max_retries < 0 or task.retries < task.max_retries):
            task.retries, task.last_retry = task.retries + 1, self.clock()
            self._set_task(task, TaskState.ACTIVE)
        else:
            self._complete(task, failure)

    def _complete(self, task: Task, failure: tuple[str, str] | None) -> None:
        task.failure, task.ended = failure, self.clock()
        self._set_task(task, TaskState.COMPLETED)
        if task.node_id is not None:
            heapq.heappush(self._retained, (task.ended + task.retention_seconds, next(self._numbers), task))

    def _set_task(self, task: Task, state: TaskState) -> None:
        task.previous = (task.state, task.since)
        task.state, task.since, task.version = state, self.clock(), next(self._numbers)

    def _set_job(self, job: Job, state: JobState) -> None:
        job.previous = (job.state, job.since)
        job.state, job.since = state, self.clock()
        job.version, job.modified = next(self._numbers), job.since
