import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from fusebus.inferencer.team import Team


@pytest.fixture
async def team() -> AsyncIterator[Team]:
    made = Team(2, "test")
    made.start()
    yield made
    await made.stop()


async def test_results_and_errors_come_back_to_who_asked(team: Team) -> None:
    def work(number: int) -> int:
        if number % 5 == 0:
            raise ValueError(number)
        return number * 2

    found = await asyncio.gather(
        *(team.run(0, lambda number=number: work(number)) for number in range(200)), return_exceptions=True
    )
    assert [number for number, one in enumerate(found) if isinstance(one, ValueError)] == list(range(0, 200, 5))
    assert [one for one in found if not isinstance(one, ValueError)] == [n * 2 for n in range(200) if n % 5]


async def test_the_first_in_rank_goes_first() -> None:
    alone, go, order = Team(1, "alone"), threading.Event(), []

    def work(rank: int) -> None:
        go.wait(10)
        order.append(rank)

    alone.start()
    tasks = [asyncio.create_task(alone.run(rank, lambda rank=rank: work(rank))) for rank in (0, 0, 9, 5, 7, 1)]
    await asyncio.sleep(0.05)
    go.set()
    await asyncio.gather(*tasks)
    await alone.stop()
    assert order == [0, 0, 1, 5, 7, 9]


async def test_no_more_run_at_a_time_than_there_are_threads(team: Team) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        threading.Event().wait(0.02)
        with lock:
            inside -= 1

    await asyncio.gather(*(team.run(0, work) for _ in range(8)))
    assert most == 2


async def test_a_cancelled_call_is_not_begun(team: Team) -> None:
    go, begun = threading.Event(), []
    busy = [asyncio.create_task(team.run(0, lambda: go.wait(10))) for _ in range(3)]
    cancelled = asyncio.create_task(team.run(0, lambda: begun.append(1)))
    await asyncio.sleep(0.02)
    cancelled.cancel()
    go.set()
    await asyncio.gather(*busy)
    assert await team.run(0, lambda: 5) == 5
    assert begun == []


async def test_an_idle_thread_keeps_no_picture_alive(team: Team) -> None:
    picture = np.zeros((100, 100), np.uint8)
    kept = weakref.ref(picture)
    assert await team.run(0, lambda picture=picture: int(picture.sum())) == 0
    del picture
    gc.collect()
    assert kept() is None


def open_files() -> list[Path]:
    """This process's, by number; where the system does not tell, none."""
    return sorted(Path("/proc/self/fd").glob("*"))


async def test_a_stop_ends_what_was_handed_over_cancels_the_rest_and_leaves_no_file_open() -> None:
    before = open_files()
    team = Team(2, "test")
    team.start()
    asked = [asyncio.ensure_future(team.run(0, lambda number=number: number)) for number in range(6)]
    await asyncio.sleep(0)  # all have asked; nothing has come back yet
    await team.stop()
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert found[:3] == [0, 1, 2]
    assert all(isinstance(one, asyncio.CancelledError) for one in found[3:])
    assert set(open_files()) <= set(before)
    await team.stop()  # once more is harmless
