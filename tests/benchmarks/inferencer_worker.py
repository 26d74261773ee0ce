"""An inferencer as a process for the benchmark: the service itself, with a faked model if wanted, and a diary.

    python inferencer_worker.py DIARY [MODEL_MILLISECONDS]

The faked model sleeps so long for each picture, as a GPU would let the cores be, and finds the same four things in all.
The diary (JSON) has the times of what happened (seconds since the epoch), CPU seconds and resident memory; with
BENCH_SAMPLE_SECONDS in the environment also, so often, how many images are in each stage and in front of it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from array import array
from pathlib import Path
from typing import Any

STARTED = time.time()
FOUND = 4
EDGE, MASK_EDGE = 280, 80  # of the demo model
PAGE, LOOK_EACH = os.sysconf("SC_PAGE_SIZE"), 10


class Diary:
    """What happened when; `memory` is looked at with one final in LOOK_EACH.

    It lies in the memory that it measures, so numbers are in flat arrays: three for each of `calls` (began, ended,
    pictures), two for each look at `memory` (finals, bytes).
    """

    def __init__(self) -> None:
        self.moments: dict[str, float] = {"python": STARTED}
        self.calls, self.finals, self.memory = array("d"), array("d"), array("q")
        self.cpu: list[float] = []
        self.stages: list[tuple[str, int]] = []  # name, places
        self.samples: list[tuple[float, int, list[int], list[int]]] = []  # time, slots, in each stage, in front of it

    def first(self, name: str) -> None:
        """This happens for the first time, or not."""
        self.moments.setdefault(name, time.time())

    def called(self, began: float, pictures: int) -> None:
        if not self.calls:
            self.cpu.append(time.process_time())
        self.calls.extend((began, time.time(), pictures))

    def published(self) -> None:
        self.first("first final")
        self.finals.append(time.time())
        if len(self.finals) % LOOK_EACH == 0:
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
            self.memory.extend((len(self.finals), resident))

    def watch(self, stages: Any, slots: Any, pause: float) -> None:
        """Note where the images are, again and again. In the service's loop: its stages are no other thread's."""
        import asyncio

        loop = asyncio.get_running_loop()
        self.stages = [(stage.name, stage.places) for stage in stages]

        def note() -> None:
            inside, waiting = [stage.inside for stage in stages], [stage.waiting for stage in stages]
            self.samples.append((time.time(), slots(), inside, waiting))
            loop.call_later(pause, note)

        note()

    def write(self, path: Path) -> None:
        self.cpu.append(time.process_time())
        calls = list(zip(self.calls[::3], self.calls[1::3], self.calls[2::3], strict=True))
        memory = list(zip(self.memory[::2], self.memory[1::2], strict=True))
        known = vars(self) | {"calls": calls, "finals": list(self.finals), "memory": memory, "threads": threads()}
        path.write_text(json.dumps(known))


def threads() -> dict[str, float]:
    """CPU seconds of each thread that still lives, by name."""
    found: dict[str, float] = {}
    import threading

    for thread in threading.enumerate():
        try:
            taken = int(Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()[0]) / 1e9
        except OSError:
            continue
        name = thread.name.split("-")[0]
        found[name] = found.get(name, 0.0) + taken
    return found


def faked(milliseconds: float, mask_edge: int, top: int) -> Any:
    """A backend that sleeps."""
    import numpy as np

    from fusebus.inferencer.backends import Outputs

    scores = np.zeros((1, top), np.float32)
    scores[:, :FOUND] = 0.9
    boxes = np.zeros((1, top, 4), np.float32)
    masks = np.zeros((1, top, mask_edge, mask_edge), np.uint8)
    y, x = (np.mgrid[0:mask_edge, 0:mask_edge] + 0.5) / mask_edge
    for number in range(FOUND):
        left, low, width, height = 0.05 + 0.22 * number, 0.4, 0.106, 0.177
        boxes[0, number] = (left, low, left + width, low + height)
        inside = 1 - (2 * (x - left) / width - 1) ** 4 - (2 * (y - low) / height - 1) ** 4
        masks[0, number] = 255 / (1 + np.exp(np.clip(-8 * inside, -30, 30))) + 0.5

    class Faked:
        def run(self, images: Any) -> Outputs:
            count = len(images)
            time.sleep(milliseconds * count / 1000)
            return Outputs(
                *(np.repeat(one, count, 0) for one in (scores, boxes, masks)), np.zeros((count, top), np.int64)
            )

    return Faked()


def kept(backend: Any, diary: Diary) -> Any:
    """The backend, its calls written down; the warm-up is not one of them."""
    plain = backend.run

    class Kept:
        def run(self, images: Any) -> Any:
            began = time.time()
            found = plain(images)
            if images.any():
                diary.called(began, len(images))
            return found

    return Kept()


def main() -> int:
    """The service's own main, observed."""
    path, milliseconds = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else None
    sys.argv = sys.argv[:1]
    diary = Diary()
    from fusebus.bus import publisher
    from fusebus.host import run_service
    from fusebus.inferencer import __main__ as service
    from fusebus.inferencer import handler, loading, telemetry

    diary.first("imported")
    plain_open, plain_call, plain_send = loading.open_backend, handler.Detect.__call__, publisher.Publisher.send

    def opened(folder: Path, manifest: Any, *rest: Any) -> Any:
        diary.first("model asked for")
        found = plain_open(folder, manifest, *rest) if milliseconds is None else faked(milliseconds, MASK_EDGE, 8)
        diary.first("model open")
        return kept(found, diary)

    async def called(self: Any, work: Any, context: Any) -> Any:
        diary.first("first message")
        return await plain_call(self, work, context)

    async def sent(self: Any, parcels: Any, *rest: Any, **more: Any) -> None:
        await plain_send(self, parcels, *rest, **more)
        diary.published()

    loading.open_backend, handler.Detect.__call__, publisher.Publisher.send = opened, called, sent  # type: ignore[method-assign]
    if pause := float(os.environ.get("BENCH_SAMPLE_SECONDS", "0")):
        telemetry.watch = lambda stages, slots: diary.watch(stages, slots, pause)
    observed = service.main

    async def lived(settings: Any, life: Any) -> None:
        diary.first("settings read")
        try:
            await observed(settings, life)
        finally:
            diary.write(path)

    service.share_freed_memory()
    return run_service("inferencer", service.InferencerSettings, lived, event_loop=service.new_loop)


if __name__ == "__main__":
    sys.exit(main())
