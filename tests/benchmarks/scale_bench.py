"""Uneven pictures over 1, 2 and 4 workers: a fixed share for each, as the usual script has it, against our queue.

Real broker, real storage, real worker processes; the queue's workers are `python -m fusebus.convert`. Pictures have
0.1 to 12 megapixels (log-normal, the same in each run). So that four workers mean something on two cores, most of what
a picture takes is slept (`--model-ms` for each megapixel, beside the real conversion), as with a model on a GPU.
Clocks start when all workers are ready. Ideal is the same work, as long as it took in that run, spread without a gap
over the workers at their speeds, up to the moment when one is killed.

    .venv/bin/python tests/benchmarks/scale_bench.py --quick
    .venv/bin/python tests/benchmarks/scale_bench.py --output benchmarks/scale.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import inferencer_rig
import msgspec
import numpy as np
from inferencer_rig import Rig, cpu_seconds, rig

from fusebus.blobs import layout
from fusebus.contracts.identity import run_id, upload_id
from fusebus.contracts.messages import ImageAccepted, JobKind
from fusebus.contracts.outcomes import Outcome, Outgoing, done
from fusebus.contracts.topology import broker_configuration
from fusebus.vision import encode_jpeg
from fusebus.vision.boards import draw_board

PICTURES, QUICK_PICTURES = 40, 16
MEDIAN_MEGAPIXELS, SIGMA, LEAST, MOST = 0.6, 1.2, 0.1, 12.0
SEED = 20
MODEL_MS = 100.0  # for each megapixel
SLOWER = 4.0
LOCK_SECONDS = 8.0  # in production 60; shorter ones are lost where others take the cores
KILLED_AT = 0.4  # of the time that all workers together would take
SLOTS, THREADS = 2, 1  # one picture converted, the next on its way: a slow worker holds no more than that
HEALTHY, SLOW, KILLED = "all healthy", "one 4 times slower", "one killed"
STRIDE, QUEUE = "fixed share", "queue"
PLAN = ((HEALTHY, (1, 2, 4)), (SLOW, (2, 4)), (KILLED, (2, 4)))
LIMIT_SECONDS = 120.0  # of one run
READY_SECONDS = 60.0
WORKER = Path(__file__).parent / "scale_workers.py"
LIBRARIES = ("azure-servicebus", "azure-storage-blob", "simplejpeg", "isal", "numpy")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run."""

    way: str
    scenario: str
    workers: int
    pictures: int
    seconds: float
    """To the last picture that was done at all."""
    ideal_seconds: float
    lost: int
    """Pictures without outputs when everybody has ended."""
    done_twice: int
    """Pictures whose outputs were stored more than once, by the workers' own diaries."""
    finals_twice: int
    """Uploads that the notifier would have heard of more than once; the usual script tells nobody."""
    begun_again: int
    """Pictures that a killed worker had begun and another one did."""
    each: list[int]
    """Pictures done by each worker."""
    cores: float
    """Of all workers, storage and broker."""

    @property
    def ratio(self) -> float:
        return self.seconds / self.ideal_seconds


@dataclass(eq=False)
class Worker:
    """A process with its diary."""

    process: asyncio.subprocess.Process
    log: Path
    slower: float
    cpu: float = 0.0

    def diary(self) -> list[dict[str, Any]]:
        """A line that a kill cut short is left out."""
        found = []
        for line in self.log.read_text().splitlines() if self.log.exists() else []:
            with suppress(ValueError):
                found.append(json.loads(line))
        return found


def sizes(count: int) -> list[tuple[int, int]]:
    """Width and height of each picture, 4 to 3."""
    drawn = np.random.default_rng(SEED).lognormal(np.log(MEDIAN_MEGAPIXELS), SIGMA, count)
    widths = np.sqrt(np.clip(drawn, LEAST, MOST) * 1e6 * 4 / 3)
    return [(int(width), int(width * 3 / 4)) for width in widths]


async def pictures(services: Rig, count: int) -> list[ImageAccepted]:
    """Stored, with what ingest would say of them."""
    board = await asyncio.to_thread(lambda: draw_board(inferencer_rig.SEED, (1600, 1200)).image)
    works, container = [], layout.supplier_container(inferencer_rig.SUPPLIER)
    for number, size in enumerate(sizes(count)):
        image = await asyncio.to_thread(cv2.resize, board, size, interpolation=cv2.INTER_CUBIC)
        # Behind the end: pictures of the least size would else be one image, with one result for all of them.
        data, name = encode_jpeg(image, 90) + number.to_bytes(4, "big"), f"{number:04}.jpg"
        await services.blobs.write(container, name, data, "image/jpeg")
        found = await services.blobs.properties(container, name)
        assert found is not None
        work = inferencer_rig._accepted(container, name, found.etag, data, size)
        works.append(msgspec.structs.replace(work, job_kind=JobKind.CONVERT))
    return works


