"""Whose upload is dealt with next."""

from __future__ import annotations

import asyncio

import pytest

from fusebus.contracts.topology import ASIDE
from fusebus.ingest.fairness import LONGEST_EVERY, Turns, rank_of


async def test_the_least_served_suppliers_upload_is_next_whoever_waits_longer() -> None:
    turns, order = Turns(1), list[str]()

    async def look(supplier: str) -> None:
        async with turns.of(supplier, 0):
            await asyncio.sleep(0)
            order.append(supplier)

    await asyncio.gather(*(look(supplier) for supplier in [*["flood"] * 20, *["few"] * 3]))
    assert len(order) == 23
    assert max(place for place, supplier in enumerate(order) if supplier == "few") < 8


async def test_two_that_send_alike_take_turns() -> None:
    turns, order = Turns(1), list[str]()

    async def look(supplier: str) -> None:
        async with turns.of(supplier, 0):
            await asyncio.sleep(0)
            order.append(supplier)

    await asyncio.gather(*(look(supplier) for supplier in ["a"] * 10 + ["b"] * 10))
    assert all(abs(order[:end].count("a") - end / 2) <= 2 for end in range(21))


async def test_who_gives_up_waiting_keeps_no_place() -> None:
    turns = Turns(1)
    async with turns.of("a", 0):
        waiting = [asyncio.create_task(turns.of(name, 0).__aenter__()) for name in ("b", "c")]
        await asyncio.sleep(0)
        waiting[0].cancel()
    await asyncio.wait_for(waiting[1], 20)
    assert waiting[0].cancelled()


async def test_a_turn_that_comes_with_the_cancellation_goes_to_the_next() -> None:
    turns = Turns(1)
    first = turns.of("a", 0)
    await first.__aenter__()
    waiting = asyncio.create_task(turns.of("b", 0).__aenter__())
    await asyncio.sleep(0)
    await first.__aexit__(None, None, None)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(20), turns.of("c", 0):
        pass


@pytest.mark.parametrize(
    ("lane", "rank"), [(None, 0), ("0", 0), ("1", 1), ("3", 3), (ASIDE, 4), ("4", 4), ("-1", 4), ("", 4)]
)
def test_lanes_have_an_order(lane: str | None, rank: int) -> None:
    assert rank_of(lane) == rank


