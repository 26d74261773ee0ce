"""One local Batch account in this process: state machine, process runner and HTTP server, wired together."""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from fusebus.localbatch.entities import AccountLimits
from fusebus.localbatch.routes import application
from fusebus.localbatch.runner import ProcessRunner
from fusebus.localbatch.state import BatchState


@dataclass(frozen=True)
class LocalBatchOptions:
    """`port` 0 takes a free one; `work_dir` None is a temporary folder that goes with the server."""

    port: int = 0
    work_dir: Path | None = None
    limits: AccountLimits = field(default_factory=AccountLimits)


class LocalBatch:
    """`async with LocalBatch(LocalBatchOptions()) as batch: batch.url`: for ARM and the data plane alike.

    On Linux the tasks die with the *thread* that runs this event loop.
    """

    def __init__(self, options: LocalBatchOptions | None = None) -> None:
        self.options = options or LocalBatchOptions()
        self.url = ""
        self.state = BatchState(self.options.limits, time.time)
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._server: web.AppRunner | None = None
        self._runner: ProcessRunner | None = None

    async def start(self) -> None:
        """Listen on 127.0.0.1; raises OSError when the port is taken."""
        folder = self.options.work_dir
        if folder is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="localbatch-")
            folder = Path(self._scratch.name)
        self._runner = ProcessRunner(folder.resolve(), self._process_ended)
        self._server = web.AppRunner(
            application(self.state, self._runner, self._step), access_log=None, shutdown_timeout=1.0
        )
        await self._server.setup()
        site = web.TCPSite(self._server, "127.0.0.1", self.options.port)
        await site.start()
        host, port = self._server.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        """Stop listening, then end all tasks: SIGTERM, and SIGKILL after the grace."""
        if self._timer is not None:
            self._timer.cancel()
        if self._server is not None:
            await self._server.cleanup()
        runner, self._runner = self._runner, None  # from here on nothing new starts
        if runner is not None:
            await runner.stop(self.options.limits.terminate_grace_seconds)
        if self._scratch is not None:
            self._scratch.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _process_ended(self, run_id: int, exit_code: int | None, problem: tuple[str, str] | None) -> None:
        self.state.process_ended(run_id, exit_code, problem)
        self._step()

    def _step(self) -> None:
        """Carry out what is to be done now, and wake up when the next thing is due."""
        if self._runner is None:
            return
        for instruction in self.state.advance():
            self._runner.carry_out(instruction)
        if self._timer is not None:
            self._timer.cancel()
        due = self.state.next_deadline()
        if due is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - time.time()), self._step)
