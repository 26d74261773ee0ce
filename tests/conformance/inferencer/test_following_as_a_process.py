"""The inferencer as a process on a real broker, while what is live changes."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from model_variants import scores_above_1, slow

from fusebus.blobs import BlobSettings
from fusebus.bus import Bus, BusSettings, Context
from fusebus.contracts.messages import ImageAccepted, ImageAnalysed, Message, ModelChanged, ModelRefused
from fusebus.contracts.outcomes import Outcome, Outgoing, done
from fusebus.contracts.topology import broker_configuration
from fusebus.host import Secret
from fusebus.host.settings import environment_of
from fusebus.models.registry import Registry
from fusebus.models.settings import RegistrySettings
from fusebus.vision import encode_jpeg
from fusebus.vision.boards import draw_board

pytestmark = pytest.mark.long


def photo(seed: int) -> bytes:
    return encode_jpeg(draw_board(seed, (400, 300)).image)


@pytest.fixture
def bus_settings(start_broker: Any) -> BusSettings:
    broker = start_broker(broker_configuration())
    return BusSettings(connection=Secret(broker.connection_string), ca_file=str(broker.ca_path))


@pytest.fixture
def environment(bus_settings: BusSettings, blob_settings: BlobSettings, models: RegistrySettings) -> dict[str, str]:
    own = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    services = environment_of(bus_settings, "bus") | environment_of(blob_settings, "blobs")
    return {
        **own,
        **services,
        **environment_of(models, "models"),
        "FUSEBUS_INFERENCER_FOLLOW_REGISTRY": "true",
        "FUSEBUS_INFERENCER_IDLE_EXIT_SECONDS": "3",
    }


class Listener:
    """Collects what is published on results and fleet."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._stop = asyncio.Event()
        self.finals: list[ImageAnalysed] = []
        self.fleet: list[Message] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Listener":
        for topic in ("results", "fleet"):
            consuming = self._bus.consume(topic, "notifier", self._take, stop=self._stop)
            self._tasks.append(asyncio.create_task(consuming))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def _take(self, message: Any, context: Context) -> Outcome:
        (self.finals if isinstance(message, ImageAnalysed) else self.fleet).append(message)
        return done()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(120):
            while not condition():
                await asyncio.sleep(0.05)


@pytest.mark.timeout(240)  # three models are tried, one after the other
async def test_a_promotion_in_the_middle_of_a_stream_drops_no_image_and_switches_the_version(
    environment: dict[str, str],
    bus_settings: BusSettings,
    registry: Registry,
    push: Any,
    upload: Any,
    tmp_path: Path,
) -> None:
    old, new, bad = await push("1"), await push("2"), await push("3", scores_above_1)
    await registry.promote(old, "tests", "")
    works = [await upload(photo(seed), f"{seed}.jpg") for seed in range(24)]
    log = tmp_path / "log"
    async with Bus(bus_settings) as bus, Listener(bus) as listener:
        with log.open("wb") as errors:
            worker = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "fusebus.inferencer", env=environment, stderr=errors
            )
        feeding = asyncio.create_task(feed(bus, works, listener))
        await listener.until(lambda: len(listener.finals) >= 3)
        await registry.promote(new, "ada", "")
        await listener.until(lambda: any(final.model == new for final in listener.finals))
        await registry.promote(bad, "bob", "")
        await listener.until(lambda: len(listener.fleet) >= 2)
        listener.enough = True
        sent = await feeding
        await listener.until(lambda: len(listener.finals) >= sent)
        assert await asyncio.wait_for(worker.wait(), 30) == 0, log.read_text()
        depth = await bus.depth("images", "detect")
    counts = Counter(final.upload_id for final in listener.finals)
    assert (len(counts), set(counts.values())) == (sent, {1}), "every image once"
    versions = [final.model for final in sorted(listener.finals, key=lambda final: final.analysed_at)]
    assert set(versions) == {old, new}
    late = versions.index(new)
    assert set(versions[late + 8 :]) == {new}, "no more than the images that were in hand saw the old version"
    changed, refused = listener.fleet
    assert isinstance(changed, ModelChanged)
    assert (changed.previous, changed.current, changed.changed_by) == (old, new, "ada")
    assert isinstance(refused, ModelRefused)
    assert (refused.model, refused.serving, refused.reason) == (bad, new, "outputs")
    assert depth is not None
    assert (depth.active, depth.dead_letter) == (0, 0)


async def feed(bus: Bus, works: Sequence[ImageAccepted], listener: Any) -> int:
    """A steady stream until the listener has seen enough; how many were sent. Each is an upload of its own."""
    sent = 0
    while not getattr(listener, "enough", False):
        work = works[sent % len(works)]
        upload = f"{sent:032x}"
        await bus.publisher().publish([Outgoing(message=msgspec.structs.replace(work, upload_id=upload))])
        sent += 1
        while sent - len(listener.finals) > 12:
            await asyncio.sleep(0.02)
    return sent


async def test_a_worker_that_is_told_to_stop_while_its_model_loads_ends_with_0(
    environment: dict[str, str], registry: Registry, push: Any, tmp_path: Path
) -> None:
    await registry.promote(await push("slow", slow), "tests", "")
    log = tmp_path / "log"
    with log.open("wb") as errors:
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fusebus.inferencer", env=environment, stderr=errors
        )
    async with asyncio.timeout(90):
        while "loading model" not in log.read_text():
            await asyncio.sleep(0.05)
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(worker.wait(), 15) == 0, log.read_text()