class Crowd:
    """Uploads that are dealt with until they are let go."""

    def __init__(self, places: int) -> None:
        self.begun = list[str]()
        self.turns = Turns(places)
        self._inside: list[tuple[str, asyncio.Event]] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def come(self, supplier: str, rank: int, count: int = 1) -> None:
        self._tasks += [asyncio.create_task(self._deal_with(supplier, rank)) for _ in range(count)]
        await self.settled()

    async def go(self, supplier: str) -> None:
        one = next(one for one in self._inside if one[0] == supplier)
        self._inside.remove(one)
        one[1].set()
        await self.settled()

    def inside(self) -> list[str]:
        return sorted(supplier for supplier, _ in self._inside)

    async def _deal_with(self, supplier: str, rank: int) -> None:
        async with self.turns.of(supplier, rank):
            leave = asyncio.Event()
            self._inside.append((supplier, leave))
            self.begun.append(supplier)
            await leave.wait()

    async def settled(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_the_few_never_wait_for_a_flood_and_while_they_leave_places_it_has_one() -> None:
    crowd = Crowd(4)
    await crowd.come("flood", 4, 40)
    assert crowd.inside() == ["flood"] * 4, "alone it has all places"
    await crowd.come("few", 0, 3)
    assert crowd.inside() == ["few"] * 3 + ["flood"] * 4, "they have places of their own"
    for _ in range(4):
        await crowd.go("flood")
    assert crowd.inside() == ["few"] * 3 + ["flood"], "it goes on meanwhile"
    await crowd.go("few")
    await crowd.go("flood")
    assert crowd.inside() == ["few"] * 2 + ["flood"], "the others' places are kept for the next of the few"
    await crowd.go("few")
    await crowd.go("few")
    assert crowd.inside() == ["flood"] * 4


async def test_where_the_few_fill_their_places_a_flood_has_none() -> None:
    crowd = Crowd(3)
    await crowd.come("few", 0, 4)
    await crowd.come("flood", 4, 5)
    assert crowd.inside() == ["few"] * 3
    await crowd.go("few")
    assert crowd.inside() == ["few"] * 3
    await crowd.go("few")
    assert crowd.inside() == ["few"] * 2 + ["flood"]


async def test_while_few_may_come_a_flood_has_half_of_the_places() -> None:
    crowd = Crowd(4)
    crowd.turns.beware(True)
    await crowd.come("flood", 4, 40)
    assert crowd.inside() == ["flood"] * 2
    crowd.turns.beware(False)
    await crowd.settled()
    assert crowd.inside() == ["flood"] * 4, "at once, whoever else comes or goes"


async def test_while_few_are_about_to_come_nothing_of_a_flood_begins_or_goes_on() -> None:
    turns = Turns(4)
    steps = list[str]()

    async def flood(number: int) -> None:
        async with turns.of("flood", 4) as turn:
            steps.append(f"begins {number}")
            await asyncio.sleep(0)
            await turn.pause()
            steps.append(f"goes on {number}")

    first = asyncio.create_task(flood(1))
    await asyncio.sleep(0)
    with turns.expecting(20):
        second = asyncio.create_task(flood(2))
        for _ in range(5):
            await asyncio.sleep(0)
        assert steps == ["begins 1"]
        async with asyncio.timeout(20), turns.of("few", 0):
            pass
    await asyncio.gather(first, second)
    assert sorted(steps) == ["begins 1", "begins 2", "goes on 1", "goes on 2"]


async def test_what_a_flood_had_begun_waits_at_its_next_step_and_goes_on_before_what_it_had_not() -> None:
    turns, few_may_go = Turns(3), asyncio.Event()
    steps: list[tuple[int, int]] = []
    together: list[int] = []
    inside: set[int] = set()

    async def flood(number: int) -> None:
        async with turns.of("flood", 4) as turn:
            for step in range(5):
                steps.append((number, step))
                inside.add(number)
                together.append(len(inside))
                await asyncio.sleep(0)
                inside.discard(number)
                await turn.pause()

    async def few() -> None:
        async with turns.of("few", 0):
            await few_may_go.wait()

    floods = [asyncio.create_task(flood(number)) for number in range(4)]
    await asyncio.sleep(0)
    fews = [asyncio.create_task(few()) for _ in range(2)]
    for _ in range(4):
        await asyncio.sleep(0)
    paused = len(together)
    assert max(together[:paused]) == 3
    for _ in range(100):
        await asyncio.sleep(0)
    few_may_go.set()
    await asyncio.gather(*floods, *fews)
    assert set(together[paused:]) == {1}
    assert sorted(steps) == [(number, step) for number in range(4) for step in range(5)]
    assert steps.index((3, 0)) > max(steps.index((number, 4)) for number in range(3))


async def test_a_flood_waits_for_the_few_that_may_come_for_some_time_only() -> None:
    crowd = Crowd(2)
    with crowd.turns.expecting(0.05):
        await crowd.come("flood", 4, 2)
        assert crowd.inside() == []
        await asyncio.sleep(0.5)
        assert crowd.inside() == ["flood"] * 2


async def test_who_gives_up_while_it_pauses_keeps_no_place() -> None:
    turns = Turns(2)

    async def flood() -> None:
        async with turns.of("flood", 1) as turn:
            while True:
                await turn.pause()
                await asyncio.sleep(0)

    floods = [asyncio.create_task(flood()) for _ in range(2)]
    await asyncio.sleep(0)
    async with asyncio.timeout(1), turns.of("few", 0):
        for one in floods:
            one.cancel()
        await asyncio.gather(*floods, return_exceptions=True)
        async with turns.of("few", 0):
            pass


async def test_no_flood_starves_though_others_few_never_end() -> None:
    crowd = Crowd(1)
    await crowd.come("flood", 4, 40)
    await crowd.come("few-0", 0)
    await crowd.go("flood")
    for number in range(1, 5 * LONGEST_EVERY):
        await crowd.come(f"few-{number}", 0)
        for one in crowd.inside():
            await crowd.go(one)
    assert crowd.begun.count("flood") >= 5


async def test_an_earlier_lane_goes_first_also_between_floods() -> None:
    crowd = Crowd(1)
    await crowd.come("large", 4, 5)
    await crowd.come("small", 2, 30)
    for _ in range(LONGEST_EVERY - 2):
        await crowd.go(crowd.inside()[0])
    assert crowd.begun == ["large", *["small"] * (LONGEST_EVERY - 2)]


async def test_a_lull_is_when_nothing_of_the_first_lane_is_there() -> None:
    turns = Turns(1)
    await asyncio.wait_for(turns.lull(), 20)
    async with turns.of("flood", 4):
        await asyncio.wait_for(turns.lull(), 20)
        turn = turns.of("few", 0)
        few = asyncio.create_task(turn.__aenter__())
        await asyncio.sleep(0)
        lull = asyncio.create_task(turns.lull())
        await asyncio.sleep(0.01)
        assert not lull.done(), "one waits"
    await few
    await asyncio.sleep(0.01)
    assert not lull.done(), "one is dealt with"
    await turn.__aexit__(None, None, None)
    await asyncio.wait_for(lull, 20)
