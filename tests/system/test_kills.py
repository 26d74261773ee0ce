"""kill -9 of each service in the middle of a run: nothing is lost, nothing is double."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusebus.ledger import FinalKind
from fusebus.stack.delivery import Moment
from fusebus.vision import decode, encode_jpeg

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.long,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds workers through /proc"),
]
BOARDS = 10
QUALITIES = (70, 80, 90)
PHOTOS = BOARDS * len(QUALITIES)
"""Enough that each service is still busy when its moment is seen."""


def workers_of(system: Any) -> list[int]:
    """Process numbers of the inferencers that this stack's Batch runs now."""
    settings = f"FUSEBUS_SETTINGS={system.stack.settings_file}".encode()
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                command, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
            except OSError:
                continue
            if b"fusebus.inferencer" in command and settings in environment.split(b"\0"):
                found.append(int(process.name))
    return found


class Killer:
    """Kills once, at the first look at which its moment has come."""

    def __init__(self, now: Callable[[Moment], bool], victims: Callable[[], list[int]]) -> None:
        self._now, self._victims = now, victims
        self.killed: list[int] = []

    def __call__(self, moment: Moment) -> None:
        if not self.killed and self._now(moment):
            for process in self._victims():
                os.kill(process, signal.SIGKILL)
                self.killed.append(process)


def service(system: Any, name: str) -> Callable[[], list[int]]:
    return lambda: [system.stack.children[name].process.pid]


MOMENTS: dict[str, Callable[[Moment], bool]] = {
    "ingest": lambda moment: 0 < len(moment.uploads) < PHOTOS,
    "dispatcher": lambda moment: bool(moment.queue("images", "detect")),
    "inferencer": lambda moment: bool(moment.nodes.working) and bool(moment.queue("images", "detect")),
    "notifier": lambda moment: moment.waiting < len(moment.uploads),
}


@pytest.mark.parametrize("name", MOMENTS)
async def test_a_run_completes_although_a_service_is_killed(
    system: Any,
    name: str,
    photographs: Callable[[int, int], list[bytes]],
    folder_with: Callable[[dict[str, bytes]], Path],
) -> None:
    boards = [decode(photo) for photo in photographs(710_000, BOARDS)]
    photos = [encode_jpeg(board, quality) for board in boards for quality in QUALITIES]
    folder = folder_with({f"board {number}.jpg": data for number, data in enumerate(photos)})
    victims = (lambda: workers_of(system)[:1]) if name == "inferencer" else service(system, name)
    killer = Killer(MOMENTS[name], victims)
    delivered = await system.deliver(f"killed-{name}", folder, killer)
    assert killer.killed, "the moment to kill never came"
    last = delivered.last
    assert sorted(row.blob_name for row in last.uploads) == sorted(path.name for path in folder.iterdir())
    assert [row.final.kind if row.final else None for row in last.uploads] == [FinalKind.ANALYSED] * PHOTOS
    assert all(run.state.value == "complete" for run in last.runs)
    assert all(queue.active == 0 and queue.dead_letters == 0 for queue in last.queues)
    for run in last.runs:
        assert sum(run.run_id.encode() in path.read_bytes() for path in system.mail.glob("*.eml")) == 1
