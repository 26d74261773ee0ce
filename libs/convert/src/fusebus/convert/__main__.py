"""`python -m fusebus.convert`: settings, real adapters, and conversions until stopped or idle."""

from __future__ import annotations

import os
import socket
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

from fusebus.blobs import Blobs
from fusebus.bus import Bus
from fusebus.contracts.messages import JobKind
from fusebus.contracts.topology import image_subscriptions
from fusebus.convert.conversion import Target
from fusebus.convert.handler import Convert
from fusebus.convert.memory import Bench, keep_freed_memory
from fusebus.convert.settings import ConvertSettings
from fusebus.host import Life, run_service


async def main(settings: ConvertSettings, life: Life) -> None:
    """Serve `convert` until SIGTERM, or until nothing came for `idle_exit_seconds`."""
    warnings.filterwarnings("ignore", module="PIL")  # of odd metadata, which is left behind anyway
    keep_freed_memory()
    threads = settings.threads or os.cpu_count() or 1
    with ThreadPoolExecutor(threads, thread_name_prefix="codec") as codecs:
        async with Bus(settings.bus) as bus, Blobs(settings.blobs) as blobs:
            handler = Convert(
                store=blobs,
                threads=codecs,
                bench=Bench(threads, settings.memory_megabytes << 20, files_share=0),  # slots bound the files
                target=Target(format=settings.format, small=settings.small),
                worker=f"{os.environ.get('AZ_BATCH_NODE_ID') or socket.gethostname()}/{os.getpid()}",
                retry_seconds=settings.retry_seconds,
            )
            life.health.liveness("bus", bus.is_alive)
            life.health.ready = True
            await bus.consume_lanes(
                "images",
                image_subscriptions(JobKind.CONVERT),
                handler,
                stop=life.stop,
                slots=settings.slots,
                idle_exit=settings.idle_exit_seconds,
                settings=settings.consumer,
            )


if __name__ == "__main__":
    sys.exit(run_service("convert", ConvertSettings, main, "Converts accepted images to lossless files."))
