"""The inferencer against real storage, the real model and, as a process, a real broker."""

import asyncio
import hashlib
import io
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from model_variants import slow, variant
from PIL import Image

from fusebus.blobs import Blobs, BlobSettings, layout
from fusebus.bus import Bus, BusSettings, Context
from fusebus.contracts.envelope import Envelope
from fusebus.contracts.identity import image_id, run_id, upload_id
from fusebus.contracts.messages import BlobReference, ImageAccepted, ImageAnalysed, ImageRejected, JobKind, Lane
from fusebus.contracts.outcomes import Done, Outcome, Outgoing, done
from fusebus.contracts.topology import broker_configuration
from fusebus.host import Secret
from fusebus.host.settings import environment_of
from fusebus.inferencer.codecs import Codecs
from fusebus.inferencer.handler import Detect
from fusebus.inferencer.loading import Running, open_folder
from fusebus.inferencer.serving import Serving
from fusebus.vision import DEMO_MODEL, encode_jpeg
from fusebus.vision.boards import draw_board

LOCK_SECONDS = 60.0
NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
Upload = Callable[..., Any]


@pytest.fixture
async def blobs(blob_settings: BlobSettings) -> AsyncIterator[Blobs]:
    async with Blobs(blob_settings) as opened:
        await opened.create_container(layout.RESULTS)
        yield opened


@pytest.fixture
async def upload(blobs: Blobs, supplier: str) -> Upload:
    """Stores a file as the supplier would, and returns what ingest would say of it."""
    container = layout.supplier_container(supplier)
    await blobs.create_container(container)

    async def uploaded(data: bytes, name: str = "board 1.jpg") -> ImageAccepted:
        await blobs.write(container, name, data, "image/jpeg")
        properties = await blobs.properties(container, name)
        assert properties is not None
        upload, sha256 = upload_id(container, name, properties.etag), hashlib.sha256(data).hexdigest()
        return ImageAccepted(
            upload_id=upload,
            run_id=run_id(supplier, NOW, upload),
            supplier=supplier,
            image_id=image_id(supplier, sha256),
            job_kind=JobKind.DETECT,
            lane=Lane.NORMAL,
            deadline=NOW,
            blob=BlobReference(
                container=container, name=name, etag=properties.etag, sha256=sha256, size=properties.size
            ),
            width=800,
            height=600,
            format="jpeg",
            accepted_at=NOW,
        )

    return uploaded


@pytest.fixture
async def detect(blobs: Blobs) -> AsyncIterator[Detect]:
    running = Running(provider="CPUExecutionProvider", intra_op_threads=1, max_batch=4, warm_up=False)
    async with Serving(lambda: None) as serving, Codecs(2) as codecs:
        serving.switch(await open_folder(DEMO_MODEL, running))
        yield Detect(store=blobs, models=serving, codecs=codecs, worker="test")


def photo(seed: int = 3) -> bytes:
    return encode_jpeg(draw_board(seed, (800, 600)).image)


def context(work: ImageAccepted) -> Context:
    return Context(envelope=Envelope(message=work))


def message_of(outcome: Outcome) -> Any:
    assert isinstance(outcome, Done)
    (outgoing,) = outcome.publish
    return outgoing.message


async def test_an_image_is_downloaded_analysed_and_its_results_stored(
    detect: Detect, upload: Upload, blobs: Blobs
) -> None:
    work = await upload(photo())
    final = message_of(await detect(work, context(work)))
    assert isinstance(final, ImageAnalysed)
    jpeg = await blobs.read(final.annotated.container, final.annotated.name, max_bytes=10**7)
    with Image.open(io.BytesIO(jpeg)) as annotated:
        assert annotated.size == (800, 600)
    text = await blobs.read(final.result.container, final.result.name, max_bytes=10**7)
    assert msgspec.json.decode(text)["upload_id"] == work.upload_id
    assert final.timings.download > 0
    assert final.timings.model > 0

    again = message_of(await detect(work, context(work)))
    assert (again.annotated, again.result) == (final.annotated, final.result)
    assert await blobs.read(final.annotated.container, final.annotated.name, max_bytes=10**7) == jpeg
    assert await blobs.read(final.result.container, final.result.name, max_bytes=10**7) == text


async def test_a_blob_replaced_after_validation_is_rejected_as_changed(
    detect: Detect, upload: Upload, blobs: Blobs
) -> None:
    work = await upload(photo())
    await upload(photo(4))
    final = message_of(await detect(work, context(work)))
    assert isinstance(final, ImageRejected)
    assert final.reason.value == "blob_changed"


async def test_a_blob_that_is_not_there_is_rejected_as_vanished(detect: Detect, upload: Upload) -> None:
    work = await upload(photo())
    gone = msgspec.structs.replace(work, blob=msgspec.structs.replace(work.blob, name="gone.jpg"))
    final = message_of(await detect(gone, context(gone)))
    assert isinstance(final, ImageRejected)
    assert final.reason.value == "blob_vanished"


# As a process, on a broker.


@pytest.fixture
def bus_settings(start_broker: Any) -> BusSettings:
    broker = start_broker(broker_configuration())
    return BusSettings(connection=Secret(broker.connection_string), ca_file=str(broker.ca_path))


@pytest.fixture
def environment(bus_settings: BusSettings, blob_settings: BlobSettings) -> dict[str, str]:
    """Of an inferencer that ends after two seconds without work."""
    own = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    services = environment_of(bus_settings, "bus") | environment_of(blob_settings, "blobs")
    return own | services | {"FUSEBUS_INFERENCER_IDLE_EXIT_SECONDS": "2"}


