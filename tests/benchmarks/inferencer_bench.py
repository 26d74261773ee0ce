"""The inferencer beside its model, beside the loop that people write, and beside its own marks, in one run.

    python tests/benchmarks/inferencer_bench.py [--quick] [--only PART ...] [--rounds N] [--timeline FILE] [--out FILE]

Parts: `pipeline` (real Azurite, real broker, one worker process; the model sleeps 60 or 30 ms an image, or is the demo
model), `sequential` (the usual loop, same services, same photographs), `photo` (CPU of a 12-megapixel photograph),
`orchestration` (CPU of the stages with nothing to do), `memory` (resident memory up to 10,000 images), `start` (process
to first analysed image). What a run leaves out keeps its figures of before. All of it shares the cores: how much of
them each process took is printed. `--rounds` repeats `pipeline` and `sequential`, with half the images in each
turn, all contenders one after the other, and `memory`, and takes medians: what else the machine does hits all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from inferencer_cpu import EIGHT_MEGAPIXELS, Case, orchestration, photograph
from inferencer_rig import Rig, rig
from inferencer_worker import EDGE, MASK_EDGE, faked
from machine import one_core
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from PIL import Image
from vision_bench import DECIBELS_MARK, decibels, model_outputs
from vision_bench import photograph as drawn_photograph

from fusebus.inferencer.backends import Outputs
from fusebus.inferencer.backends.onnx import open_backend
from fusebus.inferencer.backends.providers import CPU
from fusebus.models import load_manifest
from fusebus.vision import DEMO_MODEL, decode, resize_to_model

LOOKS_AROUND = 50  # images
FULL_CALL = 4  # pictures, the default of the inferencer's `max_batch`
PARTS = ("photo", "orchestration", "start", "pipeline", "sequential", "memory")
TWO_MEGAPIXELS, TWELVE_MEGAPIXELS = (1632, 1224), (4000, 3000)
BOARDS = 40  # different photographs, in turn
PIPELINES: tuple[tuple[float | None, int], ...] = ((60.0, 500), (30.0, 800), (None, 300))
"""Milliseconds of the faked model, None for the demo model; and how many images."""
SEQUENTIAL = {"pillow": "as people write it", "ours": "the same loop with our codecs"}
SAMPLE_SECONDS = 0.1
SHARE_MARKS = {60.0: 0.97, 30.0: 0.92}
SEQUENTIAL_MARK, PHOTO_MARK_MS, ORCHESTRATION_MARK_MS, START_MARK_SECONDS = 3.5, 80.0, 0.1, 2.0
MEMORY_MARK = 1.05  # resident after the last image, of that at 100
LIBRARIES = ("numpy", "opencv-python-headless", "simplejpeg", "pyvips-binary", "onnxruntime", "azure-servicebus")
HERE = Path(__file__).parent

Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much a run does."""

    quick: bool
    rounds: int
    memory_images: int
    timeline: Path | None

    def images(self, many: int) -> int:
        """Of one turn: half as many where there are several, an eighth of it where a glance will do."""
        return max(1, many // (8 if self.quick else 1) // (2 if self.rounds > 1 else 1))


def row(what: str, value: float, unit: str, mark: float | None, at_most: bool = True, note: str = "") -> dict[str, Any]:
    """One line of the table."""
    made: dict[str, Any] = {
        "what": what,
        "value": round(value, 4),
        "unit": unit,
        "mark": "",
        "verdict": "–",
        "note": note,
    }
    if mark is not None:
        made["mark"] = f"{'≤' if at_most else '≥'} {mark:g}"
        made["verdict"] = "reached" if (value <= mark) == at_most or value == mark else "falls short"
    return made


def show(rows: Rows) -> None:
    """As a table."""
    print("| what | measured | mark | | |\n| --- | --- | --- | --- | --- |")
    for one in rows:
        print(
            f"| {one['what']} | {one['value']:.4g} {one['unit']} | {one['mark']} | {one['verdict']} | {one['note']} |"
        )
    sys.stdout.flush()


# CPU of one process.


def photo(quick: bool) -> Rows:
    """A 12-megapixel photograph with ten masks, the annotated picture at the service's default size and at its own."""
    cv2.setNumThreads(1)
    data, cases = drawn_photograph(TWELVE_MEGAPIXELS), dict[str, Case]()
    for edge, mask_edge in ((1008, 288), (EDGE, MASK_EDGE)):
        scores, boxes, masks = model_outputs(mask_edge)
        outputs = Outputs(scores, boxes, masks, np.zeros(len(scores), np.int64))
        for name, most in (("annotated at 3 MP (default)", EIGHT_MEGAPIXELS), ("annotated at 12 MP", 0)):
            cases[f"12 MP photograph, 10 masks, input {edge}, {name}: CPU"] = Case(edge, outputs, most)
    taken = photograph(data, list(cases.values()), 5 if quick else 25)
    rows = [row(what, median, "ms", PHOTO_MARK_MS) for what, median in zip(cases, taken, strict=True)]
    for edge in sorted({case.edge for case in cases.values()}, reverse=True):
        exact = Image.fromarray(decode(data)).resize((edge, edge), Image.Resampling.BILINEAR)
        near = decibels(resize_to_model(decode(data, shrink=2), edge), np.asarray(exact))
        rows.append(row(f"12 MP halved, then to {edge}: against Pillow's bilinear", near, "dB", DECIBELS_MARK, False))
    return rows


def stages(quick: bool) -> Rows:
    """The median of some rounds, on one core: threads that hand nothing to each other mostly wait to be woken."""

    def taken() -> float:
        with one_core():
            return statistics.median(orchestration(1000 if quick else 4000) for _ in range(3 if quick else 7))

    rows = [row("orchestration: CPU an image", taken(), "ms", ORCHESTRATION_MARK_MS)]
    metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))  # for good, in this process alone
    return [*rows, row("orchestration: CPU an image, metrics read", taken(), "ms", ORCHESTRATION_MARK_MS)]


