"""Child processes that die with their parent, keep their output and come back when they were killed."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

POLL_SECONDS = 0.05
PR_SET_PDEATHSIG = 1  # prctl(2): the signal that the kernel sends a process when the thread that started it ends

_log = logging.getLogger(__name__)
# Loaded before any fork: a library must not be loaded between fork and exec.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class ProcessFailed(RuntimeError):
    """A child could not be started or does not stay up; the text holds the end of its output."""


def die_with_parent(parent: int) -> Callable[[], None]:
    """What a child runs before exec; where the kernel has no such signal (not Linux) it does nothing."""

    def prepare() -> None:
        if _libc is not None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:  # the parent died in between: the signal will never come
                os._exit(1)

    return prepare


def started_at(process: int) -> str:
    """When a process started, in the kernel's ticks since boot; empty where there is no such process.

    A process number alone may have been given to another process since.
    """
    try:
        # The second field, the program's name in brackets, may itself hold spaces and brackets.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return _exists(process)


def _exists(process: int) -> str:
    """The same without /proc (not Linux): whether the number is in use."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "running"
    return "running" if not Path("/proc/self").exists() else ""


@dataclass
class Supervised:
    """One long-lived child: started, waited for, restarted when it ends by itself, stopped."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    """Standard output and error, appended over restarts."""
    restart: bool = True
    stop_grace_seconds: float = 35.0
    """From SIGTERM to SIGKILL: longer than a service's own drain limit."""
    restart_delay_seconds: float = 0.5
    most_restarts_per_minute: int = 10
    """A child that dies faster than this is broken, not unlucky."""
    restarts: list[float] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    _watch: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start it now, and keep it up from now on where `restart` is set."""
        self._spawn()
        if self.restart:
            self._watch = asyncio.get_running_loop().create_task(self._keep_up(), name=f"keep {self.name} up")

    async def line(self, limit_seconds: float, marker: str) -> str:
        """The first line of its output that contains `marker`. Raises ProcessFailed."""
        deadline = asyncio.get_running_loop().time() + limit_seconds
        while asyncio.get_running_loop().time() < deadline:
            # A killed child can leave half a line: only whole ones count.
            whole = self.output().rpartition("\n")[0]
            for found in whole.splitlines():
                if marker in found:
                    return found
            if self.process is None or self.process.poll() is not None:
                raise ProcessFailed(f"{self.name} ended before it was ready: {self.output()[-2000:]}")
            await asyncio.sleep(POLL_SECONDS)
        raise ProcessFailed(f"{self.name} was not ready after {limit_seconds:.0f} s: {self.output()[-2000:]}")

    def output(self) -> str:
        """Everything it wrote so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def failure(self) -> BaseException | None:
        """Why it is no longer kept up, if so."""
        watch = self._watch
        return watch.exception() if watch is not None and watch.done() and not watch.cancelled() else None

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after `stop_grace_seconds`; harmless when nothing runs."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError, ProcessFailed):
                await self._watch
        process, self.process = self.process, None
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
        deadline = asyncio.get_running_loop().time() + self.stop_grace_seconds
        while process.poll() is None and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(POLL_SECONDS)
        if process.poll() is None:
            _log.warning("%s did not stop in %.0f s: killed", self.name, self.stop_grace_seconds)
            process.kill()
        process.wait()

    def _spawn(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(self.environment),
                start_new_session=True,  # Ctrl-C reaches the stack alone, which then stops its children in order
                preexec_fn=die_with_parent(os.getpid()),  # noqa: PLW1509 - one prctl call, nothing loaded after the fork
            )

    async def _keep_up(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if self.process is None or self.process.poll() is None:
                continue
            now = loop.time()
            self.restarts = [when for when in self.restarts if when > now - 60] + [now]
            if len(self.restarts) > self.most_restarts_per_minute:
                raise ProcessFailed(
                    f"{self.name} ended {len(self.restarts)} times within a minute, the last time with exit code "
                    f"{self.process.returncode}: {self.output()[-2000:]}"
                )
            _log.warning("%s ended with exit code %s: starting it again", self.name, self.process.returncode)
            await asyncio.sleep(self.restart_delay_seconds)
            self._spawn()
