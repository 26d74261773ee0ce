"""Work that a stop breaks off."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from fusebus.host import until_stopped


async def test_gives_what_the_work_gives() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert await until_stopped(work(), asyncio.Event()) == 7


async def test_raises_what_the_work_raises() -> None:
    async def work() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await until_stopped(work(), asyncio.Event())


async def test_a_stop_cancels_and_waits_for_the_clean_up() -> None:
    stop, cleaned = asyncio.Event(), []

    async def work() -> int:
        try:
            stop.set()
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(True)
        return 7

    assert await until_stopped(work(), stop) is None
    assert cleaned


async def test_an_error_behind_the_stop_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    stop = asyncio.Event()

    async def work() -> None:
        try:
            stop.set()
            await asyncio.sleep(60)
        finally:
            raise ValueError("not closed")

    assert await until_stopped(work(), stop) is None
    assert "what the stop broke off ended in an error: ValueError('not closed')" in caplog.text


async def test_what_was_done_when_the_stop_came_is_not_lost() -> None:
    stop = asyncio.Event()

    async def work() -> int:
        stop.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return 7

    assert await until_stopped(work(), stop) == 7


async def test_work_that_loses_a_cancel_is_cancelled_again() -> None:
    stop, lost = asyncio.Event(), []

    async def work() -> None:
        stop.set()
        while not lost:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost.append(True)
        await asyncio.sleep(60)

    async with asyncio.timeout(10):
        assert await until_stopped(work(), stop, 0.01) is None
    assert lost


async def test_who_waits_may_be_cancelled_and_the_work_ends_with_it() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    waiting = asyncio.create_task(until_stopped(work(), asyncio.Event()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()