# A worker on real services.


def summary(diary: dict[str, Any], model_ms: float | None) -> dict[str, float]:
    """What a diary says of a run, from its first model call to its last final."""
    calls, finals = diary["calls"], diary["finals"]
    pictures, busy = sum(call[2] for call in calls), sum(call[1] - call[0] for call in calls)
    elapsed = finals[-1] - calls[0][0]
    began, ended = diary["cpu"]
    count = len(finals)
    return {
        "images": count,
        "per_second": count / elapsed,
        "share": pictures * alone(model_ms) / elapsed,
        "busy": busy / elapsed,
        "model_ms": busy / pictures * 1000,
        "batch": pictures / len(calls),
        "ours_ms": (ended - began) / count * 1000,
        "storage_ms": diary["theirs"]["storage"] / count * 1000,
        "broker_ms": diary["theirs"]["broker"] / count * 1000,
        "others": diary["others"],
        "cores": (ended - began + sum(diary["theirs"].values())) / elapsed,
        "resident_mb": diary["memory"][-1][1] / 1e6 if diary["memory"] else 0.0,
    }


@lru_cache
def alone(milliseconds: float | None) -> float:
    """Seconds that the model takes for an image with nothing around it: the faked one, or (None) the demo model.

    In full calls, as a worker makes them: one picture a call would take its overhead for the model's time.
    """
    if milliseconds is None:
        manifest = load_manifest(DEMO_MODEL)
        backend = open_backend(DEMO_MODEL, manifest, CPU, 1, FULL_CALL)
        shape = FULL_CALL, manifest.image_size, manifest.image_size, 3
        noise = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    else:
        backend, noise = faked(milliseconds, MASK_EDGE, 8), np.zeros((FULL_CALL, 1, 1, 3), np.uint8)
    taken = []
    for _ in range(10):
        before = time.perf_counter()
        backend.run(noise)
        taken.append((time.perf_counter() - before) / FULL_CALL)
    return statistics.median(taken)


async def pipeline(services: Rig, effort: Effort, found: dict[str, Any]) -> Rows:
    """The model at 60 ms, at 30 ms, and the demo model."""
    works, rows = await services.photographs(TWO_MEGAPIXELS, BOARDS), []
    turns: dict[float | None, list[dict[str, float]]] = {}
    for model_ms, _ in PIPELINES:
        await asyncio.to_thread(alone, model_ms)  # measured once; links to the broker want their loop meanwhile
    for turn in range(effort.rounds):
        for model_ms, many in PIPELINES:
            pause = SAMPLE_SECONDS if effort.timeline and (turn, model_ms) == (0, 30.0) else 0.0
            count = effort.images(many)
            await services.send(works, count)
            async with watched_depth(services, pause) as depths:
                diary = await services.run_worker(model_ms, sample_seconds=pause)
            if effort.timeline and pause:
                keep_timeline(effort.timeline, f"model of {model_ms:g} ms, 2 MP", alone(model_ms), diary, depths)
            turns.setdefault(model_ms, []).append(summary(diary, model_ms))
            waiting, _ = await services.left()
            assert (waiting, len(diary["finals"])) == (0, count), (waiting, len(diary["finals"]))
    found["pipeline"] = {}
    for model_ms, summaries in turns.items():
        said = middle(summaries)
        name = "demo model" if model_ms is None else f"model of {model_ms:g} ms"
        found["pipeline"][name] = {key: round(value, 3) for key, value in said.items()}
        note = (
            f"{said['per_second']:.1f} images/s, batch {said['batch']:.2f}, model busy {said['busy']:.1%}; "
            f"CPU an image: ours {said['ours_ms']:.1f} ms, storage {said['storage_ms']:.1f}, broker "
            f"{said['broker_ms']:.1f}: {said['cores']:.2f} of {os.cpu_count()} cores, "
            f"others {said['others']:.2f}; {said['resident_mb']:.0f} MB"
        )
        mark = SHARE_MARKS.get(model_ms or 0.0)
        rows.append(row(f"{name}, 2 MP: end-to-end ÷ model alone", said["share"], "", mark, at_most=False, note=note))
    return rows


