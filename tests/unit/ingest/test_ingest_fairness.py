"""Whose upload is looked at next, and who has sent too much, on a clock of our own."""

from __future__ import annotations

import asyncio

import pytest

from fusebus.contracts.topology import ASIDE, upload_lane
from fusebus.ingest.fairness import HALF_LIFE, Served, Turns


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_the_least_served_suppliers_upload_is_next_whoever_waits_longer() -> None:
    turns, order = Turns(1), list[str]()

    async def look(supplier: str) -> None:
        async with turns.of(supplier):
            await asyncio.sleep(0)
            order.append(supplier)

    await asyncio.gather(*(look(supplier) for supplier in [*["flood"] * 20, *["few"] * 3]))
    assert len(order) == 23
    assert max(place for place, supplier in enumerate(order) if supplier == "few") < 8


async def test_two_that_send_alike_take_turns() -> None:
    turns, order = Turns(1), list[str]()

    async def look(supplier: str) -> None:
        async with turns.of(supplier):
            await asyncio.sleep(0)
            order.append(supplier)

    await asyncio.gather(*(look(supplier) for supplier in ["a"] * 10 + ["b"] * 10))
    assert all({one, other} == {"a", "b"} for one, other in zip(order[2::2], order[3::2], strict=False))


async def test_who_gives_up_waiting_keeps_no_place() -> None:
    turns = Turns(1)
    async with turns.of("a"):
        waiting = [asyncio.create_task(turns.of(name).__aenter__()) for name in ("b", "c")]
        await asyncio.sleep(0)
        waiting[0].cancel()
    await asyncio.wait_for(waiting[1], 1)
    assert waiting[0].cancelled()


async def test_a_turn_that_comes_with_the_cancellation_goes_to_the_next() -> None:
    turns = Turns(1)
    first = turns.of("a")
    await first.__aenter__()
    waiting = asyncio.create_task(turns.of("b").__aenter__())
    await asyncio.sleep(0)
    await first.__aexit__(None, None, None)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(1), turns.of("c"):
        pass


def test_what_was_served_counts_less_and_less() -> None:
    clock = Clock()
    served = Served(clock=clock)
    for _ in range(8):
        served.add("a")
    assert served.lately("a") == 8
    clock.now += HALF_LIFE
    assert served.lately("a") == pytest.approx(4)
    assert served.lately("b") == 0


def test_a_flood_goes_to_its_own_lane_then_aside_and_comes_back_after_a_while() -> None:
    clock = Clock()
    served, own = Served(clock=clock), upload_lane("a")
    unmarked = [served.other_lane("a", None, 100) for _ in range(6)]
    assert unmarked == [None, None, None, None, own, own]
    marked = [served.other_lane("a", own, 100) for _ in range(100)]
    assert (marked.index(ASIDE), set(marked[94:])) == (94, {ASIDE})
    assert served.other_lane("a", ASIDE, 100) is None, "it goes no further"
    assert served.other_lane("b", None, 100) is None, "others are not concerned"
    clock.now += HALF_LIFE
    assert served.other_lane("a", own, 100) is None
    assert [served.other_lane("c", None, 0) for _ in range(500)] == [None] * 500, "0: as many as it likes"


def test_suppliers_of_long_ago_are_forgotten() -> None:
    clock = Clock()
    served = Served(clock=clock)
    for number in range(1000):
        served.add(f"s{number}")
    clock.now += 10 * HALF_LIFE
    served.add("new")
    assert len(served._counts) == 1