async def start(services: Rig, kind: str, number: int, slower: float, model_ms: float, *rest: object) -> Worker:
    """A worker that has not begun."""
    environment = services.environment | {
        "FUSEBUS_CONVERT_SLOTS": str(SLOTS),
        "FUSEBUS_CONVERT_THREADS": str(THREADS),
    }
    log = services.folder / f"{kind}-{time.time_ns()}-{number}.jsonl"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(WORKER),
        kind,
        str(log),
        *map(str, (model_ms, slower, *rest)),
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    return Worker(process, log, slower)


async def all_ready(workers: Sequence[Worker]) -> None:
    """Raises TimeoutError, RuntimeError for a worker that ended."""
    for worker in workers:
        assert worker.process.stdout is not None
        line = await asyncio.wait_for(worker.process.stdout.readline(), READY_SECONDS)
        if line != b"ready\n":
            raise RuntimeError(f"a worker ended before it was ready: {line!r}")


async def end(workers: Sequence[Worker]) -> None:
    """Leave none behind."""
    for worker in workers:
        if worker.process.returncode is None:
            with suppress(ProcessLookupError):
                worker.process.kill()
        await worker.process.wait()


async def kill_later(worker: Worker, seconds: float) -> float:
    """SIGKILL; when (s since the epoch)."""
    await asyncio.sleep(seconds)
    worker.cpu = cpu_seconds(worker.process.pid)
    worker.process.send_signal(signal.SIGKILL)
    return time.time()


async def by_share(services: Rig, workers: list[Worker]) -> Counter[str]:
    """Everybody does their share; nobody hears of it."""
    for worker in workers:
        assert worker.process.stdin is not None
        worker.process.stdin.write(b"go\n")
    await asyncio.wait_for(asyncio.gather(*(watched(worker) for worker in workers)), LIMIT_SECONDS)
    return Counter()


async def watched(worker: Worker) -> None:
    """Until it ends; notes its CPU time from time to time, which is gone with the process."""
    while worker.process.returncode is None:
        with suppress(OSError):
            worker.cpu = max(worker.cpu, cpu_seconds(worker.process.pid))
        with suppress(TimeoutError):
            await asyncio.wait_for(worker.process.wait(), 0.25)


async def by_queue(services: Rig, workers: list[Worker], works: list[ImageAccepted]) -> Counter[str]:
    """Everybody takes the next; the finals of each upload, once each picture has one."""
    finals: Counter[str] = Counter()
    stop = asyncio.Event()

    async def heard(message: Any, context: Any) -> Outcome:
        finals[message.upload_id] += 1
        if len(finals) == len(works):
            stop.set()
        return done()

    await services.bus.publisher().publish([Outgoing(message=work) for work in works])
    await asyncio.wait_for(services.bus.consume("results", "notifier", heard, stop=stop, slots=32), LIMIT_SECONDS)
    for worker in workers:
        if worker.process.returncode is None:
            worker.cpu = cpu_seconds(worker.process.pid)
            worker.process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(asyncio.gather(*(worker.process.wait() for worker in workers)), LIMIT_SECONDS)
    again = asyncio.Event()
    await services.bus.consume("results", "notifier", heard, stop=again, idle_exit=1.0)  # what came after the last
    waiting = await services.bus.depth("images", "convert")
    assert waiting is not None
    assert (waiting.active, waiting.dead_letter) == (0, 0), waiting
    return finals


async def measure(
    services: Rig, works: list[ImageAccepted], way: str, scenario: str, count: int, model_ms: float
) -> Measured:
    """One run of one way."""
    moment = datetime.now(UTC)
    run = f"{time.time_ns()}"
    fresh = [
        msgspec.structs.replace(work, upload_id=upload, run_id=run_id(inferencer_rig.SUPPLIER, moment, run[-8:]))
        for work in works
        for upload in [upload_id(work.blob.container, work.blob.name, run)]
    ]
    factors = [SLOWER if scenario == SLOW and number == 0 else 1.0 for number in range(count)]
    workers: list[Worker] = []
    try:
        for number, slower in enumerate(factors):
            rest = (f"stride/{run}/", number, count) if way == STRIDE else ()
            kind = "stride" if way == STRIDE else "queue"
            workers.append(await start(services, kind, number, slower, model_ms, *rest))
        await all_ready(workers)
        before, began = (services.theirs(), [cpu_seconds(worker.process.pid) for worker in workers]), time.time()
        killer = None
        if scenario == KILLED:
            planned = sum(work.width * work.height for work in works) * model_ms / 1e9 / count
            killer = asyncio.create_task(kill_later(workers[0], planned * KILLED_AT))
        doing = by_share(services, workers) if way == STRIDE else by_queue(services, workers, fresh)
        finals = await doing
        killed_after = await killer - began if killer is not None else None
    finally:
        await end(workers)
    spent = sum(after - first for after, first in zip(services.theirs(), before[0], strict=True))
    spent += sum(max(0.0, worker.cpu - first) for worker, first in zip(workers, before[1], strict=True))
    prefix = f"stride/{run}/" if way == STRIDE else f"converted/{moment:%Y-%m-%d}/{fresh[0].run_id}/"
    stored = len([blob async for blob in services.blobs.list(layout.RESULTS, prefix)])
    return judged(way, scenario, factors, workers, len(works), began, killed_after, finals, stored, spent)