def middle(summaries: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {key: statistics.median(one[key] for one in summaries) for key in summaries[0]}


@asynccontextmanager
async def watched_depth(services: Rig, pause: float) -> AsyncIterator[list[tuple[float, int]]]:
    """Times and how many messages wait for a worker, each half second; nothing where `pause` is 0."""
    depths: list[tuple[float, int]] = []

    async def watch() -> None:
        while True:
            depth = await services.bus.depth("images", "detect")
            if depth is not None and depth.active is not None:
                depths.append((time.time(), depth.active))
            await asyncio.sleep(0.5)

    watching = asyncio.create_task(watch()) if pause else None
    try:
        yield depths
    finally:
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


def keep_timeline(path: Path, what: str, seconds: float, diary: dict[str, Any], depths: list[Any]) -> None:
    """What `plots.py` draws."""
    kept = {key: diary[key] for key in ("calls", "finals", "stages", "samples")}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"what": what, "model_seconds": seconds, "depths": depths} | kept))


async def sequential(services: Rig, effort: Effort, found: dict[str, Any]) -> Rows:
    """The loop that people write on the same services, and ours right before it."""
    works, rows = await services.photographs(TWO_MEGAPIXELS, BOARDS), []
    ours: list[float] = []
    theirs: dict[str, list[dict[str, float]]] = {kind: [] for kind in SEQUENTIAL}
    for _ in range(effort.rounds):
        await services.send(works, effort.images(300))
        ours.append(summary(await services.run_worker(30.0), 30.0)["per_second"])
        for kind, said in theirs.items():
            few = effort.images(60)
            await services.send(works, few + 1)
            said.append(await one_by_one(services, few, kind))
    found["sequential"] = {"worker": round(statistics.median(ours), 2)}
    for kind, what in SEQUENTIAL.items():
        said = middle(theirs[kind])
        found["sequential"][kind] = said
        note = (
            f"{statistics.median(ours):.1f} against {said['per_second']:.1f} images/s; "
            f"theirs {said['cpu_ms']:.0f} ms CPU an image"
        )
        mark = SEQUENTIAL_MARK if kind == "pillow" else None
        ratio = statistics.median(our / one["per_second"] for our, one in zip(ours, theirs[kind], strict=True))
        rows.append(row(f"model of 30 ms, 2 MP: × sequential, {what}", ratio, "×", mark, at_most=False, note=note))
    return rows


