"""The inferencer against real storage, the real model and, as a process, a real broker."""

import asyncio
import hashlib
import io
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
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


async def test_a_gpu_that_is_not_there_ends_the_start_with_1_and_a_reason(
    environment: dict[str, str], tmp_path: Path
) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime knows CUDA")
    worker = await start(environment | {"FUSEBUS_INFERENCER_PROVIDER": "CUDAExecutionProvider"}, tmp_path / "log")
    assert await asyncio.wait_for(worker.wait(), 20) == 1
    assert "CUDAExecutionProvider was asked for" in (tmp_path / "log").read_text()
