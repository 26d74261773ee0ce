"""Photos of 2 MP through ingest on two cores: with its guards on, and the same photos with them off, in turns.

    python tests/benchmarks/ingest_bench.py [--photos 1000] [--rounds 2] [--out FILE]

Real Azurite (in memory), real broker and the real service, each a process, all on the same two cores: what storage and
broker take is part of the rate. All events wait before ingest starts, so a rate is that of a service that is never
idle: first event to last image announced. Off means that the same code judges in two threads of ingest itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from inferencer_rig import SUPPLIER, Rig, rig
from machine import machine_seconds
from validation_bench import photograph

from fusebus.arrivals import event_of
from fusebus.blobs import BlobProperties
from fusebus.blobs.layout import supplier_container
from fusebus.contracts.outcomes import Outgoing
from fusebus.host.settings import environment_of
from fusebus.ledger import Ledger, LedgerSettings
from fusebus.vision import encode_jpeg

RATE_MARK = 25.0
"""Photos a second."""
CORES = 2
PAINTED = 20  # different pictures; a comment makes each file another one
WORKER = Path(__file__).parent / "ingest_worker.py"
WAYS = ("guarded", "unguarded")


def photos(count: int) -> list[bytes]:
    """So many different JPEG files of 2 MP, about 0.35 MB each."""
    pictures = [encode_jpeg(photograph(1600, 1200, seed), 90) for seed in range(min(PAINTED, count))]

    def with_comment(number: int) -> bytes:
        picture, comment = pictures[number % len(pictures)], b"%08d" % number
        return picture[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + picture[2:]

    return [with_comment(number) for number in range(count)]


async def upload(services: Rig, count: int) -> list[BlobProperties]:
    """All of them into one supplier's container."""
    container, files = supplier_container(SUPPLIER), iter(enumerate(photos(count)))

    async def sender() -> None:
        for number, data in files:
            await services.blobs.write(container, f"van 7/{number:05}.jpg", data, "image/jpeg")

    await asyncio.gather(*(sender() for _ in range(4)))
    return [blob async for blob in services.blobs.list(container)]


async def turn(services: Rig, way: str, blobs: Sequence[BlobProperties], number: int) -> dict[str, float]:
    """One ingest with a ledger of its own, until all are announced."""
    ledger = LedgerSettings(connection=services.blob_settings.connection, table_prefix=f"turn{number}")
    async with Ledger(ledger) as tables:
        await tables.create_tables()
    container = supplier_container(SUPPLIER)
    # Each turn sends the same events: as replays, or duplicate detection would keep them.
    events = [Outgoing(message=event_of(container, blob), replay=number) for blob in blobs]
    await services.bus.publisher().publish(events)
    diary = services.folder / f"ingest-{number}.json"
    environment = (
        services.environment | environment_of(ledger, "ledger") | {"FUSEBUS_INGEST_SWEEP_INTERVAL_SECONDS": "0"}
    )
    before, spawned, machine = services.theirs(), time.time(), machine_seconds()
    worker = await asyncio.create_subprocess_exec(
        sys.executable, str(WORKER), str(diary), str(len(blobs)), way, env=environment
    )
    if await worker.wait() != 0:
        raise RuntimeError(f"ingest ended with {worker.returncode}")
    after, lived = services.theirs(), time.time() - spawned
    return _figures(json.loads(diary.read_text()), before, after, machine_seconds() - machine, lived)


def _figures(
    diary: dict[str, Any], before: tuple[float, float], after: tuple[float, float], machine: float, lived: float
) -> dict[str, float]:
    count = diary["count"]
    storage, broker = (late - early for early, late in zip(before, after, strict=True))
    own, children = (late - early for early, late in (diary["own"], diary["children"]))
    return {
        "photos_per_second": count / (diary["announced"][count - 1] - diary["began"]),
        "ingest_ms": own / count * 1e3,
        "children_ms": children / count * 1e3,
        "storage_ms": storage / count * 1e3,
        "broker_ms": broker / count * 1e3,
        # Starting takes some CPU that is nobody's here: about 2 s of a turn.
        "others_cores": max(0.0, machine - own - children - storage - broker) / lived,
    }


async def measure(count: int, rounds: int) -> dict[str, Any]:
    """Medians of all turns by way; guarded and unguarded one after the other, so that both meet the same machine."""
    turns: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    async with rig() as services:
        blobs = await upload(services, count)
        share = len(blobs) // rounds
        for number in range(rounds):
            for way in WAYS if number % 2 == 0 else reversed(WAYS):
                part = blobs[number * share : (number + 1) * share]
                turns[way].append(await turn(services, way, part, 2 * number + (way == "unguarded") + 1))
                print(
                    f"{way}: " + ", ".join(f"{name} {value:.1f}" for name, value in turns[way][-1].items()), flush=True
                )
    return {
        way: {name: round(statistics.median(one[name] for one in found), 2) for name in found[0]}
        for way, found in turns.items()
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--photos", type=int, default=1000)
    arguments.add_argument(
        "--rounds", type=int, default=2, help="in which they are shared out, guarded and unguarded each"
    )
    arguments.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "benchmarks/ingest.json")
    chosen = arguments.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    found = asyncio.run(measure(chosen.photos, chosen.rounds))
    guarded, unguarded = (found[way]["photos_per_second"] for way in WAYS)
    print(f"guards cost {1 - guarded / unguarded:.0%} of the rate: {guarded:.1f} instead of {unguarded:.1f} photos/s")
    print(f"{'reached' if guarded >= RATE_MARK else 'MISSED '}  guarded >= {RATE_MARK:g} photos/s")
    machine = {"processor": platform.machine(), "cores": CORES, "python": platform.python_version()}
    figures = {"machine": machine, "photos": chosen.photos, "rounds": chosen.rounds, **found}
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=1) + b"\n")


if __name__ == "__main__":
    main()