async def one_by_one(services: Rig, count: int, kind: str) -> dict[str, float]:
    """Rate and CPU of the loop in a process of its own."""
    arguments = [sys.executable, str(HERE / "inferencer_sequential.py"), str(count), "30", kind]
    process = await asyncio.create_subprocess_exec(*arguments, env=services.environment, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    found: dict[str, float] = json.loads(output)
    return found


async def memory(services: Rig, effort: Effort, found: dict[str, Any]) -> Rows:
    """A model of no time: as many images as fit the run."""
    works = await services.photographs(TWO_MEGAPIXELS, BOARDS)
    count = 1000 if effort.quick else effort.memory_images
    counts = [images for images in (100, 300, 1000, 3000, 10_000) if images <= count]
    started, turns = time.perf_counter(), list[dict[str, float]]()
    for _ in range(effort.rounds):
        await services.send(works, count)
        diary = await services.run_worker(0.1)
        turns.append({str(images): around(diary["memory"], images) for images in counts})
    resident = {images: round(size / 1e6, 1) for images, size in middle(turns).items()}
    found["memory"] = {"seconds": round(time.perf_counter() - started), "resident_mb": resident}
    shown = ", ".join(f"{mb:.0f} MB at {images}" for images, mb in resident.items())
    grown = statistics.median(turn[str(counts[-1])] / turn["100"] for turn in turns)
    what = f"resident memory at {counts[-1]} images ÷ at 100"
    return [row(what, grown, "×", None if effort.quick else MEMORY_MARK, note=shown)]


def around(looks: list[tuple[int, int]], images: int) -> float:
    """Bytes when about so many images were done: a single look differs by what is in hand, up to a thirtieth."""
    return statistics.median(resident for at, resident in looks if abs(at - images) <= LOOKS_AROUND)


# From process to first image.


async def start(services: Rig, effort: Effort, found: dict[str, Any]) -> Rows:
    """Several starts with one image waiting; the medians."""
    works = await services.photographs((800, 600), 1)
    diaries, cpu = [], []
    for _ in range(2 if effort.quick else 7):
        await services.send(works, 1)
        diaries.append(await services.run_worker(None))
        cpu.append(diaries[-1]["cpu"][-1])
    names = list(diaries[0]["moments"])
    table, before = {}, "spawned"
    for name in names:
        table[f"{before} → {name}"] = round(
            statistics.median(
                d["moments"][name] - (d["spawned"] if before == "spawned" else d["moments"][before]) for d in diaries
            ),
            3,
        )
        before = name
    total = statistics.median(d["moments"]["first final"] - d["spawned"] for d in diaries)
    found["start"] = {"seconds": table, "imports_ms": imports()}
    for name, seconds in table.items():
        print(f"  {seconds:6.3f} s  {name}")
    slowest = ", ".join(f"{name} {ms}" for name, ms in list(found["start"]["imports_ms"].items())[:6])
    return [
        row(
            "process to first analysed image, demo model",
            total,
            "s",
            START_MARK_SECONDS,
            note=f"imports, ms: {slowest}",
        )
    ]


def imports() -> dict[str, int]:
    """Milliseconds of the largest packages, each with what it was the first to import."""
    command = [sys.executable, "-X", "importtime", "-c", "import fusebus.inferencer.__main__"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    wanted = (
        "numpy", "cv2", "PIL.Image", "aiohttp", "azure.core", "azure.servicebus.aio", "azure.storage.blob.aio",
        "azure.storage.blob", "azure.identity.aio", "opentelemetry.sdk.trace", "asyncio", "fusebus.inferencer.__main__",
    )  # fmt: skip
    taken = {}
    for line in re.findall(r"import time:\s+\d+ \|\s+(\d+) \|\s+(\S+)", text):
        if line[1] in wanted:
            taken[line[1]] = round(int(line[0]) / 1000)
    return dict(sorted(taken.items(), key=lambda one: -one[1]))


async def served(parts: list[str], effort: Effort, found: dict[str, Any]) -> Rows:
    """The parts that need services, on one set of them."""
    chosen = {"start": start, "pipeline": pipeline, "sequential": sequential, "memory": memory}
    rows: Rows = []
    if not set(chosen) & set(parts):
        return rows
    async with rig() as services:
        for name in parts:
            if name in chosen:
                made = await chosen[name](services, effort, found)
                show(made)
                rows += [one | {"part": name} for one in made]
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few images of each: shows that it runs")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=1, help="of pipeline, sequential, memory (default: %(default)s)")
    parser.add_argument("--timeline", type=Path, help="part pipeline: where the images were when, for plots.py")
    parser.add_argument("--memory-images", type=int, default=10_000, help="of the part memory (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/inferencer.json"))
    given = parser.parse_args()
    effort = Effort(quick=given.quick, rounds=given.rounds, memory_images=given.memory_images, timeline=given.timeline)
    kept = json.loads(given.out.read_text()) if given.out.exists() else {"rows": [], "details": {}}
    found: dict[str, Any] = kept["details"]
    rows: Rows = [one for one in kept["rows"] if one["part"] not in given.only]
    alone_parts: dict[str, Callable[[bool], Rows]] = {"photo": photo, "orchestration": stages}
    for name in given.only:
        if name in alone_parts:
            made = alone_parts[name](given.quick)
            show(made)
            rows += [one | {"part": name} for one in made]
    rows += asyncio.run(served(given.only, effort, found))
    rows.sort(key=lambda one: PARTS.index(one["part"]))
    print()
    show(rows)
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    given.out.parent.mkdir(exist_ok=True)
    written = {"machine": machine | {name: version(name) for name in LIBRARIES}, "rows": rows, "details": found}
    given.out.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
