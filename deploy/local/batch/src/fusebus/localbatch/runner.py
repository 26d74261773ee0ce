"""Runs tasks as processes: a folder each, a process group each, none of them outlives its owner."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fusebus.localbatch.entities import (
    DropFiles,
    DropNodeFiles,
    Instruction,
    SignalProcess,
    StartNodeProcess,
    StartProcess,
)
from fusebus.localbatch.uploads import upload_outputs

# A task sees the variables it was given, and these of the machine: a node has no other secrets or settings to leak.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV")
PR_SET_PDEATHSIG = 1  # prctl(2): the signal that the kernel sends a process when the thread that started it ends
# Loaded before any fork: a library must not be loaded between fork and exec.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

Ended = Callable[[int, int | None, tuple[str, str] | None], None]  # run id, exit code, what went wrong around it
NodeEnvironment = Callable[[str, str], Mapping[str, str]]  # what a node's processes see of it; of pool and node


@dataclass
class _Running:
    task: asyncio.Task[None]
    process: asyncio.subprocess.Process | None = None
    signal: signal.Signals | None = None  # asked for before the process was there
    upload: asyncio.Task[tuple[str, str] | None] | None = None  # the process has ended, its files are on their way


class ProcessRunner:
    """Carries out the instructions of the state machine; tells `ended` of every process that is gone."""

    def __init__(self, work_dir: Path, ended: Ended, of_node: NodeEnvironment = lambda pool, node: {}) -> None:
        self.work_dir = work_dir
        self._ended = ended
        self._of_node = of_node
        self._running: dict[int, _Running] = {}

    def carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case StartProcess() | StartNodeProcess():
                coroutine = self._run(instruction)
                self._running[instruction.run_id] = _Running(asyncio.get_running_loop().create_task(coroutine))
            case SignalProcess(run_id=run_id, kill=kill):
                self._signal(run_id, signal.SIGKILL if kill else signal.SIGTERM)
            case DropFiles(job_id=job_id, task_id=task_id):
                shutil.rmtree(self.task_dir(job_id, task_id), ignore_errors=True)
            case DropNodeFiles(pool_id=pool_id, node_id=node_id):
                shutil.rmtree(self.node_dir(pool_id, node_id), ignore_errors=True)

    def task_dir(self, job_id: str, task_id: str) -> Path:
        """Holds stdout.txt, stderr.txt (all attempts, appended) and the working folder `wd`."""
        return self.work_dir / "tasks" / job_id / task_id

    def node_dir(self, pool_id: str, node_id: str) -> Path:
        """Holds `startup` (the start task's output and its `wd`) and `shared`."""
        return self.work_dir / "nodes" / pool_id / node_id

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM to every task, SIGKILL to those that are still there after the grace."""
        tasks = [running.task for running in self._running.values()]
        for sent, limit in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, None)):
            for run_id in list(self._running):
                self._signal(run_id, sent)
            if tasks:
                await asyncio.wait(tasks, timeout=limit)

    async def _run(self, start: StartProcess | StartNodeProcess) -> None:
        exit_code, problem = None, None
        try:
            process = await self._spawn(start)
        except Exception as error:  # whatever it is: a run that never ends would keep its node for ever
            problem = ("CommandProgramNotFound", f"The command could not be started: {error}")
        else:
            running = self._running[start.run_id]
            running.process = process
            if running.signal is not None:
                self._signal(start.run_id, running.signal)
            code = await process.wait()
            exit_code = code if code >= 0 else 128 - code  # by a signal: as a shell and Batch say it
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # what the task left behind ends with it
            if isinstance(start, StartProcess) and start.uploads:
                problem = await self._upload(running, start, exit_code == 0)
        del self._running[start.run_id]
        self._ended(start.run_id, exit_code, problem)

    async def _upload(self, running: _Running, start: StartProcess, succeeded: bool) -> tuple[str, str] | None:
        folder = self.task_dir(start.job_id, start.task_id)
        uploading = upload_outputs(start.uploads, folder, folder / "wd", succeeded)
        running.upload = asyncio.get_running_loop().create_task(uploading)
        await asyncio.wait([running.upload])
        if running.upload.cancelled():
            return "FileUploadMiscError", "The task was ended while its files were uploaded."
        if error := running.upload.exception():  # a pattern or a folder that can't be read: the run ends all the same
            return "FileUploadMiscError", f"The task's files could not be uploaded: {error}"
        return running.upload.result()

    async def _spawn(self, start: StartProcess | StartNodeProcess) -> asyncio.subprocess.Process:
        folder, own = self._place(start)
        work = folder / "wd"
        work.mkdir(parents=True, exist_ok=True)
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        with (folder / "stdout.txt").open("ab") as stdout, (folder / "stderr.txt").open("ab") as stderr:
            return await asyncio.create_subprocess_exec(
                *shlex.split(start.command_line),  # no shell: like Batch on Linux
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=work,
                env={**inherited, **own, **start.environment, "AZ_BATCH_TASK_WORKING_DIR": str(work)},
                start_new_session=True,
                preexec_fn=_die_with_parent(os.getpid()),
            )

    def _place(self, start: StartProcess | StartNodeProcess) -> tuple[Path, dict[str, str]]:
        """The folder of a process, and what its node tells it."""
        pool_id, node_id = start.environment["AZ_BATCH_POOL_ID"], start.environment["AZ_BATCH_NODE_ID"]
        root = self.node_dir(pool_id, node_id)
        shared = root / "shared"
        shared.mkdir(parents=True, exist_ok=True)
        own = {
            **self._of_node(pool_id, node_id),
            "AZ_BATCH_NODE_ROOT_DIR": str(root),
            "AZ_BATCH_NODE_SHARED_DIR": str(shared),
            "AZ_BATCH_NODE_STARTUP_DIR": str(root / "startup"),
        }
        if isinstance(start, StartNodeProcess):
            return root / "startup", own
        folder = self.task_dir(start.job_id, start.task_id)
        return folder, {**own, "AZ_BATCH_TASK_DIR": str(folder)}

    def _signal(self, run_id: int, number: signal.Signals) -> None:
        running = self._running.get(run_id)
        if running is None:
            return  # ended in between
        if running.upload is not None:  # the number of the process may be another's by now
            if number is signal.SIGKILL:
                running.upload.cancel()
            return
        if running.process is None:
            running.signal = number
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.process.pid, number)


def _die_with_parent(parent: int) -> Callable[[], None]:
    """What the child runs before exec; where the kernel has no such signal (not Linux) it does nothing."""

    def prepare() -> None:
        if _libc is not None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:  # the parent died in between: the signal will never come
                os._exit(1)

    return prepare
