"""What runs beside the images as long as the process does: consumer, model and its follower, notices of eviction."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Coroutine
from typing import Any, NamedTuple, NoReturn

import msgspec

from fusebus.blobs import Blobs
from fusebus.bus import Bus
from fusebus.contracts.messages import JobKind
from fusebus.contracts.topology import image_subscriptions
from fusebus.host import until_stopped
from fusebus.inferencer import eviction
from fusebus.inferencer.backends.providers import Accelerator
from fusebus.inferencer.following import Follower
from fusebus.inferencer.handler import Detect
from fusebus.inferencer.loading import Loader, Running, open_folder
from fusebus.inferencer.model import THREAD_NAME
from fusebus.inferencer.serving import Serving
from fusebus.inferencer.settings import InferencerSettings
from fusebus.inferencer.stages import Stages
from fusebus.models.registry import Registry

_log = logging.getLogger(__name__)


class Consuming(NamedTuple):
    begin: asyncio.Event
    end: asyncio.Task[None]


@contextlib.asynccontextmanager
async def consuming(
    settings: InferencerSettings, bus: Bus, handler: Detect, stop: asyncio.Event
) -> AsyncIterator[Consuming]:
    """The consumers, whose links open at once; they receive from `begin` on. What ends the block ends them, too."""
    begin = asyncio.Event()
    consume = bus.consume_lanes(
        "images",
        image_subscriptions(JobKind.DETECT),
        handler,
        stop=stop,
        slots=settings.slots,
        limit=handler.pace.limit,
        ready=begin,
        idle_exit=settings.idle_exit_seconds,
        settings=msgspec.structs.replace(settings.consumer, drain_seconds=settings.drain_seconds),
    )
    end = asyncio.create_task(consume)
    try:
        yield Consuming(begin, end)
    finally:
        end.cancel()
        await asyncio.gather(end, return_exceptions=True)


async def stopping(stages: Stages, stop: asyncio.Event) -> None:
    """A stop lets no image begin any more."""
    await stop.wait()
    stages.close()


def notices(settings: InferencerSettings, stop: asyncio.Event) -> list[Coroutine[Any, Any, None]]:
    """A notice of eviction is a stop."""
    if not settings.scheduled_events:
        return []
    return [eviction.watch(settings.scheduled_events, settings.scheduled_events_seconds, stop.set)]


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("%s ended", task.get_coro(), exc_info=error)


@contextlib.asynccontextmanager
async def beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """These run as long as the block lasts."""
    tasks = [asyncio.create_task(one) for one in work]
    for task in tasks:
        task.add_done_callback(_log_failure)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def serving_models(
    settings: InferencerSettings, serving: Serving, bus: Bus, blobs: Blobs, worker: str, stop: asyncio.Event
) -> AsyncIterator[None]:
    """The folder's model for good, or what the registry says as long as the block lasts."""
    running = Running(
        provider=settings.provider,
        intra_op_threads=settings.intra_op_threads,
        max_batch=settings.max_batch,
        max_pixels=round(settings.max_batch_megapixels * 1e6),
        warm_up=settings.warm_up,
        accelerator=Accelerator(
            device=settings.device, cuda_graph=settings.cuda_graph, engine_cache=settings.engine_cache
        ),
    )
    if not settings.follow_registry:
        await until_stopped(_serve_folder(settings, serving, running), stop)
        yield
        return
    registry = Registry(blobs, settings.models)
    loader = Loader(
        source=registry,
        running=running,
        cache=settings.models.cache,
        seconds=settings.models.load_timeout_seconds,
        memory_bytes=settings.models.load_memory_bytes,
    )
    follower = Follower(
        registry=registry,
        serving=serving,
        load=loader,
        open_own=lambda: open_folder(settings.model, running),
        publish=bus.publisher().publish,
        worker=worker,
    )
    await until_stopped(follower.start(), stop)
    watch = asyncio.create_task(follower.follow(settings.models.watch_seconds))
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def _serve_folder(settings: InferencerSettings, serving: Serving, running: Running) -> None:
    serving.switch(await open_folder(settings.model, running))


def leave(code: int) -> NoReturn:
    """End the process with this exit code, a model that still loads or hangs notwithstanding.

    Python's own end would take from its native code what it still uses: a segmentation fault instead of the code.
    """
    logging.shutdown()
    if any(thread.name == THREAD_NAME for thread in threading.enumerate()):
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
