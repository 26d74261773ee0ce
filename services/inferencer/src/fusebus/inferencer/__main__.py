"""`python -m fusebus.inferencer`: settings, real adapters, and work until stopped or idle."""

from __future__ import annotations

import os
import socket
import sys

from fusebus.blobs import Blobs
from fusebus.bus import Bus
from fusebus.contracts.messages import JobKind
from fusebus.host import Life, run_service
from fusebus.inferencer.backends.onnx import OnnxBackend
from fusebus.inferencer.codecs import Codecs
from fusebus.inferencer.handler import Detect
from fusebus.inferencer.model import ModelThread
from fusebus.inferencer.settings import InferencerSettings
from fusebus.models import load_manifest


async def main(settings: InferencerSettings, life: Life) -> None:
    """Serve `detect` until SIGTERM, or until nothing came for `idle_exit_seconds`."""
    manifest = load_manifest(settings.model)
    model = ModelThread(
        lambda: OnnxBackend(settings.model / manifest.file, settings.provider, settings.intra_op_threads),
        settings.max_batch,
        manifest.image_size if settings.warm_up else None,
    )
    async with (
        Bus(settings.bus) as bus,
        Blobs(settings.blobs) as blobs,
        Codecs(settings.codec_threads) as codecs,
        model,
    ):
        handler = Detect(
            store=blobs,
            model=model,
            codecs=codecs,
            manifest=manifest,
            worker=f"{os.environ.get('AZ_BATCH_NODE_ID') or socket.gethostname()}/{os.getpid()}",
            give_up=life.stop.set,
            jpeg_quality=settings.jpeg_quality,
            retry_seconds=settings.retry_seconds,
        )
        life.health.liveness("bus", bus.is_alive)
        life.health.liveness("model", model.is_alive)
        life.health.ready = True
        await bus.consume(
            "images",
            JobKind.DETECT.value,
            handler,
            stop=life.stop,
            slots=settings.slots,
            idle_exit=settings.idle_exit_seconds,
            settings=settings.consumer,
        )
    if model.broken is not None:
        raise model.broken  # a non-zero exit code: Batch and the dispatcher count it as a failed worker


if __name__ == "__main__":
    sys.exit(run_service("inferencer", InferencerSettings, main, "Finds fuse neutrals in accepted images."))
