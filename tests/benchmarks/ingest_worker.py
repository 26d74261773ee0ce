"""Ingest as a process for the benchmark: the service itself, its guards on or off, and a diary.

    python ingest_worker.py DIARY COUNT guarded|unguarded

Ends when COUNT images are announced. Unguarded, the same code judges in two threads of this process: no child, no
limits. The diary (JSON) has the times of each announcement and the CPU seconds between the first event and the last.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")


def children_seconds() -> float:
    """CPU of the processes that we started and that live, with all of theirs that ended."""
    total = 0.0
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            stat = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, stat[11:15])) / TICKS
    return total


class Diary:
    """From the first event that is handled to the last image that is announced."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.began = 0.0
        self.announced: list[float] = []
        self.own: list[float] = []
        self.children: list[float] = []

    def note(self) -> None:
        self.own.append(time.process_time())
        self.children.append(children_seconds())

    def begin(self) -> None:
        if not self.began:
            self.note()
            self.began = time.time()

    def announce(self, images: int) -> bool:
        """Whether these were the last."""
        done_before = len(self.announced) >= self.count
        self.announced += [time.time()] * images
        if done_before or len(self.announced) < self.count:
            return False
        self.note()
        return True


class Unguarded:
    """In place of the validator: what its children do, in threads."""

    def __init__(self, servers: int, *, heif: bool = False) -> None:
        import cv2

        cv2.setNumThreads(0)
        self._threads = ThreadPoolExecutor(servers)

    async def __aenter__(self) -> Unguarded:
        return self

    async def __aexit__(self, *error: object) -> None:
        self._threads.shutdown()

    async def start(self) -> None:
        """Nothing to start."""

    async def check(self, data: bytes, *, derivative: bool = False) -> Any:
        from fusebus.validation.examine import examine

        return await asyncio.get_running_loop().run_in_executor(self._threads, examine, data)


def main() -> int:
    """The service's own main, observed."""
    path, count, way = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    sys.argv = sys.argv[:1]
    from fusebus.bus import publisher
    from fusebus.contracts.messages import ImageAccepted
    from fusebus.host import run_service
    from fusebus.ingest import __main__ as service
    from fusebus.ingest import handler

    diary, stop = Diary(count), asyncio.Event()
    plain_call, plain_send, observed = handler.Ingest.__call__, publisher.Publisher.send, service.main

    async def called(self: Any, event: Any, context: Any) -> Any:
        diary.begin()
        return await plain_call(self, event, context)

    async def sent(self: Any, parcels: Any, *rest: Any, **more: Any) -> None:
        await plain_send(self, parcels, *rest, **more)
        if diary.announce(sum(isinstance(one.envelope.message, ImageAccepted) for one in parcels)):
            stop.set()

    async def lived(settings: Any, life: Any) -> None:
        async def until_done() -> None:
            await stop.wait()
            life.stop.set()

        ending = asyncio.create_task(until_done())
        await observed(settings, life)
        ending.cancel()
        path.write_text(json.dumps(vars(diary)))

    handler.Ingest.__call__, publisher.Publisher.send = called, sent  # type: ignore[method-assign]
    if way == "unguarded":
        service.Validator = Unguarded  # type: ignore[misc, assignment]
    return run_service("ingest", service.IngestSettings, lived)


if __name__ == "__main__":
    sys.exit(main())
