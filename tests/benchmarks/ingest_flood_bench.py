"""A flood of one supplier beside another's ten uploads: how long the ten take, alone and behind the flood.

    python tests/benchmarks/ingest_flood_bench.py [--flood 10000] [--events sweep|grid|sessions] [--per-second 0]
        [--megapixels 0.3] [--tries 3] [--leave] [--suppliers 0] [--each 1] [--out FILE]

Real Azurite (in memory), real broker and the real service as a process, all on the same two cores. The ten are sent and
timed alone, then with the flood's events before them, and once more while these are still worked on: from when the last
of the photos is in storage, and their events are sent, to the last of the ten that is announced. `sweep`: events come
with their lane, as ingest itself sends them; `grid`: without, as Event Grid does; `sessions`: as it does where each
supplier has an event subscription of its own, which sets the session. `--per-second`: how fast the flood's
events come; 0: all at once, then the ten. Small photos are the harder case: the ten's own time is short.

With `--suppliers` there is no flood and no mark: so many suppliers send `--each` photos at once, and what counts is how
many photos a second are announced until the last one's last is.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusSender
from inferencer_rig import Rig, rig
from validation_bench import photograph

from fusebus.arrivals import event_of
from fusebus.blobs.layout import supplier_container
from fusebus.bus import Context
from fusebus.contracts.messages import BlobCreated, ImageAccepted, Message
from fusebus.contracts.outcomes import Done, Outcome, Outgoing
from fusebus.host.settings import environment_of
from fusebus.ledger import Ledger, LedgerSettings
from fusebus.vision import encode_jpeg

CORES = 2
FEW = 10
MARK = 2.0
"""Times their own time that the ten may take behind the flood."""
CROWD = "flood"
BATCH = 100  # events in one send
TICK = 0.5  # seconds between two sends of a flood that comes bit by bit
PACED_SECONDS = 5.0  # of such a flood before the ten
PAINTED = 10
SIZES = {0.3: (640, 480), 2.0: (1600, 1200)}
"""By megapixels."""
SETTLE_SECONDS = 2.0  # between two tries: what ingest held is let go
LIMIT_SECONDS = 3600.0


def photos(size: tuple[int, int]) -> Iterator[bytes]:
    """Different JPEG files without end; 0.3 MP have about 60 KB."""
    pictures = [encode_jpeg(photograph(*size, seed), 90) for seed in range(PAINTED)]
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


class Sending:
    """How events come: through our publisher, which gives each its lane, or without a lane by an open sender."""

    def __init__(self, services: Rig, sender: ServiceBusSender | None, sessions: bool = False) -> None:
        self._publisher, self._sender, self._sessions = services.bus.publisher(), sender, sessions

    async def __call__(self, events: Sequence[Outgoing]) -> None:
        for some in (events[at : at + BATCH] for at in range(0, len(events), BATCH)):
            if self._sender is None:
                await self._publisher.publish(some)
            else:
                await self._sender.send_messages([self._foreign(one.message) for one in some])

    def _foreign(self, event: Message) -> ServiceBusMessage:
        assert isinstance(event, BlobCreated)
        return ServiceBusMessage(msgspec.json.encode(event), session_id=event.container if self._sessions else None)


@asynccontextmanager
async def sending(services: Rig, how: str) -> AsyncIterator[Sending]:
    """As the sweep or as Event Grid does."""
    if how == "sweep":
        yield Sending(services, None)
        return
    async with (
        ServiceBusClient.from_connection_string(services.bus_settings.connection.reveal()) as client,
        client.get_topic_sender("uploads") as sender,
    ):
        yield Sending(services, sender, how == "sessions")


async def paced(send: Sending, events: Sequence[Outgoing], per_second: float) -> None:
    """So many each second."""
    began, sent = time.monotonic(), 0
    while sent < len(events):
        due = min(len(events), int((time.monotonic() - began + TICK) * per_second)) if per_second else len(events)
        await send(events[sent:due])
        sent = due
        await asyncio.sleep(TICK if per_second else 0)


async def measure(
    flood: int, how: str, per_second: float, tries: int, leave: bool, megapixels: float
) -> dict[str, Any]:
    """The ten alone, some times; then behind the flood, and again among it."""
    files = photos(SIZES[megapixels])
    async with rig() as services:
        names = iter([f"few-{number}" for number in range(tries + 4)])

        async def time_of_ten() -> float:
            name = next(names)
            ten = await upload(services, name, files, FEW)
            began = time.monotonic()
            await send(ten)
            return await announced.wait(name, FEW) - began

        async with ingest(services) as announced, sending(services, how) as send:
            await time_of_ten()  # the first one met a service that was still starting
            alone = [await time_of_ten() for _ in range(tries)]
            events = await upload(services, CROWD, files, flood)
            began = time.monotonic()
            flooding = asyncio.create_task(paced(send, events, per_second))
            if per_second:
                await asyncio.sleep(PACED_SECONDS)
            else:
                await flooding
            behind = []
            for _ in range(3):
                behind.append(await time_of_ten())
                left = flood - len(announced.at.get(CROWD, ()))
            await flooding
            end = time.monotonic() if leave else await announced.wait(CROWD, flood)
            rate = len(announced.at.get(CROWD, ())) / (end - began)
    normal = statistics.median(alone)
    return {
        "events": how,
        "megapixels": megapixels,
        "flood": flood,
        "per_second": per_second,
        "alone_seconds": [round(one, 2) for one in alone],
        "behind_seconds": [round(one, 2) for one in behind],
        "times": [round(one / normal, 2) for one in behind],
        "flood_left_after": left,
        "flood_per_second": round(rate, 1),
    }


async def measure_many(suppliers: int, each: int, how: str, tries: int, megapixels: float) -> dict[str, Any]:
    """Photos a second of many suppliers that send a few each, all at once."""
    files, seconds = photos(SIZES[megapixels]), []
    async with rig() as services, ingest(services) as announced, sending(services, how) as send:
        await send(await upload(services, "first", files, FEW))
        await announced.wait("first", FEW)
        for attempt in range(tries):
            names = [f"few-{attempt}-{number}" for number in range(suppliers)]
            events = [await upload(services, name, files, each) for name in names]
            began = time.monotonic()
            await send([event for round_of_all in zip(*events, strict=True) for event in round_of_all])
            seconds.append(max([await announced.wait(name, each) for name in names]) - began)
            await asyncio.sleep(SETTLE_SECONDS)
    return {
        "events": how,
        "megapixels": megapixels,
        "suppliers": suppliers,
        "each": each,
        "seconds": [round(one, 2) for one in seconds],
        "photos_per_second": [round(suppliers * each / one, 1) for one in seconds],
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--flood", type=int, default=10_000)
    arguments.add_argument("--events", choices=["sweep", "grid", "sessions"], default="sweep")
    arguments.add_argument("--per-second", type=float, default=0.0, help="of the flood's events; 0: all at once")
    arguments.add_argument("--megapixels", type=float, choices=sorted(SIZES), default=0.3, help="of the photos")
    arguments.add_argument("--tries", type=int, default=9, help="how often the ten are timed alone, or the many")
    arguments.add_argument(
        "--leave", action="store_true", help="end when the tens are done, whatever the flood has left"
    )
    arguments.add_argument("--suppliers", type=int, default=0, help="no flood: so many send --each photos at once")
    arguments.add_argument("--each", type=int, default=1)
    arguments.add_argument("--out", type=Path)
    chosen = arguments.parse_args()
    if chosen.suppliers < 0 or chosen.each < 1:
        arguments.error("--suppliers can't be negative, and each sends at least one photo")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    if chosen.suppliers:
        many = measure_many(chosen.suppliers, chosen.each, chosen.events, chosen.tries, chosen.megapixels)
        found = asyncio.run(many)
    else:
        found = asyncio.run(
            measure(chosen.flood, chosen.events, chosen.per_second, chosen.tries, chosen.leave, chosen.megapixels)
        )
    print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    if not chosen.suppliers:
        print(f"{'reached' if max(found['times']) <= MARK else 'MISSED '}  at most {MARK:g} times as long as alone")
    if chosen.out:
        chosen.out.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")


if __name__ == "__main__":
    main()
