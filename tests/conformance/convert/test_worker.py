"""Conversions as messages: against real storage, and as processes on a real broker."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
import simplejpeg
from picture_bytes import board, saved

from fusebus.blobs import Blobs, BlobSettings, StorageUnavailable, layout
from fusebus.bus import Bus, BusSettings, Context
from fusebus.contracts.envelope import Envelope
from fusebus.contracts.messages import ImageAccepted, ImageAnalysed, ImageFailed, ImageRejected
from fusebus.contracts.outcomes import Done, Outcome, Outgoing, Retry, done
from fusebus.contracts.topology import broker_configuration
from fusebus.convert import Format, Target
from fusebus.convert.handler import Convert
from fusebus.convert.memory import Bench
from fusebus.host import Secret
from fusebus.host.settings import environment_of

LOCK_SECONDS = 10.0
Start = Callable[[dict[str, str], str], Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def convert(blobs: Blobs) -> AsyncIterator[Convert]:
    with ThreadPoolExecutor(2) as threads:
        yield Convert(store=blobs, threads=threads, bench=Bench(2, 64 << 20), target=Target(), worker="test")


def photo(seed: int = 1) -> bytes:
    return saved(board(64, 48, seed), "JPEG")


def context(work: ImageAccepted) -> Context:
    return Context(envelope=Envelope(message=work))


def message_of(outcome: Outcome) -> Any:
    assert isinstance(outcome, Done)
    (outgoing,) = outcome.publish
    return outgoing.message


async def test_an_image_is_converted_and_a_repeat_writes_the_same(convert: Convert, accept: Any, blobs: Blobs) -> None:
    work = await accept(photo())
    final = message_of(await convert(work, context(work)))
    assert isinstance(final, ImageAnalysed)
    assert (final.model, final.job_kind.value) == ("png@5", "convert")
    png = await blobs.read(final.annotated.container, final.annotated.name, max_bytes=10**7)
    shown = cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(shown, simplejpeg.decode_jpeg(photo(), "RGB"))
    text = await blobs.read(final.result.container, final.result.name, max_bytes=10**7)
    assert msgspec.json.decode(text)["size"] == len(png)

    again = message_of(await convert(work, context(work)))
    assert (again.annotated, again.result) == (final.annotated, final.result)
    assert await blobs.read(final.annotated.container, final.annotated.name, max_bytes=10**7) == png
    assert await blobs.read(final.result.container, final.result.name, max_bytes=10**7) == text
    assert await blobs.read(work.blob.container, work.blob.name, max_bytes=10**7) == photo()


async def test_another_target_has_other_names(convert: Convert, accept: Any, blobs: Blobs) -> None:
    work = await accept(photo())
    webp = Convert(
        store=blobs, threads=convert.threads, bench=convert.bench, target=Target(format=Format.WEBP), worker="test"
    )
    one, other = [message_of(await handler(work, context(work))) for handler in (convert, webp)]
    assert one.analysis_id != other.analysis_id
    assert other.annotated.name.endswith(".webp")


async def test_what_went_wrong_becomes_the_final(convert: Convert, accept: Any) -> None:
    damaged = await accept(photo()[:-100], "damaged.jpg")
    failed = message_of(await convert(damaged, context(damaged)))
    assert isinstance(failed, ImageFailed)
    assert failed.reason == "damaged"

    other = msgspec.structs.replace(damaged, blob=msgspec.structs.replace(damaged.blob, sha256="0" * 64))
    assert message_of(await convert(other, context(other))).reason == "digest_mismatch"

    work = await accept(photo())
    await accept(photo(2))
    changed = message_of(await convert(work, context(work)))
    assert isinstance(changed, ImageRejected)
    assert changed.reason.value == "blob_changed"

    gone = msgspec.structs.replace(work, blob=msgspec.structs.replace(work.blob, name="gone.jpg"))
    assert message_of(await convert(gone, context(gone))).reason.value == "blob_vanished"


async def test_storage_that_does_not_answer_is_waited_for(convert: Convert, accept: Any) -> None:
    class Silent:
        async def read(self, *place: str, **limits: object) -> bytes:
            raise StorageUnavailable("no answer")

    work = await accept(photo())
    silent: Any = Silent()
    handler = Convert(store=silent, threads=convert.threads, bench=convert.bench, target=convert.target, worker="test")
    outcome = await handler(work, context(work))
    assert isinstance(outcome, Retry)
    assert outcome.reason == "storage_unavailable"


# As processes, on a broker.


@pytest.fixture
def bus_settings(start_broker: Any, request: pytest.FixtureRequest) -> BusSettings:
    """A broker with ordinary locks; short ones where workers are killed."""
    short = LOCK_SECONDS if request.node.get_closest_marker("long") else None
    broker = start_broker(broker_configuration(lock_seconds=short))
    return BusSettings(connection=Secret(broker.connection_string), ca_file=str(broker.ca_path))


@pytest.fixture
def environment(bus_settings: BusSettings, blob_settings: BlobSettings) -> dict[str, str]:
    """Of a worker that ends after two seconds without work."""
    own = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    services = environment_of(bus_settings, "bus") | environment_of(blob_settings, "blobs")
    return own | services | {"FUSEBUS_CONVERT_IDLE_EXIT_SECONDS": "2"}


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a worker that logs to a file of this name; what still runs at the end is killed."""
    running: list[asyncio.subprocess.Process] = []

    async def started(environment: dict[str, str], name: str) -> asyncio.subprocess.Process:
        with (tmp_path / name).open("wb") as errors:
            running.append(
                await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "fusebus.convert", env=environment, stderr=errors
                )
            )
        return running[-1]

    yield started
    for process in running:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def finals_of(bus: Bus, count: int, seconds: float = 60.0) -> Counter[str]:
    """How often each upload got a final, once `count` of them have one."""
    found: Counter[str] = Counter()
    stop = asyncio.Event()

    async def notified(message: Any, context: Context) -> Outcome:
        found[message.upload_id] += 1
        if len(found) == count:
            stop.set()
        return done()

    await asyncio.wait_for(bus.consume("results", "notifier", notified, stop=stop), seconds)
    return found


