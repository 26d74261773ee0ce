"""One worker as a process for the scale benchmark: the usual script with a fixed share, or ours on the queue.

    python scale_workers.py stride LOG MODEL_MS SLOWER PREFIX SHARE WORKERS
    python scale_workers.py queue LOG MODEL_MS SLOWER

Both convert with the same code. MODEL_MS for each megapixel are slept after a conversion, as a model beside the cores
would take; SLOWER (1: not) multiplies all that an image takes. Each says `ready` when it could begin. LOG gets a JSON
line when an image is begun and one when its outputs are stored.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

SUPPLIER = "bench"


class Diary:
    """What one worker did; written at once, so that a killed one has left it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)

    def begun(self, image: str) -> None:
        self._file.write(json.dumps({"image": image, "begun": time.time()}) + "\n")

    def done(self, image: str) -> None:
        self._file.write(json.dumps({"image": image, "done": time.time()}) + "\n")

    def worked(self, seconds: float) -> None:
        """So long this worker was busy with one image, at its own pace."""
        self._file.write(json.dumps({"worked": seconds}) + "\n")


def slowed(model_ms: float, slower: float, diary: Diary) -> Any:
    """The real conversion, then the model's sleep, then what a slower machine would have taken more."""
    from fusebus.convert import conversion

    plain = conversion.convert

    def convert(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        made = plain(*arguments, **named)
        time.sleep(model_ms * made.width * made.height / 1e9)
        taken = time.perf_counter() - began
        time.sleep(taken * (slower - 1))
        diary.worked(taken * slower)
        return made

    return convert


def ready() -> None:
    """Say so, once."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def stride(convert: Any, diary: Diary, prefix: str, share: int, workers: int) -> int:
    """The usual script: list everything, take each Nth, download, convert, upload."""
    from azure.storage.blob import BlobServiceClient

    from fusebus.blobs import layout
    from fusebus.convert import Target

    with BlobServiceClient.from_connection_string(os.environ["FUSEBUS_BLOBS_CONNECTION"]) as client:
        source = client.get_container_client(layout.supplier_container(SUPPLIER))
        results = client.get_container_client(layout.RESULTS)
        names = sorted(blob.name for blob in source.list_blobs())
        ready()
        sys.stdin.readline()
        for name in names[share::workers]:
            diary.begun(name)
            data = source.download_blob(name).readall()
            results.upload_blob(prefix + name + ".png", convert(data, Target()).data, overwrite=True)
            diary.done(name)
    return 0


def queue(convert: Any, diary: Diary) -> int:
    """`python -m fusebus.convert`, observed."""
    from fusebus.bus import link
    from fusebus.convert import __main__ as service
    from fusebus.convert import handler
    from fusebus.host import run_service

    handler.convert = convert
    plain_open, plain_call = link.ReceiveLink.open, handler.Convert.__call__
    opened: list[bool] = []

    async def observed_open(self: Any) -> None:
        await plain_open(self)
        if not opened:
            opened.append(True)
            ready()

    async def observed_call(self: Any, work: Any, context: Any) -> Any:
        diary.begun(work.blob.name)
        outcome = await plain_call(self, work, context)
        diary.done(work.blob.name)
        return outcome

    link.ReceiveLink.open = observed_open  # type: ignore[method-assign]
    handler.Convert.__call__ = observed_call  # type: ignore[method-assign]
    return run_service("convert", service.ConvertSettings, service.main)


def main() -> int:
    kind, path, model_ms, slower, *rest = sys.argv[1:]
    diary = Diary(Path(path))
    convert = slowed(float(model_ms), float(slower), diary)
    sys.argv = sys.argv[:1]
    if kind == "queue":
        return queue(convert, diary)
    prefix, share, workers = rest
    return stride(convert, diary, prefix, int(share), int(workers))


if __name__ == "__main__":
    sys.exit(main())
