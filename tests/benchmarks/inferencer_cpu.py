"""CPU time inside one process: a photograph through the codecs, and the stages with nothing to do in them."""

from __future__ import annotations

import asyncio
import hashlib
import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import numpy as np

from fusebus.blobs import layout
from fusebus.bus import Context
from fusebus.contracts.envelope import Envelope
from fusebus.contracts.identity import image_id, run_id, upload_id
from fusebus.contracts.messages import BlobReference, ImageAccepted, JobKind, Lane
from fusebus.inferencer import handler
from fusebus.inferencer.backends import Outputs
from fusebus.inferencer.codecs import Codecs, Prepared, Rendered, prepare, render
from fusebus.inferencer.event_loop import new_loop
from fusebus.inferencer.model import ModelThread
from fusebus.inferencer.serving import Served, Serving
from fusebus.inferencer.spare import Spare
from fusebus.models import load_manifest
from fusebus.vision import DEMO_MODEL

EIGHT_MEGAPIXELS = 8_000_000  # the service's default for the annotated picture


class Case(NamedTuple):
    """How a photograph is analysed: the model's edge and outputs, and the most pixels of the annotated picture (0: its
    own)."""

    edge: int
    outputs: Outputs
    most_pixels: int


def photograph(data: bytes, cases: Sequence[Case], runs: int) -> list[float]:
    """Median CPU milliseconds from the bytes to the annotated JPEG as in the service, digest check included; of each
    case, interleaved, so that a noisy moment meets all of them."""
    demo, sha256, spare = load_manifest(DEMO_MODEL), hashlib.sha256(data).hexdigest(), Spare(1)
    manifests = [msgspec.structs.replace(demo, image_size=case.edge) for case in cases]
    taken: list[list[float]] = [[] for _ in cases]
    for _ in range(runs + 1):
        for case, manifest, seconds in zip(cases, manifests, taken, strict=True):
            before = time.process_time()
            prepared = prepare(data, sha256, case.edge, case.most_pixels, spare)
            render(prepared, case.outputs, manifest, 90, spare)
            seconds.append(time.process_time() - before)
    return [statistics.median(seconds[1:]) * 1000 for seconds in taken]  # the first one warms up


class _Nothing:
    """Storage and a model that cost nothing."""

    empty = Outputs(
        np.zeros((1, 1), np.float32), np.zeros((1, 1, 4), np.float32), np.zeros((1, 1, 1, 1), np.uint8),
        np.zeros((1, 1), np.int64),
    )  # fmt: skip
    picture = np.zeros((1, 1, 3), np.uint8)

    async def read(self, *_: object, **__: object) -> bytes:
        return b""

    async def write(self, *_: object, **__: object) -> None:
        return None

    def run(self, images: np.ndarray) -> Outputs:
        return Outputs(*(np.repeat(one, len(images), 0) for one in self.empty))


def orchestration(images: int, held: int = 24) -> float:
    """CPU milliseconds an image of all that is between the stages' work: places, order, threads, timings, the final."""
    plain = handler.prepare, handler.render
    prepared, rendered = Prepared(_Nothing.picture, 1, 1, _Nothing.picture, _Nothing.picture), Rendered([], b"")
    handler.prepare, handler.render = lambda *_: prepared, lambda *_: rendered
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:  # as the service does
            return runner.run(_orchestration(images, held))
    finally:
        handler.prepare, handler.render = plain


async def _orchestration(images: int, held: int) -> float:
    work = _accepted()
    context, numbers = Context(envelope=Envelope(message=work)), iter(range(images))
    async with Serving(lambda: None) as serving, Codecs(2) as codecs:
        thread = ModelThread(_Nothing, max_batch=4)
        await thread.open()
        serving.switch(Served(manifest=load_manifest(DEMO_MODEL), manifest_sha256="1", thread=thread))
        nothing: Any = _Nothing()
        detect = handler.Detect(store=nothing, models=serving, codecs=codecs, worker="bench")

        async def slot() -> None:
            for _ in numbers:
                await detect(work, context)

        await detect(work, context)
        before = time.process_time()
        await asyncio.gather(*(slot() for _ in range(held)))
        return (time.process_time() - before) / images * 1000


def _accepted() -> ImageAccepted:
    now, sha256 = datetime.now(UTC), hashlib.sha256(b"").hexdigest()
    upload = upload_id("in-bench", "a.jpg", "0x1")
    return ImageAccepted(
        upload_id=upload,
        run_id=run_id("bench", now, upload),
        supplier="bench",
        image_id=image_id("bench", sha256),
        job_kind=JobKind.DETECT,
        lane=Lane.NORMAL,
        deadline=now,
        blob=BlobReference(
            container=layout.supplier_container("bench"), name="a.jpg", etag="0x1", sha256=sha256, size=0
        ),
        width=1,
        height=1,
        format="jpeg",
        accepted_at=now,
    )
