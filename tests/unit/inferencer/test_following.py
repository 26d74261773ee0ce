import hashlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

from fusebus.blobs import StorageUnavailable
from fusebus.bus import PublishFailed
from fusebus.contracts.envelope import Envelope
from fusebus.contracts.messages import ModelChanged, ModelRefused
from fusebus.contracts.outcomes import Outgoing
from fusebus.inferencer.backends import Outputs
from fusebus.inferencer.following import Follower, NoModel
from fusebus.inferencer.guard import ModelRefusal
from fusebus.inferencer.model import ModelBroken, ModelThread
from fusebus.inferencer.serving import Served, Serving
from fusebus.models import load_manifest
from fusebus.models.live import Change, Live, LiveModel, promoted, rolled_back
from fusebus.vision import DEMO_MODEL

NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
PICTURE = np.zeros((8, 8, 3), np.uint8)
IMAGES = [hashlib.sha256(str(number).encode()).hexdigest()[:32] for number in range(2000)]


class World:
    """A registry, a bus and models that load at once, or not at all."""

    def __init__(self) -> None:
        self.document = Live()
        self.unfit: dict[str, ModelRefusal] = {}
        self.breaks: set[str] = set()
        self.down = False
        self.deaf = False
        self.loads: list[str] = []
        self.said: list[Any] = []
        self.changes = 0

    async def live(self) -> Live | None:
        if self.down:
            raise StorageUnavailable("503")
        return self.document if self.document.history else None

    def promote(self, version: str, percent: float | None = None) -> None:
        model = LiveModel(name="m", version=version, manifest_sha256=hashlib.sha256(version.encode()).hexdigest())
        self._change(promoted(self.document, model, percent, self._by()))

    def roll_back(self) -> None:
        self._change(rolled_back(self.document, self._by()))

    def _by(self) -> Change:
        self.changes += 1
        when = NOW + timedelta(minutes=self.changes)
        return Change(id=str(self.changes), who="ops", when=when, why="", action="", before="", after="")

    def _change(self, document: Live) -> None:
        self.document = msgspec.structs.replace(document, etag=f"0x{self.changes}")

    async def load(self, model: LiveModel) -> Served:
        self.loads.append(model.version)
        if model.version in self.unfit:
            raise self.unfit[model.version]
        return await self.served(model.version, model.manifest_sha256)

    async def served(self, version: str, digest: str) -> Served:
        def run(images: np.ndarray) -> Outputs:
            if version in self.breaks:
                raise RuntimeError("out of memory")
            count = len(images)
            boxes, masks = np.zeros((count, 1, 4), np.float32), np.zeros((count, 1, 4, 4), np.uint8)
            return Outputs(np.zeros((count, 1), np.float32), boxes, masks, np.zeros((count, 1), np.int64))

        thread = ModelThread(type("Model", (), {"run": staticmethod(run)}), max_batch=4)
        await thread.open()
        manifest = msgspec.structs.replace(load_manifest(DEMO_MODEL), name="m", version=version)
        return Served(manifest=manifest, manifest_sha256=digest, thread=thread)

    async def publish(self, outgoing: Sequence[Outgoing]) -> None:
        if self.deaf:
            raise PublishFailed("topic fleet")
        self.said += [found.message for found in outgoing]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    async with Serving(lambda: None) as opened:
        yield opened


@pytest.fixture
def follower(world: World, serving: Serving) -> Follower:
    return Follower(
        registry=world,
        serving=serving,
        load=world.load,
        open_own=lambda: world.served("own", "own"),
        publish=world.publish,
        worker="node-1/42",
        now=lambda: NOW,
    )


def versions(serving: Serving) -> tuple[str | None, str | None]:
    return tuple(served.manifest.version if served else None for served in (serving.current, serving.canary))


