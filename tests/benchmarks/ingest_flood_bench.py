"""A flood of one supplier beside another's ten uploads: how long the ten take, alone and behind the flood.

    python tests/benchmarks/ingest_flood_bench.py [--flood 10000] [--lane other|same] [--tries 3] [--out FILE]

Real Azurite (in memory), real broker and the real service as a process, all on the same two cores. A try publishes the
events of all uploads at once, the flood's first, and takes the time from there to the last of the ten that is
announced. `other`: the two suppliers have different lanes; `same`: they share one, which the flood has to be moved out
of first. Photos are small (0.3 MP), so that 10,000 fit into memory: the ten's own time is short, the harder case.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from inferencer_rig import Rig, rig
from validation_bench import photograph

from fusebus.arrivals import event_of
from fusebus.blobs.layout import supplier_container
from fusebus.bus import Context
from fusebus.contracts.messages import ImageAccepted
from fusebus.contracts.outcomes import Done, Outcome, Outgoing
from fusebus.contracts.topology import upload_lane
from fusebus.host.settings import environment_of
from fusebus.ledger import Ledger, LedgerSettings
from fusebus.vision import encode_jpeg

CORES = 2
FEW = 10
MARK = 2.0
"""Times their own time that the ten may take behind the flood."""
PAINTED = 10
SIZE = (640, 480)
LIMIT_SECONDS = 3600.0


def photos() -> Iterator[bytes]:
    """Different JPEG files without end, about 60 KB each."""
    pictures = [encode_jpeg(photograph(*SIZE, seed), 90) for seed in range(PAINTED)]
    for number in itertools.count():
        picture, comment = pictures[number % PAINTED], b"%08d" % number
        yield picture[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + picture[2:]


class Announced:
    """When which supplier's images were announced."""

    def __init__(self) -> None:
        self.at: dict[str, list[float]] = {}

    async def __call__(self, message: ImageAccepted, context: Context) -> Outcome:
        self.at.setdefault(message.supplier, []).append(time.monotonic())
        return Done()

    async def wait(self, supplier: str, count: int) -> float:
        """When the last of so many was."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while len(self.at.get(supplier, ())) < count:
                await asyncio.sleep(0.02)
        return self.at[supplier][count - 1]


async def upload(services: Rig, supplier: str, files: Iterator[bytes], count: int) -> list[Outgoing]:
    """So many photos of a supplier, and the events that tell of them."""
    container = supplier_container(supplier)
    await services.blobs.create_container(container)
    numbered = iter([(number, next(files)) for number in range(count)])

    async def sender() -> None:
        for number, data in numbered:
            await services.blobs.write(container, f"{number:05}.jpg", data, "image/jpeg")

    await asyncio.gather(*(sender() for _ in range(4)))
    return [Outgoing(message=event_of(container, blob)) async for blob in services.blobs.list(container)]


@asynccontextmanager
async def ingest(services: Rig) -> AsyncIterator[Announced]:
    """The service as a process, with a ledger of its own."""
    ledger = LedgerSettings(connection=services.blob_settings.connection, table_prefix="flood")
    async with Ledger(ledger) as tables:
        await tables.create_tables()
    environment = services.environment | environment_of(ledger, "ledger")
    environment |= {"FUSEBUS_INGEST_SWEEP_INTERVAL_SECONDS": "0"}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "fusebus.ingest", env=environment)
    stop, announced = asyncio.Event(), Announced()
    listening = asyncio.create_task(services.bus.consume("images", "detect", announced, stop=stop, slots=64))
    try:
        yield announced
    finally:
        stop.set()
        await listening
        process.terminate()
        await process.wait()


async def measure(flood: int, lane: str, tries: int) -> dict[str, Any]:
    """The ten alone, some times; then behind the flood, once."""
    crowd, files = "flood", photos()
    others = (f"few-{number}" for number in itertools.count())
    few = [
        name for name in itertools.islice(others, 200) if (upload_lane(name) == upload_lane(crowd)) == (lane == "same")
    ]
    async with rig() as services:
        events = await upload(services, crowd, files, flood)
        tens = [await upload(services, name, files, FEW) for name in few[: tries + 2]]
        async with ingest(services) as announced:
            alone = []
            for name, ten in list(zip(few, tens, strict=False))[: tries + 1]:
                began = time.monotonic()
                await services.bus.publisher().publish(ten)
                alone.append(await announced.wait(name, FEW) - began)
            alone = alone[1:]  # the first one met a service that was still starting
            await services.bus.publisher().publish(events)
            began = time.monotonic()
            await services.bus.publisher().publish(tens[tries + 1])
            behind = await announced.wait(few[tries + 1], FEW) - began
            before = len(announced.at.get(crowd, ()))
            end = await announced.wait(crowd, flood)
            whole = end - began
    normal = statistics.median(alone)
    return {
        "lane": lane,
        "flood": flood,
        "alone_seconds": [round(one, 2) for one in alone],
        "behind_seconds": round(behind, 2),
        "times": round(behind / normal, 2),
        "flood_done_before": before,
        "flood_per_second": round(flood / whole, 1),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--flood", type=int, default=10_000)
    arguments.add_argument("--lane", choices=["other", "same"], default="other")
    arguments.add_argument("--tries", type=int, default=3, help="how often the ten are timed alone")
    arguments.add_argument("--out", type=Path)
    chosen = arguments.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    found = asyncio.run(measure(chosen.flood, chosen.lane, chosen.tries))
    print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    print(f"{'reached' if found['times'] <= MARK else 'MISSED '}  at most {MARK:g} times as long as alone")
    if chosen.out:
        chosen.out.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")


if __name__ == "__main__":
    main()
