"""`python -m fusebus.inferencer`: settings, real adapters, and work until stopped or idle."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import msgspec

from fusebus.blobs import Blobs
from fusebus.bus import Bus
from fusebus.contracts.messages import JobKind
from fusebus.host import Life, run_service
from fusebus.inferencer import eviction, telemetry
from fusebus.inferencer.backends.providers import Accelerator
from fusebus.inferencer.codecs import Codecs
from fusebus.inferencer.following import Follower
from fusebus.inferencer.handler import Detect
from fusebus.inferencer.loading import Loader, Running, open_folder
from fusebus.inferencer.policy import Pace
from fusebus.inferencer.serving import Serving
from fusebus.inferencer.settings import InferencerSettings
from fusebus.inferencer.stages import Places, Stages
from fusebus.models.registry import Registry


async def main(settings: InferencerSettings, life: Life) -> None:
    """Serve `detect` until SIGTERM, or until nothing came for `idle_exit_seconds`."""
    worker = f"{os.environ.get('AZ_BATCH_NODE_ID') or socket.gethostname()}/{os.getpid()}"
    async with (
        Bus(settings.bus) as bus,
        Blobs(settings.blobs) as blobs,
        Codecs(settings.codec_threads) as codecs,
        Serving(life.stop.set) as serving,
        _watching(settings, stages := _stages(settings, codecs.threads), codecs, life.stop),
        _models(settings, serving, bus, blobs, worker, life.stop),
    ):
        pace = Pace(most=settings.slots, batch=settings.max_batch, threads=codecs.threads)
        telemetry.watch(stages, lambda: pace.chosen.number)
        handler = Detect(
            store=blobs,
            models=serving,
            codecs=codecs,
            worker=worker,
            stages=stages,
            pace=pace,
            annotated_pixels=round(settings.annotated_megapixels * 1e6),
            jpeg_quality=settings.jpeg_quality,
            retry_seconds=settings.retry_seconds,
        )
        life.health.liveness("bus", bus.is_alive)
        life.health.liveness("model", serving.is_alive)
        life.health.ready = True
        await bus.consume(
            "images",
            JobKind.DETECT.value,
            handler,
            stop=life.stop,
            slots=settings.slots,
            limit=pace.limit,
            idle_exit=settings.idle_exit_seconds,
            settings=msgspec.structs.replace(settings.consumer, drain_seconds=settings.drain_seconds),
        )
    if serving.broken is not None:
        raise serving.broken  # a non-zero exit code: Batch and the dispatcher count it as a failed worker


def _stages(settings: InferencerSettings, threads: int) -> Stages:
    return Stages(
        Places(
            downloads=settings.downloads,
            decoding=threads,
            model=settings.max_batch + (settings.decoded_waiting or settings.max_batch),
            annotating=threads,
            uploads=settings.uploads,
        )
    )


@contextlib.asynccontextmanager
async def _watching(
    settings: InferencerSettings, stages: Stages, codecs: Codecs, stop: asyncio.Event
) -> AsyncIterator[None]:
    """As long as the block lasts: a notice of eviction is a stop, and a stop lets no image begin any more.

    The codecs warm up meanwhile.
    """

    async def close() -> None:
        await stop.wait()
        stages.close()

    tasks = [asyncio.create_task(close()), asyncio.create_task(codecs.warm_up())]
    if settings.scheduled_events:
        watching = eviction.watch(settings.scheduled_events, settings.scheduled_events_seconds, stop.set)
        tasks.append(asyncio.create_task(watching))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def _models(
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
        serving.switch(await open_folder(settings.model, running))
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
    await _unless_stopped(follower.start(), stop)
    watch = asyncio.create_task(follower.follow(settings.models.watch_seconds))
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def _unless_stopped(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
    """Until the work or the process is to end: a large model may take minutes to load."""
    task, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        stopped.cancel()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


if __name__ == "__main__":
    sys.exit(run_service("inferencer", InferencerSettings, main, "Finds fuse neutrals in accepted images."))
