"""Several pools in one look: each gets its own, and none waits for another's trouble."""

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta

import msgspec
import pytest
from dispatcher_world import NOW, TWO, World, dispatcher_in, empty, nodes, workers

from fusebus.dispatcher.seen import PoolSeen
from fusebus.dispatcher.settings import PoolEntry
from fusebus.dispatcher.steps import AddWorkers, RemoveNodes, Resize


async def test_each_pool_gets_its_own_kinds_work_and_buys_what_it_may() -> None:
    world = World(pools={"gpu": empty("gpu"), "cpu": empty("cpu")})
    targets = await dispatcher_in(world, **TWO).look()
    assert [(name, target.dedicated, target.spot) for name, target in targets.items()] == [("gpu", 0, 1), ("cpu", 1, 0)]
    assert world.steps == [AddWorkers(1), Resize(0, 1), AddWorkers(1), Resize(1, 0)]
    assert {found.pool for found in world.told} == {"gpu", "cpu"}


@pytest.mark.parametrize("broken", ["batch gpu", "step gpu"])
async def test_one_pools_trouble_leaves_the_other_alone(broken: str) -> None:
    world = World(pools={"gpu": empty("gpu"), "cpu": empty("cpu")}, broken={broken})
    await dispatcher_in(world, **TWO).look()
    assert world.steps == [AddWorkers(1), Resize(1, 0)]


def two() -> World:
    return World(pools={"gpu": empty("gpu"), "cpu": empty("cpu")})


@pytest.mark.parametrize("slow", ["read gpu", "step gpu"])
async def test_a_slow_pool_holds_up_no_other_and_is_gone_on_with_once_it_answers(slow: str) -> None:
    world = two()
    world.slow[slow] = asyncio.Event()
    dispatcher = dispatcher_in(world, patience_seconds=0.05, **TWO)
    for _ in range(2):
        began = time.monotonic()
        await dispatcher.look()
        assert time.monotonic() - began < 10.0
    assert world.steps[:2] == [AddWorkers(1), Resize(1, 0)], "the other pool's"
    world.steps.clear()
    world.slow.pop(slow).set()
    await asyncio.sleep(0)
    await dispatcher.look()
    assert {AddWorkers(1), Resize(0, 1)} <= set(world.steps)


async def test_a_pool_whose_steps_are_under_way_gets_no_others(world: World) -> None:
    world.slow["step gpu"] = asyncio.Event()
    dispatcher = dispatcher_in(world, patience_seconds=0.02)
    for _ in range(3):
        await dispatcher.look()
    assert "still under way" in world.statuses["gpu"].problem
    world.slow.pop("step gpu").set()
    await dispatcher.look()
    assert world.steps == [AddWorkers(1), Resize(0, 1)], "once, although four looks wanted them"


async def test_steps_that_come_to_their_turn_after_the_term_are_not_taken(world: World) -> None:
    world.slow["step gpu"] = asyncio.Event()
    dispatcher = dispatcher_in(world, patience_seconds=0.02)
    await dispatcher.look()
    world.leads = None
    assert await dispatcher.look() == {}
    world.slow.pop("step gpu").set()
    await asyncio.sleep(0.01)
    assert world.steps == [AddWorkers(1)], "what was on its way; Batch judges it by its ETag or name"


async def test_orders_that_take_long_to_read_hold_up_nothing_and_the_last_known_ones_count(world: World) -> None:
    dispatcher = dispatcher_in(world, patience_seconds=0.02)
    await dispatcher.look()
    world.slow["controls"] = asyncio.Event()
    world.steps.clear()
    await dispatcher.look()
    assert world.steps == [AddWorkers(1), Resize(0, 1)]
    world.slow["controls"].set()


async def test_an_error_nobody_foresaw_in_one_pool_leaves_the_other_alone() -> None:
    world = two()
    world.broken = {"surprise gpu"}
    await dispatcher_in(world, **TWO).look()
    assert world.steps == [AddWorkers(1), Resize(1, 0)]


