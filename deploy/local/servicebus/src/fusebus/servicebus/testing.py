"""A broker for tests that are not asyncio: its own thread, its own event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from fusebus.servicebus.broker import Broker, BrokerOptions
from fusebus.servicebus.conditions import DETACH_FORCED, SERVER_BUSY
from fusebus.servicebus.event_loop import new_loop

T = TypeVar("T")
START_SECONDS = 30.0
CALL_SECONDS = 10.0


class BrokerThread:
    """`with BrokerThread(options) as broker:`; all methods may be called from any thread."""

    def __init__(self, options: BrokerOptions | None = None) -> None:
        self._options = options or BrokerOptions()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="fusebus-servicebus", daemon=True)
        self.broker = Broker(self._options)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(START_SECONDS):
            raise TimeoutError(f"the broker did not start within {START_SECONDS} s")
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(CALL_SECONDS)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            self._failure = error
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        async with self.broker:
            self._ready.set()
            await self._stopping.wait()

    def call(self, function: Callable[[], T]) -> T:
        """Runs `function` on the broker's loop, where its engine may be used, and returns its result."""
        assert self._loop is not None

        async def run() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(CALL_SECONDS)

    @property
    def connection_string(self) -> str:
        """For data and administration clients."""
        return self.broker.connection_string

    @property
    def ca_path(self) -> Path:
        """What administration clients must trust."""
        return self.broker.ca_path

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.broker.port

    def detach_links(self, entity: str, condition: str = DETACH_FORCED) -> int:
        """See Broker.detach_links."""
        return self.call(lambda: self.broker.detach_links(entity, condition))

    def lose_locks(self, entity: str) -> int:
        """See Broker.lose_locks."""
        return self.call(lambda: self.broker.lose_locks(entity))

    def fail_renewals(self, count: int = 1, entity: str | None = None, condition: str = SERVER_BUSY) -> None:
        """See Faults.fail_renewals."""
        self.call(lambda: self.broker.faults.fail_renewals(count, entity, condition))
