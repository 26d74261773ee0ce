"""The state machine of a Batch account: requests and process ends in, instructions out; no I/O, the clock is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fusebus.localbatch.entities import (
    AccountLimits,
    BatchProblem,
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
)
from fusebus.localbatch.pools import PoolState
from fusebus.localbatch.values import checked_id, seconds


class BatchState(PoolState):
    """Every method is one event. After each, and at `next_deadline`, call `advance` and carry out what it returns."""

    def __init__(self, limits: AccountLimits, clock: Callable[[], float]) -> None:
        super().__init__(limits, clock)
        self.jobs: dict[str, Job] = {}

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
        now = self.clock()
        self.jobs[job_id] = Job(job_id, pool_id, dict(body), created=now, since=now)
        return self.jobs[job_id]

    def terminate_job(self, job_id: str, reason: str = "UserTerminate") -> Job:
        job = self.job(job_id)
        if job.state is JobState.COMPLETED:
            raise BatchProblem(409, "JobCompleted", f"The specified job {job_id} is already completed.")
        if job.state is JobState.ACTIVE:
            self._set_job(job, JobState.TERMINATING)
            job.end_reason = reason
            for task in job.tasks.values():
                self._end_task_early(task)
        return job

    def delete_job(self, job_id: str) -> None:
        job = self.job(job_id)
        self._set_job(job, JobState.DELETING)
        for task_id in list(job.tasks):
            self.delete_task(job_id, task_id)

    def task(self, job_id: str, task_id: str) -> Task:
        task = self.job(job_id).tasks.get(task_id)
        if task is None:
            raise BatchProblem(404, "TaskNotFound", f"The specified task {task_id} does not exist.")
        return task

    def create_task(self, job_id: str, body: Mapping[str, Any]) -> Task:
        job = self.job(job_id)
        task_id = checked_id(body.get("id"))
        if job.state is not JobState.ACTIVE:
            raise BatchProblem(409, "JobCompleted", f"The specified job {job_id} is {job.state}.")
        ending = any(run.task.job.id == job_id and run.task.id == task_id for run in self.runs.values())
        if task_id in job.tasks or ending:  # a deleted task's process may still be ending in the same folder
            raise BatchProblem(409, "TaskExists", f"The specified task {task_id} already exists.")
        if not str(body.get("commandLine") or "").strip():
            raise BatchProblem(400, "InvalidRequestBody", "commandLine is required.")
        now = self.clock()
        constraints = {**(job.body.get("constraints") or {}), **(body.get("constraints") or {})}
        task = Task(
            job,
            task_id,
            sequence=next(self._numbers),
            body=dict(body),
            created=now,
            since=now,
            max_retries=int(constraints.get("maxTaskRetryCount") or 0),
            wall_clock_seconds=seconds(constraints.get("maxWallClockTime")),
        )
        job.tasks[task_id] = task
        return task

    def terminate_task(self, job_id: str, task_id: str) -> None:
        task = self.task(job_id, task_id)
        if task.state is TaskState.COMPLETED:
            raise BatchProblem(409, "TaskCompleted", f"The specified task {task_id} is already completed.")
        self._end_task_early(task)

    def delete_task(self, job_id: str, task_id: str) -> None:
        task = self.task(job_id, task_id)
        del task.job.tasks[task_id]
        run = self._run_of(task)
        if run is not None:
            run.stopping = StopReason.DELETED  # its files go once its process is gone
            self._signal(run, kill=True)
        else:
            self._instructions.append(DropFiles(job_id, task_id))

    def process_ended(self, run_id: int, exit_code: int | None, problem: tuple[str, str] | None = None) -> None:
        """A process is gone: its exit code (128 + signal), or why it could not start (code, sentence)."""
        run = self.runs.pop(run_id)
        task, node, now = run.task, run.node, self.clock()
        task.exit_code, task.ended = exit_code, now
        node.tasks_run += 1
        node.tasks_succeeded += exit_code == 0
        if node.run is run:  # else it was preempted meanwhile
            node.run = None
            if node.removing:
                self._enter(run.pool, node, NodeState.LEAVING, self.limits.leave_seconds)
            else:
                self._enter(run.pool, node, NodeState.IDLE)
        match run.stopping:
            case StopReason.DELETED:
                self._instructions.append(DropFiles(task.job.id, task.id))
            case StopReason.REQUEUED:
                task.requeues, task.last_requeue = task.requeues + 1, now
                self._set_task(task, TaskState.ACTIVE)
            case StopReason.TERMINATED:
                self._complete(task, ("TaskEnded", "Task was ended by user request"))
            case StopReason.TIMED_OUT:
                self._fail(task, ("TaskTimedOut", "The task exceeded its maximum wall clock time"))
            case None if exit_code == 0:
                self._complete(task, None)
            case None:
                code = ("FailureExitCode", "The task exited with an exit code representing a failure")
                self._fail(task, problem or code)

    # --- time

    def advance(self) -> list[Instruction]:
        """Let everything happen that is due or possible now; returns what is to be done about processes and files."""
        now = self.clock()
        self.advance_pools(now)
        self._stop_overdue(now)
        self._assign()
        for job in list(self.jobs.values()):
            self._settle_job(job)
        instructions, self._instructions = self._instructions, []
        return instructions

    def next_deadline(self) -> float | None:
        """When `advance` has something to do again if no event comes before."""
        times: list[float | None] = [pool.allocation_due for pool in self.pools.values()]
        times += [node.due for pool in self.pools.values() for node in pool.nodes.values()]
        for run in self.runs.values():
            times.append(run.kill_at)
            if run.task.wall_clock_seconds is not None and run.stopping is None:
                times.append(run.started + run.task.wall_clock_seconds)
        return min((time for time in times if time is not None), default=None)

    def _stop_overdue(self, now: float) -> None:
        for run in self.runs.values():
            limit = run.task.wall_clock_seconds
            if run.stopping is None and limit is not None and now >= run.started + limit:
                self._stop(run, StopReason.TIMED_OUT)
            if run.kill_at is not None and now >= run.kill_at:
                self._signal(run, kill=True)

    def _assign(self) -> None:
        """First task, first idle node; tasks of all jobs of a pool in order of arrival."""
        for pool in self.pools.values():
            idle = [node for node in pool.nodes.values() if node.state is NodeState.IDLE and node.run is None]
            jobs = [job for job in self.jobs.values() if job.pool_id == pool.id and job.state is JobState.ACTIVE]
            waiting = [task for job in jobs for task in job.tasks.values() if task.state is TaskState.ACTIVE]
            waiting.sort(key=lambda task: task.sequence)
            for node, task in zip(idle, waiting, strict=False):
                self._start(pool, node, task)

    def _start(self, pool: Pool, node: Node, task: Task) -> None:
        now = self.clock()
        run = Run(next(self._numbers), task, pool, node, started=now)
        self.runs[run.id] = node.run = run
        self._enter(pool, node, NodeState.RUNNING)
        self._set_task(task, TaskState.RUNNING)
        task.started, task.ended, task.exit_code, task.failure = now, None, None, None
        task.pool_id, task.node_id = pool.id, node.id
        own, common = task.body.get("environmentSettings"), task.job.body.get("commonEnvironmentSettings")
        environment = {
            **{setting["name"]: setting.get("value") or "" for setting in [*(common or ()), *(own or ())]},
            "AZ_BATCH_POOL_ID": pool.id,
            "AZ_BATCH_NODE_ID": node.id,
            "AZ_BATCH_NODE_IS_DEDICATED": str(node.dedicated).lower(),
            "AZ_BATCH_JOB_ID": task.job.id,
            "AZ_BATCH_TASK_ID": task.id,
        }
        command = task.body["commandLine"]
        self._instructions.append(StartProcess(run.id, task.job.id, task.id, command, environment))

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
        if task.job.state is JobState.ACTIVE and (task.max_retries < 0 or task.retries < task.max_retries):
            task.retries, task.last_retry = task.retries + 1, self.clock()
            self._set_task(task, TaskState.ACTIVE)
        else:
            self._complete(task, failure)

    def _complete(self, task: Task, failure: tuple[str, str] | None) -> None:
        task.failure, task.ended = failure, self.clock()
        self._set_task(task, TaskState.COMPLETED)

    def _set_task(self, task: Task, state: TaskState) -> None:
        task.previous = (task.state, task.since)
        task.state, task.since = state, self.clock()

    def _set_job(self, job: Job, state: JobState) -> None:
        job.state, job.since = state, self.clock()

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
