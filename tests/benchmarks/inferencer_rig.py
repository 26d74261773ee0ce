"""Azurite, a broker and one worker for the inferencer's benchmark, each a process whose CPU time is known."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from machine import TICKS, machine_seconds

from fusebus.blobs import Blobs, BlobSettings, layout
from fusebus.bus import Bus, BusSettings
from fusebus.contracts.identity import image_id, run_id, upload_id
from fusebus.contracts.messages import BlobReference, ImageAccepted, JobKind, Lane
from fusebus.contracts.outcomes import Outgoing
from fusebus.contracts.topology import broker_configuration
from fusebus.host import Secret
from fusebus.host.settings import environment_of
from fusebus.stack.azurite import Azurite, AzuriteOptions
from fusebus.vision import encode_jpeg
from fusebus.vision.boards import draw_board

SEED = 100_000  # boards that the model never saw
SUPPLIER = "bench"
IDLE_SECONDS = 3.0  # without work, until a worker ends
WORKER = Path(__file__).parent / "inferencer_worker.py"


def cpu_seconds(process: int) -> float:
    """User and system time of a process with all its threads so far."""
    stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / TICKS


@dataclass(kw_only=True)
class Rig:
    """What runs, and the photographs that lie there."""

    bus: Bus
    blobs: Blobs
    bus_settings: BusSettings
    blob_settings: BlobSettings
    azurite_process: int
    broker_process: int
    folder: Path
    works: dict[tuple[int, int], list[ImageAccepted]] = field(default_factory=dict)
    repeats: int = 0

    @property
    def environment(self) -> dict[str, str]:
        """Of a worker that ends by itself."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("FUSEBUS_")}
        own |= environment_of(self.bus_settings, "bus") | environment_of(self.blob_settings, "blobs")
        return own | {"FUSEBUS_INFERENCER_IDLE_EXIT_SECONDS": str(IDLE_SECONDS), "FUSEBUS_LOG_LEVEL": "WARNING"}

    def theirs(self) -> tuple[float, float]:
        """CPU seconds of storage and broker so far."""
        return cpu_seconds(self.azurite_process), cpu_seconds(self.broker_process)

    async def photographs(self, size: tuple[int, int], count: int) -> list[ImageAccepted]:
        """So many different boards, stored; what ingest would say of them."""
        if size not in self.works:
            self.works[size] = []
        container = layout.supplier_container(SUPPLIER)
        for number in range(len(self.works[size]), count):
            data = await asyncio.to_thread(lambda seed=SEED + number: encode_jpeg(draw_board(seed, size).image))
            name = f"{size[0]}x{size[1]}-{number}.jpg"
            await self.blobs.write(container, name, data, "image/jpeg")
            found = await self.blobs.properties(container, name)
            assert found is not None
            self.works[size].append(_accepted(container, name, found.etag, data, size))
        return self.works[size][:count]

    async def send(self, works: Sequence[ImageAccepted], count: int) -> None:
        """So many messages about these photographs in turn, each an upload of its own."""
        outgoing = []
        for number in range(count):
            self.repeats += 1
            work = works[number % len(works)]
            upload = upload_id(SUPPLIER, f"{work.blob.name}-{self.repeats}", "0x1")
            outgoing.append(Outgoing(message=msgspec.structs.replace(work, upload_id=upload)))
        await self.bus.publisher().publish(outgoing)

    async def run_worker(
        self, milliseconds: float | None, *, under: Sequence[str] = (), sample_seconds: float = 0.0, **settings: object
    ) -> dict[str, Any]:
        """One worker until nothing is left; its diary, with CPU seconds of storage, broker and others.

        `under`: the command that runs it, a profiler's say. `sample_seconds`: how often the diary notes where images
        are; 0: never.
        """
        diary = self.folder / f"diary-{time.time_ns()}.json"
        environment = self.environment | {f"FUSEBUS_INFERENCER_{key}".upper(): str(v) for key, v in settings.items()}
        if sample_seconds:
            environment["BENCH_SAMPLE_SECONDS"] = str(sample_seconds)
        arguments = [
            *under,
            sys.executable,
            str(WORKER),
            str(diary),
            *([str(milliseconds)] if milliseconds is not None else []),
        ]
        before, spawned, machine = self.theirs(), time.time(), machine_seconds()
        worker = await asyncio.create_subprocess_exec(*arguments, env=environment)
        if await worker.wait() != 0:
            raise RuntimeError(f"the worker ended with {worker.returncode}")
        after = self.theirs()
        found: dict[str, Any] = json.loads(diary.read_text())
        theirs = {"storage": after[0] - before[0], "broker": after[1] - before[1]}
        known = found["cpu"][-1] + sum(theirs.values())
        others = (machine_seconds() - machine - known) / (time.time() - spawned)
        return found | {"spawned": spawned, "theirs": theirs, "others": max(0.0, others)}

    async def left(self) -> tuple[int, int]:
        """Messages that wait for a worker, finals that wait for the notifier."""
        images, results = await self.bus.depth("images", "detect"), await self.bus.depth("results", "notifier")
        assert images is not None
        assert results is not None
        return images.active + images.dead_letter, results.active


def _accepted(container: str, name: str, etag: str, data: bytes, size: tuple[int, int]) -> ImageAccepted:
    now = datetime.now(UTC)
    sha256, upload = hashlib.sha256(data).hexdigest(), upload_id(container, name, etag)
    return ImageAccepted(
        upload_id=upload,
        run_id=run_id(SUPPLIER, now, upload),
        supplier=SUPPLIER,
        image_id=image_id(SUPPLIER, sha256),
        job_kind=JobKind.DETECT,
        lane=Lane.NORMAL,
        deadline=now,
        blob=BlobReference(container=container, name=name, etag=etag, sha256=sha256, size=len(data)),
        width=size[0],
        height=size[1],
        format="jpeg",
        accepted_at=now,
    )


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    """Azurite in memory and a broker with the real topology, for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="inferencer-bench-") as folder:
        async with Azurite(AzuriteOptions()) as azurite:
            broker, connection, authority = await asyncio.to_thread(_broker, Path(folder))
            try:
                bus_settings = BusSettings(connection=Secret(connection), ca_file=authority)
                blob_settings = BlobSettings(connection=Secret(azurite.connection_string))
                async with Bus(bus_settings) as bus, Blobs(blob_settings) as blobs:
                    await blobs.create_container(layout.RESULTS)
                    await blobs.create_container(layout.supplier_container(SUPPLIER))
                    assert azurite._process is not None
                    yield Rig(
                        bus=bus,
                        blobs=blobs,
                        bus_settings=bus_settings,
                        blob_settings=blob_settings,
                        azurite_process=azurite._process.pid,
                        broker_process=broker.pid,
                        folder=Path(folder),
                    )
            finally:
                broker.terminate()
                broker.wait(30)


def _broker(folder: Path) -> tuple[subprocess.Popen[str], str, str]:
    topology = folder / "topology.json"
    topology.write_text(json.dumps(broker_configuration()))
    arguments = ["--port", "0", "--config", str(topology), "--ca-dir", str(folder / "ca")]
    process = subprocess.Popen(
        [sys.executable, "-m", "fusebus.servicebus", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip(), process.stdout.readline().strip()
