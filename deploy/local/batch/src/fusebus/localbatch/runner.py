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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fusebus.localbatch.entities import DropFiles, Instruction, SignalProcess, StartProcess

# A task sees the variables it was given, and these of the machine: a node has no other secrets or settings to leak.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV")
PR_SET_PDEATHSIG = 1  # prctl(2): the signal that the kernel sends a process when the thread that started it ends
# Loaded before any fork: a library must not be loaded between fork and exec.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

Ended = Callable[[int, int | None, tuple[str, str] | None], None]  # run id, exit code, why it could not start


@dataclass
class _Running:
    task: asyncio.Task[None]
    process: asyncio.subprocess.Process | None = None
    signal: signal.Signals | None = None  # asked for before the process was there


class ProcessRunner:
    """Carries out the instructions of the state machine; tells `ended` of every process that is gone."""

    def __init__(self, work_dir: Path, ended: Ended) -> None:
        self.work_dir = work_dir
        self._ended = ended
        self._running: dict[int, _Running] = {}

    def carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case StartProcess():
                coroutine = self._run(instruction)
                self._running[instruction.run_id] = _Running(asyncio.get_running_loop().create_task(coroutine))
            case SignalProcess(run_id=run_id, kill=kill):
                self._signal(run_id, signal.SIGKILL if kill else signal.SIGTERM)
            case DropFiles(job_id=job_id, task_id=task_id):
                shutil.rmtree(self.task_dir(job_id, task_id), ignore_errors=True)

    def task_dir(self, job_id: str, task_id: str) -> Path:
        """Holds stdout.txt, stderr.txt (all attempts, appended) and the working folder `wd`."""
        return self.work_dir / "tasks" / job_id / task_id

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM to every task, SIGKILL to those that are still there after the grace."""
        tasks = [running.task for running in self._running.values()]
        for sent, limit in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, None)):
            for run_id in list(self._running):
                self._signal(run_id, sent)
            if tasks:
                await asyncio.wait(tasks, timeout=limit)

    async def _run(self, start: StartProcess) -> None:
        exit_code, problem = None, None
        try:
            process = await self._spawn(start)
        except (OSError, ValueError) as error:
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
        del self._running[start.run_id]
        self._ended(start.run_id, exit_code, problem)

    async def _spawn(self, start: StartProcess) -> asyncio.subprocess.Process:
        folder = self.task_dir(start.job_id, start.task_id)
        work = folder / "wd"
        work.mkdir(parents=True, exist_ok=True)
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        own = {"AZ_BATCH_TASK_DIR": str(folder), "AZ_BATCH_TASK_WORKING_DIR": str(work)}
        with (folder / "stdout.txt").open("ab") as stdout, (folder / "stderr.txt").open("ab") as stderr:
            return await asyncio.create_subprocess_exec(
                *shlex.split(start.command_line),  # no shell: like Batch on Linux
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=work,
                env={**inherited, **start.environment, **own},
                start_new_session=True,
                preexec_fn=_die_with_parent(os.getpid()),
            )

    def _signal(self, run_id: int, number: signal.Signals) -> None:
        running = self._running.get(run_id)
        if running is None:
            return  # ended in between
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
