"""`python -m fusebus.inferencer`: settings, real adapters, and work until stopped or idle."""

from __future__ import annotations

import os
import socket

from fusebus.blobs import Blobs
from fusebus.bus import Bus
from fusebus.contracts.messages import JobKind
from fusebus.contracts.topology import image_subscriptions
from fusebus.host import Life, run_service
from fusebus.inferencer import telemetry
from fusebus.inferencer.codecs import Codecs
from fusebus.inferencer.event_loop import new_loop
from fusebus.inferencer.handler import Detect
from fusebus.inferencer.lifetimes import beside, consuming, leave, notices, serving_models, stopping
from fusebus.inferencer.memory import share_freed_memory
from fusebus.inferencer.policy import Pace
from fusebus.inferencer.serving import Serving
from fusebus.inferencer.settings import InferencerSettings
from fusebus.inferencer.stages import Places, Stages

PATIENCE_SHARE = 1 / 3
"""Of what the consumer allows for a handling: so long an image may wait for its turn, the rest is for its work."""


async def main(settings: InferencerSettings, life: Life) -> None:
    """Serve `detect` until SIGTERM, or until nothing came for `idle_exit_seconds`."""
    worker = f"{os.environ.get('AZ_BATCH_NODE_ID') or socket.gethostname()}/{os.getpid()}"
    async with (
        Bus(settings.bus) as bus,
        Blobs(settings.blobs) as blobs,
        Codecs(settings.codec_threads) as codecs,
        Serving(life.stop.set) as serving,
    ):
        handler = _handler(settings, blobs, serving, codecs, worker)
        life.health.liveness("bus", bus.is_alive)
        life.health.liveness("model", serving.is_alive)
        async with (
            beside(stopping(handler.stages, life.stop), *notices(settings, life.stop)),
            beside(codecs.warm_up(), bus.publisher().connect("results")),  # while the model is loaded
            consuming(settings, bus, handler, life.stop) as consumer,
            serving_models(settings, serving, bus, blobs, worker, life.stop),
        ):
            life.health.ready = True
            consumer.begin.set()
            await consumer.end
    if serving.broken is not None:
        raise serving.broken  # a non-zero exit code: Batch and the dispatcher count it as a failed worker


def _handler(settings: InferencerSettings, blobs: Blobs, serving: Serving, codecs: Codecs, worker: str) -> Detect:
    threads, batch = codecs.threads, settings.max_batch
    stages = Stages(
        Places(
            downloads=settings.downloads,
            decoding=threads,
            model=batch + (settings.decoded_waiting or batch),
            annotating=threads,
            uploads=settings.uploads,
        )
    )
    pace = Pace(
        most=settings.slots,
        batch=batch,
        lanes=len(image_subscriptions(JobKind.DETECT)),
        threads=threads,
        downloads=settings.downloads,
        uploads=settings.uploads,
    )
    telemetry.watch(stages, lambda: pace.chosen.number)
    return Detect(
        store=blobs,
        models=serving,
        codecs=codecs,
        worker=worker,
        stages=stages,
        pace=pace,
        annotated_pixels=round(settings.annotated_megapixels * 1e6),
        jpeg_quality=settings.jpeg_quality,
        retry_seconds=settings.retry_seconds,
        patience_seconds=settings.consumer.handling_seconds * PATIENCE_SHARE,
    )


if __name__ == "__main__":
    about = "Finds fuse neutrals in accepted images."
    share_freed_memory()
    leave(run_service("inferencer", InferencerSettings, main, about, event_loop=new_loop))
