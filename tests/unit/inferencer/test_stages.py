import asyncio
from collections.abc import Callable

import pytest

from fusebus.inferencer.event_loop import new_loop
from fusebus.inferencer.stages import Closed, Passage, Places, Stage, Stages
from fusebus.inferencer.urgency import Urgency


def urgency(number: int, lane: int = 1) -> Urgency:
    return Urgency(lane, 0.0, number)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_no_more_images_are_inside_than_there_are_places() -> None:
    stage, most = Stage("decode", 2), 0

    async def go(number: int) -> None:
        nonlocal most
        await stage.enter(urgency(number))
        most = max(most, stage.inside)
        await asyncio.sleep(0)
        stage.leave()

    await asyncio.gather(*(go(number) for number in range(20)))
    assert (most, stage.inside, stage.waiting) == (2, 0, 0)


async def test_the_most_urgent_one_that_waits_comes_next() -> None:
    stage, order = Stage("decode", 1), []
    await stage.enter(urgency(0))

    async def go(which: Urgency) -> None:
        await stage.enter(which)
        order.append(which)
        stage.leave()

    wanted = [Urgency(2, 1.0, 1), Urgency(1, 9.0, 2), Urgency(1, 3.0, 3), Urgency(0, 99.0, 4), Urgency(1, 3.0, 5)]
    tasks = [asyncio.create_task(go(which)) for which in wanted]
    await settle()
    stage.leave()
    await asyncio.gather(*tasks)
    assert order == sorted(wanted)


async def test_whoever_is_cancelled_while_waiting_or_as_the_place_comes_keeps_none() -> None:
    stage = Stage("decode", 1)
    await stage.enter(urgency(0))
    waiting, lucky = (asyncio.create_task(stage.enter(urgency(number))) for number in (1, 2))
    await settle()
    waiting.cancel()
    await settle()
    stage.leave()  # the place is lucky's, who does not know it yet
    lucky.cancel()
    await asyncio.gather(waiting, lucky, return_exceptions=True)
    assert (stage.inside, stage.waiting) == (0, 0)


async def test_a_full_model_keeps_the_next_picture_from_being_decoded_and_downloaded() -> None:
    stages = Stages(Places(downloads=2, decoding=1, model=1, annotating=1, uploads=1))
    go_on = asyncio.Event()

    async def image(number: int) -> None:
        with Passage(urgency(number)) as passage:
            for stage in stages:
                await passage.into(stage)
                if stage is stages.model:
                    await go_on.wait()

    tasks = [asyncio.create_task(image(number)) for number in range(8)]
    await settle()
    assert [stage.inside for stage in stages] == [2, 1, 1, 0, 0]
    assert stages.download.waiting == 4
    go_on.set()
    await asyncio.gather(*tasks)
    assert [stage.inside for stage in stages] == [0] * 5


async def test_what_fails_anywhere_leaves_its_place_to_the_others() -> None:
    stages = Stages(Places(downloads=1, decoding=1, model=1, annotating=1, uploads=1))

    async def image(number: int) -> None:
        with Passage(urgency(number)) as passage:
            for at, stage in enumerate(stages):
                await passage.into(stage)
                await asyncio.sleep(0)
                if at == number:
                    raise ValueError(number)

    failed = await asyncio.gather(*(image(number) for number in range(9)), return_exceptions=True)
    assert [isinstance(error, ValueError) for error in failed] == [True] * 5 + [False] * 4
    assert [stage.inside for stage in stages] == [0] * 5


async def test_closing_lets_those_inside_go_on_and_nobody_in() -> None:
    stages = Stages(Places(downloads=1))
    with Passage(urgency(0)) as begun:
        await begun.into(stages.download)
        waiting = asyncio.create_task(stages.download.enter(urgency(1)))
        await settle()
        stages.close()
        with pytest.raises(Closed):
            await waiting
        with pytest.raises(Closed):
            await stages.download.enter(urgency(2))
        await begun.into(stages.decode)
        await begun.into(stages.upload)
    assert [lap.stage for lap in begun.laps] == ["download", "decode", "upload"]
    assert all(lap.asked <= lap.began <= lap.ended for lap in begun.laps)


async def test_patience_ends_in_the_order_of_its_ends_and_takes_no_place() -> None:
    stage = Stage("download", 1)
    await stage.enter(urgency(0))
    ended: list[str] = []

    async def impatient(name: str, number: int, seconds: float) -> None:
        with pytest.raises(TimeoutError, match="no place in the stage download"):
            await stage.enter(urgency(number), seconds)
        ended.append(name)

    long = asyncio.create_task(impatient("long", 1, 0.5))
    short = asyncio.create_task(impatient("short", 2, 0.02))  # moves the timer to an earlier time
    endless = asyncio.create_task(stage.enter(urgency(3)))
    async with asyncio.timeout(10):
        await asyncio.gather(long, short)
    assert ended == ["short", "long"]
    assert (stage.inside, stage.waiting, endless.done()) == (1, 1, False)
    stage.leave()
    await endless
    assert (stage.inside, stage.waiting) == (1, 0)


async def test_who_got_a_place_in_time_keeps_it() -> None:
    stage = Stage("download", 1)
    await stage.enter(urgency(0))
    waiting = asyncio.create_task(stage.enter(urgency(1), 0.02))
    await settle()
    stage.leave()
    await waiting
    late = asyncio.create_task(stage.enter(urgency(2), 0.5))
    await asyncio.sleep(0.03)  # the timer of the one before has come
    assert (stage.inside, stage.waiting) == (1, 1)
    async with asyncio.timeout(10):
        with pytest.raises(TimeoutError):
            await late
    stage.leave()
    assert (stage.inside, stage.waiting) == (0, 0)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, new_loop])
def test_patience_that_ends_at_once_leaves_the_other_s_turn(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """uvloop makes no timer of less than half a millisecond, but a call that has no time."""

    async def main() -> None:
        stage = Stage("decode", 1)
        await stage.enter(urgency(0))
        waits = [asyncio.create_task(stage.enter(urgency(number), patience)) for number, patience in ((1, 0), (2, 600))]
        with pytest.raises(TimeoutError):
            await waits[0]
        stage.leave()
        await waits[1]
        assert stage.inside == 1
        stage.leave()
        assert (stage.inside, stage.waiting) == (0, 0)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())
