import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from fusebus.bus import Bus, BusError, Context, taking_out
from fusebus.contracts.messages import ImageAccepted
from fusebus.contracts.outcomes import Outcome, Outgoing, done


async def test_what_of_a_run_waits_or_is_with_a_worker_is_seen_and_nobody_is_disturbed(
    bus: Bus, image: Callable[..., ImageAccepted], quick: Any, eventually: Callable[..., Awaitable[None]]
) -> None:
    def of(run: str, upload: str) -> Outgoing:
        return Outgoing(message=msgspec.structs.replace(image(), run_id=run, upload_id=upload))

    mine = [f"u{number}" for number in range(60)]  # more than a page
    await bus.publisher().publish([one for upload in mine for one in (of("mine", upload), of("other", f"x{upload}"))])
    stop, go_on, begun = asyncio.Event(), asyncio.Event(), set[str]()

    async def slow(work: ImageAccepted, context: Context) -> Outcome:
        begun.add(work.upload_id)
        await go_on.wait()
        return done()

    worker = asyncio.create_task(bus.consume("images", "detect", slow, stop=stop, slots=4, settings=quick))
    await eventually(lambda: len(begun) >= 4)
    assert await bus.waiting("images", "detect", "mine") == frozenset(mine)
    assert await bus.waiting("images", "detect-bulk", "mine") == frozenset()
    go_on.set()
    await eventually(lambda: len(begun) == 120)
    stop.set()
    await worker
    assert await bus.waiting("images", "detect", "mine") == frozenset()


async def test_a_queue_without_an_end_is_an_error_and_no_half_answer(
    bus: Bus, image: Callable[..., ImageAccepted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking_out, "MOST_SECONDS", -1.0)
    with pytest.raises(BusError, match="longer than can be looked through"):
        await bus.waiting("images", "detect", "mine")
