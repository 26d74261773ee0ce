"""One local Batch account in this process: state machine, process runner and HTTP server, wired together."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from fusebus.localbatch.entities import AccountLimits
from fusebus.localbatch.fault_orders import inject
from fusebus.localbatch.request_faults import RequestFaults
from fusebus.localbatch.routes import Front, application
from fusebus.localbatch.runner import ProcessRunner
from fusebus.localbatch.state import BatchState

METADATA_VARIABLE = "LOCALBATCH_METADATA_URL"
"""Where a task reads of its node's metadata service, what is http://169.254.169.254/metadata on Azure."""


@dataclass(frozen=True)
class LocalBatchOptions:
    """`port` 0 takes a free one; `work_dir` None is a temporary folder that goes with the server.

    `host` is a name or address of this machine: whoever reaches it can run commands here, so beyond loopback it belongs
    to a network on which only its clients are.

    Tasks find the URL of their node's metadata service in LOCALBATCH_METADATA_URL and, if `metadata_variable` is
    given, in a second variable of that name; a variable of the task's own comes first.
    """

    host: str = "127.0.0.1"
    port: int = 0
    work_dir: Path | None = None
    limits: AccountLimits = field(default_factory=AccountLimits)
    location: str = "local"  # the region that the account tells
    metadata_variable: str = ""


class LocalBatch:
    """`async with LocalBatch(LocalBatchOptions()) as batch: batch.url`: for ARM and the data plane alike.

    On Linux the tasks die with the *thread* that runs this event loop.
    """

    def __init__(self, options: LocalBatchOptions | None = None) -> None:
        self.options = options or LocalBatchOptions()
        self.url = ""
        self.state = BatchState(self.options.limits, time.time)
        self.request_faults = RequestFaults(self.options.limits.requests_per_second)
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._server: web.AppRunner | None = None
        self._runner: ProcessRunner | None = None

    async def start(self) -> None:
        """Listen on `host`; raises OSError when the port is taken or the host is not this machine's."""
        folder = self.options.work_dir
        if folder is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="localbatch-")
            folder = Path(self._scratch.name)
        self._runner = ProcessRunner(folder.resolve(), self._process_ended, self._of_node)
        front = Front(
            self.state, self._runner, self._step, self.request_faults, self.options.location, self.options.host
        )
        self._server = web.AppRunner(application(front), access_log=None, shutdown_timeout=1.0)
        await self._server.setup()
        site = web.TCPSite(self._server, self.options.host, self.options.port)
        await site.start()
        self.url = f"http://{self.options.host}:{self._server.addresses[0][1]}"

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

    def inject(self, fault: str, **fields: Any) -> dict[str, Any]:
        """Inject a fault, as `POST /local/faults` and `fusebus-localbatch fault` do; raises BatchProblem."""
        answer = inject(self.state, self.request_faults, {"fault": fault, **fields})
        self._step()
        return answer

    def metadata_url(self, pool_id: str, node_id: str) -> str:
        """The metadata service of a node."""
        return f"{self.url}/local/metadata/{pool_id}/{node_id}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _of_node(self, pool_id: str, node_id: str) -> Mapping[str, str]:
        url = self.metadata_url(pool_id, node_id)
        names = [name for name in (METADATA_VARIABLE, self.options.metadata_variable) if name]
        account = {"AZ_BATCH_ACCOUNT_NAME": "local", "AZ_BATCH_ACCOUNT_URL": self.url}
        return {**account, **dict.fromkeys(names, url)}

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
