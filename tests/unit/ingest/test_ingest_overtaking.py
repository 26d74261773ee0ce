"""When ingest looks for others' uploads instead of waiting for their events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from fusebus.bus import Lately
from fusebus.contracts.topology import FEW_UPLOADS
from fusebus.host import load_settings
from fusebus.ingest.fairness import Turns
from fusebus.ingest.overtaking import REST, Overtaking
from fusebus.ingest.settings import IngestSettings

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


class Search:
    """Counts searches; one takes as long as it is told to, and the first may fail."""

    def __init__(self, seconds: float = 0.0, *, fails: bool = False) -> None:
        self.at: list[float] = []
        self._seconds, self._fails = seconds, fails
        self.left: list[str] = []

    async def __call__(self, floods: Callable[[str], bool]) -> int:
        self.left = [supplier for supplier in ("flood", "few") if floods(supplier)]
        self.at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self._seconds)
        if self._fails and len(self.at) == 1:
            raise RuntimeError("not foreseen")
        return 1


def overtaking(search: Search, **settings: str) -> Overtaking:
    chosen = {"PILE_SECONDS": "2", "PILE_SEARCH_SECONDS": "0.01"} | settings
    environment = {f"FUSEBUS_INGEST_{name}": value for name, value in chosen.items()}
    read = load_settings(IngestSettings, "ingest", environment)
    return Overtaking(search=search, arrived=Lately(), turns=Turns(1), settings=read, clock=lambda: NOW)


@asynccontextmanager
async def running(chosen: Overtaking) -> AsyncIterator[None]:
    """It searches, until the end of the block."""
    stop = asyncio.Event()
    async with asyncio.timeout(20):
        task = asyncio.create_task(chosen.run(stop))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        yield
        stop.set()
        await task


@pytest.mark.parametrize(
    ("waited", "settings", "searches"),
    [
        (ago(2), {}, 1),
        (ago(1.9), {}, 0),
        (None, {}, 0),
        (ago(-60), {}, 0),
        (ago(3600), {"PILE_SECONDS": "0"}, 0),
    ],
    ids=["waited", "came at once", "of unknown age", "from a clock ahead", "turned off"],
)
async def test_an_event_that_waited_starts_one_search(
    waited: datetime | None, settings: dict[str, str], searches: int
) -> None:
    search = Search()
    chosen = overtaking(search, **settings)
    async with running(chosen):
        await asyncio.wait_for(asyncio.gather(*(chosen.let_pass(waited) for _ in range(3))), 20)
        await asyncio.sleep(0.1)
    assert len(search.at) == searches


@pytest.mark.parametrize("fails", [False, True])
async def test_while_events_wait_the_searches_go_on_with_pauses_between(fails: bool) -> None:
    search = Search(seconds=0.05, fails=fails)
    chosen = overtaking(search)
    async with running(chosen):
        while len(search.at) < 3:
            await chosen.let_pass(ago(10))
            await asyncio.sleep(0.001)
    assert min(later - earlier for earlier, later in zip(search.at, search.at[1:], strict=False)) >= (1 + REST) * 0.05


async def test_a_stop_breaks_a_search_off() -> None:
    search = Search(seconds=3600)
    chosen = overtaking(search, PILE_YIELD_SECONDS="0.01")
    async with running(chosen):
        while not search.at:
            await chosen.let_pass(ago(10))


async def test_a_floods_event_lets_the_search_and_what_it_found_pass() -> None:
    search = Search(seconds=0.05)
    chosen = overtaking(search, PILE_SEARCH_SECONDS="3600", PILE_YIELD_SECONDS="3600")
    async with running(chosen):
        few = chosen.turns.of("few", 0)
        await few.__aenter__()
        passing = asyncio.create_task(chosen.let_pass(ago(10)))
        await asyncio.sleep(0.2)
        assert len(search.at) == 1 and not passing.done(), "what was found is dealt with"
        await few.__aexit__(None, None, None)
        await passing
        await chosen.let_pass(ago(10))  # between two searches it goes on


async def test_a_floods_event_waits_for_a_search_that_has_not_begun() -> None:
    chosen = overtaking(Search(seconds=3600), PILE_YIELD_SECONDS="3600")
    async with running(chosen):
        passing = asyncio.create_task(chosen.let_pass(ago(10)))
        await asyncio.sleep(0)
        assert not passing.done()
        passing.cancel()


async def test_a_flood_lets_others_pass_for_some_time_only() -> None:
    search = Search(seconds=3600)
    chosen = overtaking(search, PILE_YIELD_SECONDS="0.05")
    async with running(chosen):
        await chosen.let_pass(ago(10))
    assert len(search.at) == 1


async def test_who_sent_many_is_left_out_of_the_search() -> None:
    search = Search()
    chosen = overtaking(search)
    for supplier, count in (("flood", FEW_UPLOADS + 1), ("few", FEW_UPLOADS - 1)):
        for _ in range(count):
            chosen.arrived.add(supplier)
    async with running(chosen):
        await chosen.let_pass(ago(10))
    assert search.left == ["flood"]


async def test_a_flood_has_half_of_the_places_while_events_waited_lately(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusebus.ingest.overtaking.CALM_SECONDS", 0.05)
    chosen = overtaking(Search())
    chosen.turns = Turns(2)

    async def together() -> int:
        """How many of a flood are dealt with at a time."""
        inside, most = 0, 0

        async def flood() -> None:
            nonlocal inside, most
            async with chosen.turns.of("flood", 4):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1

        await asyncio.gather(*(flood() for _ in range(4)))
        return most

    async with running(chosen):
        assert await together() == 2
        await chosen.let_pass(ago(10))
        assert await together() == 1
        await asyncio.sleep(0.5)
        assert await together() == 2
