import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import numpy as np
import pytest

from fusebus.host import log_fields
from fusebus.host.logs import JsonFormatter
from fusebus.inferencer.backends import Outputs
from fusebus.inferencer.model import ModelBroken, ModelThread, NotServed
from fusebus.inferencer.serving import Served, Serving
from fusebus.models import load_manifest
from fusebus.vision import DEMO_MODEL

PICTURE = np.zeros((8, 8, 3), np.uint8)
Open = Callable[..., Awaitable[Served]]


class Numbered:
    """A model whose score is its number; it fails where that is above 1, and waits for `go`."""

    def __init__(self, number: float) -> None:
        self.number = number
        self.go = threading.Event()
        self.go.set()

    def run(self, images: np.ndarray) -> Outputs:
        assert self.go.wait(10)
        if self.number > 1:
            raise RuntimeError("out of memory")
        count = len(images)
        scores = np.full((count, 1), self.number, np.float32)
        boxes, masks = np.zeros((count, 1, 4), np.float32), np.zeros((count, 1, 4, 4), np.uint8)
        return Outputs(scores, boxes, masks, np.zeros((count, 1), np.int64))


@pytest.fixture
def stopped() -> list[bool]:
    return []


@pytest.fixture
async def serving(stopped: list[bool]) -> AsyncIterator[Serving]:
    async with Serving(lambda: stopped.append(True)) as opened:
        yield opened


class Ended:
    """Which versions are closed."""

    def __init__(self) -> None:
        self.served: list[Served] = []

    @property
    def refs(self) -> list[str]:
        return [served.ref for served in self.served if not served.thread.is_alive()]


@pytest.fixture
def ended() -> Ended:
    return Ended()


@pytest.fixture
def opened(ended: Ended) -> Open:
    async def made(version: str, backend: Numbered) -> Served:
        manifest = msgspec.structs.replace(load_manifest(DEMO_MODEL), name="m", version=version)
        thread = ModelThread(lambda: backend, max_batch=4)
        await thread.open()
        ended.served.append(Served(manifest=manifest, manifest_sha256=version, thread=thread))
        return ended.served[-1]

    return made


async def score(serving: Serving, image_id: str = "image") -> float:
    with serving.lease(image_id) as model:
        return round(float((await model.detect(PICTURE)).outputs.scores[0]), 3)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_images_go_to_the_version_that_was_switched_to(serving: Serving, opened: Open) -> None:
    serving.switch(await opened("1", Numbered(0.1)))
    assert await score(serving) == 0.1
    serving.switch(await opened("2", Numbered(0.2)))
    assert await score(serving) == 0.2


async def test_an_image_that_names_its_version_goes_to_no_other(serving: Serving, opened: Open) -> None:
    serving.switch(await opened("1", Numbered(0.1)), await opened("2", Numbered(0.2)))
    for wanted, expected in (("m@1", 0.1), ("m@2", 0.2)):
        with serving.lease("image", wanted) as model:
            assert round(float((await model.detect(PICTURE)).outputs.scores[0]), 3) == expected
    with pytest.raises(NotServed, match="m@3"), serving.lease("image", "m@3"):
        raise AssertionError("nothing may be done with it")


async def test_the_old_version_answers_its_last_image_before_it_is_closed(
    serving: Serving, opened: Open, ended: Ended
) -> None:
    old = Numbered(0.1)
    served = await opened("1", old)
    serving.switch(served)
    old.go.clear()
    with serving.lease("still being decoded") as model:
        queued = asyncio.create_task(score(serving))
        await asyncio.sleep(0)
        serving.switch(await opened("2", Numbered(0.2)))
        assert await score(serving) == 0.2, "new images don't wait for old ones"
        assert served.thread.is_alive()
        old.go.set()
        assert await queued == 0.1
        await asyncio.sleep(0.05)
        assert served.thread.is_alive(), "an image that took the old version is still on its way to it"
        assert round(float((await model.detect(PICTURE)).outputs.scores[0]), 3) == 0.1
    await eventually(lambda: ended.refs == ["m@1"])
    assert not served.thread.is_alive()


async def test_a_switch_back_finds_the_old_version_while_its_last_image_runs(
    serving: Serving, opened: Open, ended: Ended
) -> None:
    old = await opened("1", Numbered(0.1))
    serving.switch(old)
    with serving.lease("image"):
        serving.switch(await opened("2", Numbered(0.2)))
        assert serving.loaded("1") is old
        serving.switch(old)
    assert await score(serving) == 0.1
    await eventually(lambda: ended.refs == ["m@2"])
    assert serving.loaded("2") is None


async def test_no_image_is_dropped_by_a_hundred_switches(serving: Serving, opened: Open, ended: Ended) -> None:
    serving.switch(await opened("0", Numbered(0.0)))
    asked: list[asyncio.Task[float]] = []
    for version in range(1, 101):
        asked += [asyncio.create_task(score(serving)) for _ in range(5)]
        await asyncio.sleep(0)
        serving.switch(await opened(str(version), Numbered(version / 1000)))
    answers = await asyncio.gather(*asked)
    assert len(answers) == 500
    assert answers == sorted(answers), "an image that came later never sees an older version"
    await eventually(lambda: len(ended.refs) == 100)


async def test_a_canary_gets_the_images_that_are_chosen_for_it(serving: Serving, opened: Open) -> None:
    canary = await opened("2", Numbered(0.2))
    serving.switch(await opened("1", Numbered(0.1)), canary, lambda image: "m@2" if image < "3" else "m@1")
    assert [await score(serving, str(image)) for image in range(5)] == [0.2, 0.2, 0.2, 0.1, 0.1]


async def test_a_canary_that_breaks_is_taken_out_and_its_images_come_to_the_other(
    serving: Serving, opened: Open, stopped: list[bool], ended: Ended
) -> None:
    told: list[str] = []
    serving.on_broken = lambda served, error: told.append(f"{served.ref} {error}")
    serving.switch(await opened("1", Numbered(0.1)), await opened("2", Numbered(13)), lambda _: "m@2")
    with pytest.raises(ModelBroken, match="out of memory"):
        await score(serving)
    assert told == ["m@2 the model call failed: out of memory"]
    assert await score(serving) == 0.1
    assert stopped == []
    await eventually(lambda: ended.refs == ["m@2"])


async def test_a_current_version_that_breaks_ends_the_worker(
    serving: Serving, opened: Open, stopped: list[bool]
) -> None:
    serving.switch(await opened("1", Numbered(13)))
    with pytest.raises(ModelBroken):
        await score(serving)
    assert stopped == [True]
    assert serving.broken is not None


async def test_the_end_closes_every_version(opened: Open, ended: Ended) -> None:
    async with Serving(lambda: None) as serving:
        serving.switch(await opened("1", Numbered(0.1)), await opened("2", Numbered(0.2)))
        assert serving.is_alive()
    assert sorted(ended.refs) == ["m@1", "m@2"]


async def test_the_end_of_a_version_is_not_told_as_part_of_its_last_image(
    serving: Serving, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.setFormatter(JsonFormatter("inferencer"))
    caplog.set_level(logging.INFO)
    serving.switch(await opened("1", Numbered(0.1)))
    with log_fields(upload="u1"), serving.lease("image"):
        serving.switch(await opened("2", Numbered(0.2)))
    await eventually(lambda: "m@1 is closed" in caplog.text)
    (line,) = (line for line in caplog.text.splitlines() if "is closed" in line)
    assert "u1" not in line