async def test_two_workers_share_what_waits_and_end_with_0_when_idle(
    environment: dict[str, str], bus_settings: BusSettings, accept: Any, blobs: Blobs, start: Start, tmp_path: Path
) -> None:
    works = [await accept(photo(seed), f"{seed}.jpg") for seed in range(12)]
    async with Bus(bus_settings) as bus:
        await bus.publisher().publish([Outgoing(message=work) for work in works])
        workers = [await start(environment, f"{number}.log") for number in range(2)]
        finals = await finals_of(bus, len(works))
        for number, worker in enumerate(workers):
            assert await asyncio.wait_for(worker.wait(), 30) == 0, (tmp_path / f"{number}.log").read_text()
        depth = await bus.depth("images", "convert")
    assert finals == {work.upload_id: 1 for work in works}
    assert depth is not None
    assert (depth.active, depth.dead_letter) == (0, 0)
    for work in works:
        prefix = f"converted/2031-05-06/{work.run_id}/"
        assert len([blob async for blob in blobs.list(layout.RESULTS, prefix)]) == 1


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_killed_worker_loses_nothing_and_nothing_is_there_twice(
    environment: dict[str, str], bus_settings: BusSettings, accept: Any, blobs: Blobs, start: Start, tmp_path: Path
) -> None:
    large = [saved(board(1200, 900, seed), "JPEG") for seed in range(5)]
    works = [await accept(large[number % 5] + bytes([number]), f"{number}.jpg") for number in range(20)]
    of_this_test = works[0].run_id.rpartition("-")[0]
    async with Bus(bus_settings) as bus:
        await bus.publisher().publish([Outgoing(message=work) for work in works])
        finals = asyncio.create_task(finals_of(bus, len(works), 100))
        first = await start(environment | {"FUSEBUS_CONVERT_THREADS": "1"}, "first.log")
        while not [blob async for blob in blobs.list(layout.RESULTS, f"converted/2031-05-06/{of_this_test}")]:
            await asyncio.sleep(0.05)
        first.send_signal(signal.SIGKILL)
        patient = str(2 * LOCK_SECONDS)  # what the first held comes back when its locks end
        second = await start(environment | {"FUSEBUS_CONVERT_IDLE_EXIT_SECONDS": patient}, "second.log")
        counted = await finals
        assert await asyncio.wait_for(second.wait(), 60) == 0, (tmp_path / "second.log").read_text()
        depth = await bus.depth("images", "convert")
    assert counted.keys() == {work.upload_id for work in works}
    assert depth is not None
    assert (depth.active, depth.dead_letter) == (0, 0)
    for work in works:
        found = [blob async for blob in blobs.list(layout.RESULTS, f"converted/2031-05-06/{work.run_id}/")]
        assert len(found) == 1
