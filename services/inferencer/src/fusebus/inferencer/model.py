"""The one thread that owns the model: it takes what is queued, runs it as a batch, and hands each caller its part."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fusebus.inferencer import telemetry
from fusebus.inferencer.backends import Backend, Outputs
from fusebus.inferencer.batching import BatchLimits, BatchSize, lacks_memory
from fusebus.inferencer.urgency import Urgency, ordinary

_log = logging.getLogger(__name__)

THREAD_NAME = "model"
_STOP_SECONDS = 10.0  # how long a running batch may take when the process ends; the thread dies with it anyway
_MOST_FAILED_PICTURES = 3  # one after the other, none analysed between them: then it is not the pictures


class Answer(NamedTuple):
    """One picture's outputs and where its time went."""

    outputs: Outputs
    """Without the batch dimension."""
    waited: float
    """Seconds in the queue."""
    took: float
    """Seconds of the model call, shared by the whole batch."""
    batch: int = 1
    """Pictures in that call."""


class ModelBroken(RuntimeError):
    """A model call failed, and so did one with a blank picture: the device is to blame, not a picture."""


class NotServed(RuntimeError):
    """The one version that may see an image does not serve in this worker now."""


class MemoryLacking(RuntimeError):
    """Not even one picture found memory on the device; others use it, or used it a moment ago."""


class PictureFailed(RuntimeError):
    """The model fails on this picture, alone in its call, and on no other."""


class _Job(NamedTuple):
    image: NDArray[np.uint8]
    answer: asyncio.Future[Answer]
    queued_at: float


class ModelThread:
    """`async with ModelThread(...) as model: answer = await model.detect(image)`.

    `open_backend` is called in the thread; what it raises comes out of `async with`. `warm_up` is the edge in pixels of
    a blank picture to run first, None for none. Threads that share a `device` call their models one after the other:
    two versions side by side take turns, they don't fight for it. `max_pixels` (0: any) limits the inputs of one call
    together, beside `max_batch`.
    """

    def __init__(
        self,
        open_backend: Callable[[], Backend],
        max_batch: int,
        warm_up: int | None = None,
        device: threading.Lock | None = None,
        max_pixels: int = 0,
    ) -> None:
        self._open_backend = open_backend
        self._limits = BatchLimits(pictures=max_batch, pixels=max_pixels)
        self._size = BatchSize(max_batch)
        self._warm_up = warm_up
        self._device = device or threading.Lock()
        self._queue: queue.SimpleQueue[tuple[Urgency, _Job] | None] = queue.SimpleQueue()
        self._waiting: list[tuple[Urgency, _Job]] = []  # the thread's own, what it has taken from the queue
        self._ending = False
        self._failed_in_a_row = 0
        self._ready: Future[None] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.broken: ModelBroken | None = None
        """Why every call fails from now on: a broken device does not heal, its process must end."""
        # A daemon: a process that is told to stop must not wait for a model that hangs.
        self._thread = threading.Thread(target=self._serve, name=THREAD_NAME, daemon=True)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Start the thread and wait until the model is open and warm. Raises what `open_backend` raises."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        await asyncio.wrap_future(self._ready)

    async def close(self) -> None:
        """Answer what is queued, then let go of the model."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, _STOP_SECONDS)

    def is_alive(self) -> bool:
        """Whether the thread still serves."""
        return self._thread.is_alive()

    async def detect(self, image: NDArray[np.uint8], urgency: Urgency | None = None) -> Answer:
        """The model's outputs for one picture, uint8 (size, size, 3). A cancelled call is not run if it still waits.

        Raises PictureFailed where the model fails on this picture only, MemoryLacking where there is none for it now;
        ModelBroken once it fails on any.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.put((urgency or ordinary(), _Job(image, answer, time.perf_counter())))
        return await answer

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
            self._run(backend, jobs)
            del jobs  # or an idle model would keep its last pictures alive

    def _take(self) -> list[_Job]:
        """Waits for one job, then takes the most urgent ones of all that are there, up to a batch; empty at the end."""
        while True:
            if not self._waiting:
                if self._ending:
                    return []
                self._accept(self._queue.get())
            with contextlib.suppress(queue.Empty):
                while True:
                    self._accept(self._queue.get_nowait())
            if jobs := self._most_urgent():
                return jobs

    def _accept(self, found: tuple[Urgency, _Job] | None) -> None:
        if found is None:
            self._ending = True
        else:
            heapq.heappush(self._waiting, found)

    def _most_urgent(self) -> list[_Job]:
        jobs: list[_Job] = []
        while self._waiting:
            _, job = self._waiting[0]
            most = self._limits.of(job.image.shape[0] * job.image.shape[1])
            if len(jobs) >= min(most, self._size.now):
                break
            heapq.heappop(self._waiting)
            if not job.answer.done():  # cancelled meanwhile
                jobs.append(job)
        return jobs

    def _run(self, backend: Backend, jobs: Sequence[_Job]) -> None:
        if self.broken is not None:
            self._tell([(job, self.broken) for job in jobs])
            return
        try:
            batch = np.stack([job.image for job in jobs])
            with self._device:
                started = time.perf_counter()
                outputs = backend.run(batch)
                took = time.perf_counter() - started
            answers = [
                (job, Answer(outputs.of(at), started - job.queued_at, took, len(jobs))) for at, job in enumerate(jobs)
            ]
        except Exception as error:
            self._call_failed(backend, jobs, error)
            return
        self._size.succeeded()
        self._failed_in_a_row = 0
        telemetry.model_call(len(jobs), took)
        self._tell(answers)

    def _call_failed(self, backend: Backend, jobs: Sequence[_Job], error: Exception) -> None:
        """Smaller calls, down to one picture: the fault of one is not its neighbours', memory may suffice for fewer."""
        if len(jobs) > 1:
            if lacks_memory(error):
                self._size.lacked_memory(len(jobs))
                _log.warning("%d pictures were too many, %d from now on: %s", len(jobs), self._size.now, error)
            half = (len(jobs) + 1) // 2
            self._run(backend, jobs[:half])
            self._run(backend, jobs[half:])
            return
        self._failed_in_a_row += 1
        if self._failed_in_a_row < _MOST_FAILED_PICTURES and self._runs_blank(backend, jobs[0].image):
            _log.error("the model fails on one picture: %s", error)
            said = f"the model call failed on this picture alone: {error}"
            # One that is as large found memory, so want of it says nothing about the picture.
            self._tell([(jobs[0], MemoryLacking(said) if lacks_memory(error) else PictureFailed(said))])
        else:
            self.broken = ModelBroken(f"the model call failed: {error}")
            self._tell([(jobs[0], self.broken)])

    def _runs_blank(self, backend: Backend, image: NDArray[np.uint8]) -> bool:
        try:
            with self._device:
                backend.run(np.zeros((1, *image.shape), np.uint8))
        except Exception:
            return False
        return True

    def _tell(self, answers: Sequence[tuple[_Job, Answer | Exception]]) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(_answer, answers)


def _answer(answers: Sequence[tuple[_Job, Answer | Exception]]) -> None:
    """In the loop: a whole batch with one wake-up."""
    for job, found in answers:
        if job.answer.done():
            continue
        if isinstance(found, Exception):
            job.answer.set_exception(found)
        else:
            job.answer.set_result(found)