async def test_what_is_read_beside_the_looks_ends_with_the_process(world: World) -> None:
    world.slow["read gpu"] = asyncio.Event()
    dispatcher, stop = dispatcher_in(world, patience_seconds=0.02, interval_seconds=0.01), asyncio.Event()
    running = asyncio.create_task(dispatcher.run(stop))
    await asyncio.sleep(0.1)
    stop.set()
    async with asyncio.timeout(5):
        await running
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "gpu"]


async def test_what_a_pool_that_can_not_be_read_has_is_not_bought_again_elsewhere_for_a_while() -> None:
    pools = {"pools": [PoolEntry(name="north"), PoolEntry(name="south")]}
    busy = PoolSeen(
        name="north", steady=True, term=1, target_spot=1, nodes=nodes("running"), workers=workers(1), resized_at=NOW
    )
    world, clock = World(active=40, pools={"north": busy, "south": empty("south")}), Ticks()
    dispatcher = dispatcher_in(world, believed_seconds=300, **pools)
    dispatcher._eyes._clock = clock
    await dispatcher.look()
    assert world.steps == []
    world.broken = {"batch north"}
    for seconds in (30, 170):
        clock.now += seconds
        targets = await dispatcher.look()
        assert (world.steps, list(targets)) == ([], ["south"])
    clock.now += 200
    await dispatcher.look()
    assert world.steps == [AddWorkers(1), Resize(0, 1)], "after a while its work is somebody else's"


@dataclass
class Ticks:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("seconds", "bought"), [(30, False), (90, True)])
async def test_a_pool_that_has_just_not_been_read_is_waited_for_before_more_is_bought_elsewhere(
    seconds: float, bought: bool
) -> None:
    pools = {"pools": [PoolEntry(name="north"), PoolEntry(name="south")]}
    world, clock = World(active=0, pools={"north": empty("north"), "south": empty("south")}), Ticks()
    dispatcher = dispatcher_in(world, settle_seconds=0, deadline_seconds=600, **pools)
    dispatcher._eyes._clock = clock
    await dispatcher.look()
    world.active, world.broken = 40, {"batch north"}
    clock.now += seconds
    await dispatcher.look()
    assert bool(world.steps) is bought


async def test_books_that_take_long_to_write_hold_up_no_step_and_are_written_once(world: World) -> None:
    dispatcher = dispatcher_in(world, patience_seconds=0.02, cost_sample_seconds=15)
    there = msgspec.structs.replace(nodes("unusable")[0], allocated_at=NOW)
    world.pools["gpu"] = PoolSeen(name="gpu", steady=True, term=1, target_spot=1, nodes=(there,))
    await dispatcher.look()
    world.slow = {"costs": asyncio.Event(), "notes": asyncio.Event()}
    world.steps.clear()
    for _ in range(3):
        world.now += timedelta(seconds=15)
        await dispatcher.look()
    assert RemoveNodes(("n1",)) in world.steps and world.samples == []
    slow, world.slow = world.slow, {}
    for event in slow.values():
        event.set()
    await asyncio.sleep(0.01)
    await dispatcher.look()
    assert [sample.node_seconds for sample in world.samples] == [15, 15, 15]


async def test_books_that_are_still_being_written_when_the_lease_is_lost_are_dropped(world: World) -> None:
    dispatcher = dispatcher_in(world, patience_seconds=0.02, cost_sample_seconds=15)
    world.pools["gpu"] = PoolSeen(
        name="gpu", steady=True, term=1, target_spot=1, nodes=nodes("running"), workers=workers(1)
    )
    await dispatcher.look()
    world.slow = {"costs": asyncio.Event()}
    world.now += timedelta(seconds=15)
    await dispatcher.look()
    world.leads = None
    await dispatcher.look()
    world.slow.pop("costs").set()
    await asyncio.sleep(0.01)
    assert world.samples == []