async def test_until_the_first_promotion_the_model_of_the_settings_serves(
    world: World, follower: Follower, serving: Serving
) -> None:
    await follower.start()
    assert versions(serving) == ("own", None)
    await follower.look()
    world.promote("1")
    await follower.look()
    assert versions(serving) == ("1", None)
    assert world.said == [
        ModelChanged(previous="m@own", current="m@1", changed_by="ops", changed_at=NOW + timedelta(minutes=1))
    ]


async def test_a_document_that_did_not_change_costs_nothing(world: World, follower: Follower, serving: Serving) -> None:
    world.promote("1")
    await follower.start()
    for _ in range(5):
        await follower.look()
    assert world.loads == ["1"]
    assert world.said == [], "a worker that starts changes nothing"


async def test_promotion_and_rollback_switch_and_are_reported(
    world: World, follower: Follower, serving: Serving
) -> None:
    world.promote("1")
    await follower.start()
    world.promote("2")
    await follower.look()
    assert versions(serving) == ("2", None)
    world.roll_back()
    await follower.look()
    assert versions(serving) == ("1", None)
    assert [(said.previous, said.current) for said in world.said] == [("m@1", "m@2"), ("m@2", "m@1")]


async def test_every_worker_reports_a_promotion_under_one_message_id(world: World, follower: Follower) -> None:
    world.promote("1")
    async with Serving(lambda: None) as second_serving:
        second = Follower(
            registry=world,
            serving=second_serving,
            load=world.load,
            open_own=lambda: world.served("own", "own"),
            publish=world.publish,
            worker="node-2/42",
            now=lambda: NOW + timedelta(seconds=7),
        )
        for one in (follower, second):
            await one.start()
        world.promote("2")
        for one in (follower, second):
            await one.look()
    assert len(world.said) == 2
    assert len({Envelope(message=said).message_id for said in world.said}) == 1, "duplicate detection keeps one"


async def test_a_bad_version_is_refused_reported_once_and_never_tried_again(
    world: World, follower: Follower, serving: Serving
) -> None:
    world.promote("1")
    await follower.start()
    world.unfit["2"] = ModelRefusal("time_out", "was not loaded and warm within 300 s")
    world.promote("2")
    for _ in range(3):
        await follower.look()
    world.promote("1")
    await follower.look()
    world.promote("2")
    await follower.look()
    assert versions(serving) == ("1", None)
    assert world.loads == ["1", "2"]
    assert world.said == [
        ModelRefused(
            model="m@2",
            serving="m@1",
            reason="time_out",
            description="was not loaded and warm within 300 s",
            worker="node-1/42",
            refused_at=NOW,
        )
    ]