def judged(
    way: str,
    scenario: str,
    factors: list[float],
    workers: list[Worker],
    count: int,
    began: float,
    killed_after: float | None,
    finals: Counter[str],
    stored: int,
    spent: float,
) -> Measured:
    """What diaries, finals and storage say."""
    diaries = [worker.diary() for worker in workers]
    times = [[line for line in diary if "done" in line] for diary in diaries]
    ends = Counter(line["image"] for diary in times for line in diary)
    begun = Counter(image for diary in diaries for image in {line["image"] for line in diary if "begun" in line})
    seconds = max(line["done"] for diary in times for line in diary) - began
    work = sum(
        line["worked"] / slower
        for diary, slower in zip(diaries, factors, strict=True)
        for line in diary
        if "worked" in line
    )
    speed = sum(1 / slower for slower in factors)
    ideal = work / speed
    if killed_after is not None:  # all until then, the others afterwards
        ideal = (work - killed_after) / (len(factors) - 1)
    return Measured(
        way=way,
        scenario=scenario,
        workers=len(factors),
        pictures=count,
        seconds=seconds,
        ideal_seconds=ideal,
        lost=count - min(stored, len(ends)),
        done_twice=sum(1 for times_done in ends.values() if times_done > 1),
        finals_twice=sum(1 for heard in finals.values() if heard > 1),
        begun_again=sum(1 for times_begun in begun.values() if times_begun > 1),
        each=[len({line["image"] for line in diary}) for diary in times],
        cores=spent / seconds,
    )


def show(rows: Sequence[Measured]) -> None:
    """As one table."""
    head = ("scenario", "workers", "way", "seconds to the last", "÷ ideal", "lost", "done twice", "finals twice")
    head += ("begun again", "pictures of each", "cores")
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for one in rows:
        late = f"{one.seconds:.1f}" if not one.lost else f"never; {one.seconds:.1f} for the rest"
        ratio = "–" if one.lost else f"{one.ratio:.2f}"
        finals = one.finals_twice if one.way == QUEUE else "–"
        print(
            f"| {one.scenario} | {one.workers} | {one.way} | {late} | {ratio} | {one.lost} | {one.done_twice} "
            f"| {finals} | {one.begun_again} | {', '.join(map(str, one.each))} | {one.cores:.2f} |"
        )


def kept(rows: Sequence[Measured]) -> bool:
    """Whether our queue lost nothing and told nothing twice."""
    return all(one.lost == 0 and one.finals_twice == 0 for one in rows if one.way == QUEUE)


async def measured(count: int, model_ms: float, quick: bool) -> list[Measured]:
    """All runs, the two ways of each case one after the other."""
    # The rig's broker has the real topology; here with short locks, so that a killed worker's pictures come back soon.
    inferencer_rig.broker_configuration = lambda: broker_configuration(lock_seconds=LOCK_SECONDS)
    rows = []
    async with rig() as services:
        works = await pictures(services, count)
        for scenario, numbers in PLAN:
            for workers in numbers[-1:] if quick else numbers:
                for way in (STRIDE, QUEUE):
                    rows.append(await measure(services, works, way, scenario, workers, model_ms))
                    print(f"{scenario}, {workers} workers, {way}: {rows[-1].seconds:.1f} s", flush=True)
    return rows


def main() -> int:
    """Measure, print, write. 1 where our queue lost or repeated something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few pictures, four workers: shows that it runs")
    parser.add_argument("--pictures", type=int, default=0, help=f"(default: {PICTURES}; {QUICK_PICTURES} with --quick)")
    parser.add_argument(
        "--model-ms", type=float, default=MODEL_MS, help="slept for each megapixel (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[2] / "benchmarks/scale.json")
    given = parser.parse_args()
    count = given.pictures or (QUICK_PICTURES if given.quick else PICTURES)
    began = time.perf_counter()
    rows = asyncio.run(measured(count, given.model_ms, given.quick))
    megapixels = sum(width * height for width, height in sizes(count)) / 1e6
    print(f"\n{count} pictures, {megapixels:.0f} megapixels, {time.perf_counter() - began:.0f} s\n")
    show(rows)
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    settings = {
        "model_ms_per_megapixel": given.model_ms,
        "lock_seconds": LOCK_SECONDS,
        "slots": SLOTS,
        "quick": given.quick,
    }
    written = {
        "machine": machine | {name: version(name) for name in LIBRARIES},
        "settings": settings,
        "rows": [asdict(one) | {"ratio": one.ratio} for one in rows],
    }
    given.output.parent.mkdir(exist_ok=True)
    given.output.write_text(json.dumps(written, indent=1) + "\n")
    return 0 if kept(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