async def start(environment: dict[str, str], log: Path) -> asyncio.subprocess.Process:
    with log.open("wb") as errors:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fusebus.inferencer", env=environment, stderr=errors
        )


async def test_a_worker_handles_what_waits_and_ends_with_0_when_idle(
    environment: dict[str, str], bus_settings: BusSettings, upload: Upload, tmp_path: Path
) -> None:
    works = [await upload(photo(seed), f"{seed}.jpg") for seed in range(6)]
    finals: dict[str, object] = {}
    stop = asyncio.Event()

    async def notified(message: Any, context: Context) -> Outcome:
        finals[message.upload_id] = message
        if len(finals) == len(works):
            stop.set()
        return done()

    async with Bus(bus_settings) as bus:
        await bus.publisher().publish([Outgoing(message=work) for work in works])
        worker = await start(environment, tmp_path / "log")
        await asyncio.wait_for(bus.consume("results", "notifier", notified, stop=stop), 40)
        assert await asyncio.wait_for(worker.wait(), 20) == 0, (tmp_path / "log").read_text()
        depth = await bus.depth("images", "detect")
    assert finals.keys() == {work.upload_id for work in works}
    assert all(isinstance(final, ImageAnalysed) for final in finals.values())
    assert depth is not None
    assert (depth.active, depth.dead_letter) == (0, 0)


async def test_a_worker_that_is_told_to_stop_ends_with_0(environment: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    worker = await start(environment | {"FUSEBUS_INFERENCER_IDLE_EXIT_SECONDS": "0"}, log)
    deadline = time.monotonic() + 90
    while "consuming" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        await asyncio.sleep(0.05)
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(worker.wait(), 20) == 0, log.read_text()


class Finals:
    """Collects what is published on results."""

    def __init__(self, bus: Bus) -> None:
        self._bus, self._stop = bus, asyncio.Event()
        self.of: Counter[str] = Counter()

    async def __aenter__(self) -> "Finals":
        self._consuming = asyncio.create_task(self._bus.consume("results", "notifier", self._take, stop=self._stop))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await self._consuming

    async def _take(self, message: Any, context: Context) -> Outcome:
        assert isinstance(message, ImageAnalysed)
        self.of[message.upload_id] += 1
        return done()

    async def until(self, count: int, seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while len(self.of) < count:
                await asyncio.sleep(0.01)


@pytest.fixture
async def metadata() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Address of a node's metadata service, and what makes it announce the node's end."""
    ends = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/name"):
            return web.Response(text="node_7")
        notice = {"EventType": "Preempt", "Resources": ["node_7"], "NotBefore": "soon"}
        return web.json_response({"Events": [notice] if ends.is_set() else []})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/metadata", ends
    await runner.cleanup()


@pytest.mark.parametrize("notice", [False, True], ids=["SIGTERM", "notice of eviction"])
async def test_a_worker_that_ends_with_images_in_hand_gives_back_what_is_not_done(
    notice: bool,
    environment: dict[str, str],
    bus_settings: BusSettings,
    upload: Upload,
    metadata: tuple[str, asyncio.Event],
    tmp_path: Path,
) -> None:
    address, ends = metadata
    sound = await upload(photo())
    works = [msgspec.structs.replace(sound, upload_id=f"{number:032x}") for number in range(80)]
    short = {
        "FUSEBUS_INFERENCER_DRAIN_SECONDS": "0.05",
        "FUSEBUS_INFERENCER_SCHEDULED_EVENTS": address,
        "FUSEBUS_INFERENCER_SCHEDULED_EVENTS_SECONDS": "0.05",
    }
    async with Bus(bus_settings) as bus, Finals(bus) as finals:
        await bus.publisher().publish([Outgoing(message=work) for work in works])
        worker = await start(environment | short, tmp_path / "log")
        await finals.until(5, 60)
        if notice:
            ends.set()
        else:
            worker.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(worker.wait(), 15) == 0, (tmp_path / "log").read_text()
        assert "gave back" in (tmp_path / "log").read_text()
        assert len(finals.of) < len(works)
        other = await start(environment, tmp_path / "other")
        await finals.until(len(works), LOCK_SECONDS * 2 / 3)  # what the first one held came back before its locks ended
        assert await asyncio.wait_for(other.wait(), 20) == 0, (tmp_path / "other").read_text()
        depth = await bus.depth("images", "detect")
    assert set(finals.of.values()) == {1}, "every image once"
    assert depth is not None
    assert (depth.active, depth.dead_letter) == (0, 0)


async def test_a_worker_that_is_told_to_stop_while_its_folders_model_loads_ends_with_0(
    environment: dict[str, str], tmp_path: Path
) -> None:
    folder, log = await asyncio.to_thread(variant, tmp_path / "slow", "1", slow), tmp_path / "log"
    worker = await start(environment | {"FUSEBUS_INFERENCER_MODEL": str(folder)}, log)
    async with asyncio.timeout(60):
        while "consuming" not in log.read_text():
            await asyncio.sleep(0.05)
    await asyncio.sleep(1)  # its warm-up takes half a minute
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(worker.wait(), 10) == 0, log.read_text()


async def test_a_gpu_that_is_not_there_ends_the_start_with_1_and_a_reason(
    environment: dict[str, str], tmp_path: Path
) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime knows CUDA")
    worker = await start(environment | {"FUSEBUS_INFERENCER_PROVIDER": "CUDAExecutionProvider"}, tmp_path / "log")
    assert await asyncio.wait_for(worker.wait(), 20) == 1
    assert "CUDAExecutionProvider was asked for" in (tmp_path / "log").read_text()
