"""Memory goes back to the system when messages have gone, and only then."""

import asyncio

import pytest

from fusebus.servicebus import memory
from fusebus.servicebus.memory import WORTH_BYTES, MemoryReturn


@pytest.fixture
def trims(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    done: list[None] = []
    monkeypatch.setattr(memory, "_trimmer", lambda: lambda: done.append(None))
    monkeypatch.setattr(memory, "CHECK_SECONDS", 0.001)
    return done


async def test_memory_is_given_back_once_after_a_drain(trims: list[None]) -> None:
    held = WORTH_BYTES
    keeper = MemoryReturn(lambda: held)
    keeper.start()
    await asyncio.sleep(0.02)
    assert trims == []
    held = 0
    async with asyncio.timeout(30):
        while not trims:
            await asyncio.sleep(0.002)
    await asyncio.sleep(0.02)
    assert len(trims) == 1
    keeper.stop()


async def test_nothing_is_done_where_the_c_library_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_trimmer", lambda: None)
    keeper = MemoryReturn(lambda: 0)
    keeper.start()
    keeper.stop()
