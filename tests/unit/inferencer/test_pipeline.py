"""Many images at once through the handler: order, back-pressure, and failures that stay alone."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from fusebus.contracts.messages import ImageAnalysed, ImageFailed, Lane
from fusebus.contracts.outcomes import Abandon, Done
from fusebus.inferencer.backends import Outputs
from fusebus.inferencer.codecs import Codecs
from fusebus.inferencer.handler import Detect
from fusebus.inferencer.model import ModelThread
from fusebus.inferencer.serving import Served, Serving
from fusebus.inferencer.stages import Places, Stages
from fusebus.models import load_manifest
from fusebus.vision import DEMO_MODEL, encode_jpeg
from fusebus.vision.boards import draw_board

Accept = Callable[..., Any]
DARK = 40  # mean below which Fragile can't bear a picture


class Fragile:
    """A model that can't bear dark pictures, nor more than two at once."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, images: np.ndarray) -> Outputs:
        self.batches.append(len(images))
        if len(images) > 2:
            raise RuntimeError("BFCArena: Failed to allocate memory for requested buffer")
        if any(0 < image.mean() < DARK for image in images):
            raise RuntimeError("Non-zero status code")
        count = len(images)
        scores = np.full((count, 1), 0.9, np.float32)
        boxes = np.tile(np.array([0.1, 0.1, 0.4, 0.4], np.float32), (count, 1, 1))
        masks = np.zeros((count, 1, 64, 64), np.uint8)
        masks[:, :, 8:24, 8:24] = 255
        return Outputs(scores, boxes, masks, np.zeros((count, 1), np.int64))


@pytest.fixture
async def fragile(store: Any) -> AsyncIterator[Detect]:
    async with Serving(lambda: None) as serving, Codecs(2) as codecs:
        thread = ModelThread(Fragile, max_batch=8)
        await thread.open()
        manifest = load_manifest(DEMO_MODEL)
        serving.switch(Served(manifest=manifest, manifest_sha256="1", thread=thread))
        yield Detect(store=store, models=serving, codecs=codecs, worker="w", stages=Stages(Places(model=16)))


def picture(seed: int, dark: bool = False) -> bytes:
    pixels = draw_board(seed, (320, 240)).image
    return encode_jpeg(pixels // 16 if dark else pixels)


async def test_one_images_failure_never_touches_its_neighbours(
    fragile: Detect, accept: Accept, store: Any, context_of: Any
) -> None:
    works = []
    for number in range(24):
        data = picture(number, dark=number == 7)
        works.append(accept(data[: len(data) // 2] if number % 10 == 3 else data, f"{number}.jpg"))
    del store.content["in-north", "11.jpg"]
    found = await asyncio.gather(*(fragile(work, context_of(work)) for work in works))
    ended = {}
    for number, outcome in enumerate(found):
        assert isinstance(outcome, Done), outcome
        ended[number] = type(outcome.publish[0].message).__name__
    assert found[7].publish[0].message.reason == "model_failed"  # at once: to try it again would not help
    assert {number for number, name in ended.items() if name == "ImageFailed"} == {3, 7, 13, 23}
    assert [number for number, name in ended.items() if name == "ImageRejected"] == [11]
    assert sum(name == "ImageAnalysed" for name in ended.values()) == 19
    assert [stage.inside for stage in fragile.stages] == [0] * 5


async def test_urgent_images_overtake_those_that_are_held(
    fragile: Detect, accept: Accept, store: Any, context_of: Any
) -> None:
    order: list[str] = []
    plain = store.read

    async def read(container: str, name: str, **options: Any) -> bytes:
        order.append(name)
        await asyncio.sleep(0)
        return await plain(container, name, **options)

    store.read = read
    slow = Stages(Places(downloads=1, decoding=1))
    detect = Detect(store=store, models=fragile.models, codecs=fragile.codecs, worker="w", stages=slow)
    now = datetime.now(UTC)
    works = []
    for number, (lane, hours) in enumerate(
        [(Lane.BULK, 1), (Lane.BULK, 1), (Lane.NORMAL, 5), (Lane.NORMAL, 2), (Lane.URGENT, 9)]
    ):
        work = accept(picture(number), f"{number}")
        works.append(msgspec.structs.replace(work, lane=lane, deadline=now + timedelta(hours=hours)))
    await asyncio.gather(*(detect(work, context_of(work)) for work in works))
    assert order == ["0", "4", "3", "2", "1"], "the first was alone when it came"


async def test_a_stop_gives_back_what_is_not_begun_and_finishes_what_is(
    fragile: Detect, accept: Accept, store: Any, context_of: Any
) -> None:
    go_on, plain = asyncio.Event(), store.read

    async def read(*names: str, **options: Any) -> bytes:
        await go_on.wait()
        return await plain(*names, **options)

    store.read = read
    works = [accept(picture(number), f"{number}") for number in range(12)]
    tasks = [asyncio.create_task(fragile(work, context_of(work))) for work in works]
    await asyncio.sleep(0.01)
    fragile.stages.close()
    go_on.set()
    outcomes = await asyncio.gather(*tasks)
    assert [type(outcome) for outcome in outcomes] == [Done] * 8 + [Abandon] * 4


async def test_an_image_whose_turn_does_not_come_is_given_back_uncounted(
    fragile: Detect, accept: Accept, store: Any, context_of: Any
) -> None:
    slow = Stages(Places(downloads=1))
    patient = {"store": store, "models": fragile.models, "codecs": fragile.codecs, "worker": "w"}
    detect = Detect(**patient, stages=slow, patience_seconds=0.05)
    assert slow.download.take(), "by more urgent ones, all the time"
    work = accept(picture(0), "0")
    outcome = await detect(work, context_of(work))
    assert isinstance(outcome, Abandon)
    slow.download.leave()
    assert isinstance(await detect(work, context_of(work)), Done), "nothing is left of the first try"


async def test_a_large_picture_is_annotated_reduced_and_its_result_is_of_the_whole(
    fragile: Detect, accept: Accept, store: Any, context_of: Any
) -> None:
    work = accept(encode_jpeg(draw_board(3, (1000, 800)).image))
    whole = Detect(store=store, models=fragile.models, codecs=fragile.codecs, worker="w")
    reduced = Detect(store=store, models=fragile.models, codecs=fragile.codecs, worker="w", annotated_pixels=300_000)
    found = []
    for detect, size in ((whole, (1000, 800)), (reduced, (500, 400))):
        final = (await detect(work, context_of(work))).publish[0].message  # type: ignore[union-attr]
        assert isinstance(final, ImageAnalysed)
        with Image.open(io.BytesIO(store.content["results", final.annotated.name][1])) as annotated:
            assert annotated.size == size
        found.append(msgspec.json.decode(store.content["results", final.result.name][1]))
    assert found[0] == found[1]
    assert (found[1]["width"], found[1]["height"]) == (1000, 800)
    assert found[1]["detections"][0]["box"] == pytest.approx([100, 80, 400, 320], abs=0.2)


async def test_a_damaged_image_costs_the_model_nothing(fragile: Detect, accept: Accept, context_of: Any) -> None:
    work = accept(picture(1)[:-40])
    outcome = await fragile(work, context_of(work))
    assert isinstance(outcome, Done)
    assert isinstance(outcome.publish[0].message, ImageFailed)
    assert fragile.pace.times is None, "and teaches nothing about what images take"
