"""The one thread that owns the model: it takes what is queued, runs it as a batch, and hands each caller its part."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fusebus.inferencer.backends import Backend, Outputs

_STOP_SECONDS = 10.0  # how long a running batch may take when the process ends; the thread dies with it anyway


class Answer(NamedTuple):
    """One picture's outputs and where its time went."""

    outputs: Outputs
    """Without the batch dimension."""
    waited: float
    """Seconds in the queue."""
    took: float
    """Seconds of the model call, shared by the whole batch."""


class ModelBroken(RuntimeError):
    """A model call failed. Its input always has the same shape and type, so the device is to blame, not a picture."""


class _Job(NamedTuple):
    image: NDArray[np.uint8]
    answer: Future[Answer]
    queued_at: float


class ModelThread:
    """`async with ModelThread(...) as model: answer = await model.detect(image)`.

    `open_backend` is called in the thread; what it raises comes out of `async with`. `warm_up` is the edge in pixels of
    a blank picture to run first, None for none. Threads that share a `device` call their models one after the other:
    two versions side by side take turns, they don't fight for it.
    """

    def __init__(
        self,
        open_backend: Callable[[], Backend],
        max_batch: int,
        warm_up: int | None = None,
        device: threading.Lock | None = None,
    ) -> None:
        self._open_backend = open_backend
        self._max_batch = max_batch
        self._warm_up = warm_up
        self._device = device or threading.Lock()
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._ready: Future[None] = Future()
        self.broken: ModelBroken | None = None
        """Why every call fails from now on: a broken device does not heal, its process must end."""
        # A daemon: a process that is told to stop must not wait for a model that hangs.
        self._thread = threading.Thread(target=self._serve, name="model", daemon=True)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Start the thread and wait until the model is open and warm. Raises what `open_backend` raises."""
        self._thread.start()
        await asyncio.wrap_future(self._ready)

    async def close(self) -> None:
        """Answer what is queued, then let go of the model."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, _STOP_SECONDS)

    def is_alive(self) -> bool:
        """Whether the thread still serves."""
        return self._thread.is_alive()

    async def detect(self, image: NDArray[np.uint8]) -> Answer:
        """The model's outputs for one picture, uint8 (size, size, 3). A cancelled call is not run if it still waits.

        Raises ModelBroken once any call has failed.
        """
        job = _Job(image, Future(), time.perf_counter())
        self._queue.put(job)
        return await asyncio.wrap_future(job.answer)

    def _serve(self) -> None:
        try:
            backend = self._open_backend()
            if self._warm_up is not None:
                with self._device:
                    backend.run(np.zeros((1, self._warm_up, self._warm_up, 3), np.uint8))
        except BaseException as error:
            if self._ready.set_running_or_notify_cancel():
                self._ready.set_exception(error)
            return
        if not self._ready.set_running_or_notify_cancel():
            return  # nobody waits for this model any more
        self._ready.set_result(None)
        while jobs := self._take():
            if wanted := [job for job in jobs if job.answer.set_running_or_notify_cancel()]:
                self._run(backend, wanted)

    def _take(self) -> list[_Job]:
        """Waits for one job, then takes what else is there, up to a batch; empty at the end."""
        jobs: list[_Job] = []
        while len(jobs) < self._max_batch:
            try:
                job = self._queue.get(block=not jobs)
            except queue.Empty:
                break
            if job is None:
                self._queue.put(None)  # found again once these jobs are done
                break
            jobs.append(job)
        return jobs

    def _run(self, backend: Backend, jobs: Sequence[_Job]) -> None:
        try:
            if self.broken is not None:
                raise self.broken
            batch = np.stack([job.image for job in jobs])
            with self._device:
                started = time.perf_counter()
                outputs = backend.run(batch)
        except Exception as error:
            self.broken = self.broken or ModelBroken(f"the model call failed: {error}")
            for job in jobs:
                job.answer.set_exception(self.broken)
            return
        took = time.perf_counter() - started
        for index, job in enumerate(jobs):
            job.answer.set_result(Answer(outputs.of(index), started - job.queued_at, took))