async def test_a_start_under_a_bad_version_falls_back_to_the_one_before_and_says_so(
    world: World, follower: Follower, serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    for version in ("1", "2", "3", "4"):
        world.promote(version)
    world.unfit = {version: ModelRefusal("files", f"{version} is altered") for version in ("4", "3")}
    await follower.start()
    assert versions(serving) == ("2", None)
    assert [(said.model, said.serving) for said in world.said] == [("m@4", "m@2"), ("m@3", "m@2")]
    assert "m@4 can't serve, m@2 from before it does in its place" in caplog.text
    await follower.look()
    assert world.loads == ["4", "3", "2"]


async def test_a_start_under_a_first_version_that_is_bad_serves_what_the_settings_name(
    world: World, follower: Follower, serving: Serving
) -> None:
    world.promote("1")
    world.unfit["1"] = ModelRefusal("graph", "op Loop")
    await follower.start()
    assert versions(serving) == ("own", None)
    assert [(said.model, said.serving) for said in world.said] == [("m@1", "m@own")]


async def test_a_start_without_any_version_that_is_fit_says_so_and_fails(
    world: World, follower: Follower, serving: Serving
) -> None:
    world.promote("1")
    world.promote("2")
    world.unfit = {version: ModelRefusal("memory", f"{version} is large") for version in ("1", "2")}
    with pytest.raises(NoModel, match=r"neither m@2 nor any version before it.*2 is large.*1 is large"):
        await follower.start()
    assert [(said.model, said.serving) for said in world.said] == [("m@2", ""), ("m@1", "")]
    assert serving.current is None


@pytest.mark.parametrize(("percent", "least", "most"), [(10, 160, 240), (50, 910, 1090)])
async def test_a_canary_gets_its_share_of_images_and_always_the_same_ones(
    world: World, follower: Follower, serving: Serving, percent: float, least: int, most: int
) -> None:
    world.promote("1")
    await follower.start()
    world.promote("2", percent)
    await follower.look()

    def seen_by_canary() -> list[str]:
        chosen = []
        for image in IMAGES:
            with serving.lease(image) as model:
                chosen += [image] if model.manifest.version == "2" else []
        return chosen

    first = seen_by_canary()
    assert least <= len(first) <= most  # four standard deviations
    assert seen_by_canary() == first
    world.promote("2", 60)
    await follower.look()
    assert set(first) <= set(seen_by_canary()), "a share that is raised keeps its images"
    assert world.loads == ["1", "2"]


async def test_a_canary_that_is_promoted_is_not_loaded_again_and_one_that_ends_is_closed(
    world: World, follower: Follower, serving: Serving
) -> None:
    world.promote("1")
    await follower.start()
    world.promote("2", 10)
    await follower.look()
    assert versions(serving) == ("1", "2")
    world.promote("2")
    await follower.look()
    assert versions(serving) == ("2", None)
    world.promote("3", 10)
    await follower.look()
    world.roll_back()  # ends the canary
    await follower.look()
    assert versions(serving) == ("2", None)
    assert world.loads == ["1", "2", "3"]


async def test_a_worker_that_starts_during_a_canary_loads_both(
    world: World, follower: Follower, serving: Serving
) -> None:
    world.promote("1")
    world.promote("2", 10)
    await follower.start()
    assert versions(serving) == ("1", "2")


async def test_a_bad_canary_is_refused_and_all_images_go_to_the_other(
    world: World, follower: Follower, serving: Serving
) -> None:
    world.promote("1")
    await follower.start()
    world.unfit["2"] = ModelRefusal("outputs", "scores is float64")
    world.promote("2", 50)
    await follower.look()
    assert versions(serving) == ("1", None)
    assert [(said.model, said.serving, said.reason) for said in world.said] == [("m@2", "m@1", "outputs")]


async def test_a_canary_that_breaks_in_service_is_reported_and_not_taken_again(
    world: World, follower: Follower, serving: Serving
) -> None:
    world.promote("1")
    await follower.start()
    world.breaks.add("2")
    world.promote("2", 50)
    await follower.look()
    broken = 0
    for image in IMAGES[:20]:
        try:
            with serving.lease(image) as model:
                await model.detect(PICTURE)
        except ModelBroken:
            broken += 1
    assert broken == 1, "taken out at once, the next image already goes to the other"
    await follower.look()
    world.promote("2")
    await follower.look()
    assert versions(serving) == ("1", None)
    assert [(said.model, said.reason) for said in world.said] == [("m@2", "broken")]


async def test_what_the_bus_does_not_take_is_said_at_the_next_look(
    world: World, follower: Follower, serving: Serving
) -> None:
    world.promote("1")
    await follower.start()
    world.deaf = True
    world.promote("2")
    await follower.look()
    assert versions(serving) == ("2", None)
    world.deaf = False
    await follower.look()
    await follower.look()
    assert [said.current for said in world.said] == ["m@2"]


async def test_storage_that_does_not_answer_while_a_version_loads_is_no_refusal(
    world: World, follower: Follower, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.promote("1")
    await follower.start()
    world.promote("2")

    async def silent(_: object) -> Served:
        raise StorageUnavailable("503")

    with monkeypatch.context() as patch:
        patch.setattr(follower, "load", silent)
        with pytest.raises(StorageUnavailable):
            await follower.look()
    assert versions(serving) == ("1", None)
    await follower.look()
    assert versions(serving) == ("2", None)
    assert [type(said) for said in world.said] == [ModelChanged]
