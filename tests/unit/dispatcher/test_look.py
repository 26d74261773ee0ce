"""One look after another with plain ports: what is decided, carried out and said, and what is when something fails."""

import asyncio
from datetime import timedelta

import pytest
from dispatcher_world import GROW, NOW, World, dispatcher_in, empty, nodes, settings_with, workers

from fusebus.bus import PublishFailed
from fusebus.dispatcher.loop import Dispatcher
from fusebus.dispatcher.memory import Memory
from fusebus.dispatcher.seen import PoolSeen
from fusebus.dispatcher.steps import RemoveNodes
from fusebus.ledger import (
    LedgerUnavailable,
    RunRow,
    RunState,
    Window,
)


async def test_a_decision_is_carried_out_written_and_told_once(world: World, dispatcher: Dispatcher) -> None:
    await dispatcher.look()
    await dispatcher.look()
    assert world.steps[:2] == GROW
    assert [(found.nodes, found.workers) for found in world.written] == [(1, 1)]
    assert [found.because for found in world.told] == [found.because for found in world.written]
    assert world.statuses["gpu"].wanted_spot == 1


@pytest.mark.parametrize(("opened", "removed"), [(60, False), (600, True)])
async def test_a_window_that_has_opened_keeps_its_nodes_until_its_images_are_seen(
    world: World, dispatcher: Dispatcher, opened: int, removed: bool
) -> None:
    opens_at = NOW - timedelta(seconds=opened)
    world.announced = [Window(job_kind="detect", opens_at=opens_at, deadline=NOW + timedelta(hours=1), images=100)]
    world.pools["gpu"] = PoolSeen(name="gpu", steady=True, target_spot=2, nodes=nodes("idle", "idle"), term=1)
    world.active = 0
    await dispatcher.look()
    assert [type(step) for step in world.steps] == [RemoveNodes] * removed


@pytest.mark.parametrize("broken", ["bus", "ledger"])
async def test_what_could_not_be_said_holds_up_no_step_and_is_said_by_the_next_look(
    world: World, dispatcher: Dispatcher, broken: str
) -> None:
    world.active = None
    await dispatcher.look()  # orders are known from here on
    world.active, world.broken = 10, {broken}
    with pytest.raises(PublishFailed if broken == "bus" else LedgerUnavailable):
        await dispatcher.look()
    assert world.steps == GROW
    world.broken = set()
    await dispatcher.look()
    assert len(world.told) == 1
    assert {found.decided_at for found in world.written} == {NOW}


async def test_a_step_that_batch_refuses_is_said_all_the_same_and_tried_again(
    world: World, dispatcher: Dispatcher
) -> None:
    world.broken = {"step"}
    await dispatcher.look()
    assert len(world.told) == 1
    assert world.statuses["gpu"].problem == "500"
    world.broken = set()
    await dispatcher.look()
    assert world.steps == GROW
    assert len(world.told) == 1
    assert world.statuses["gpu"].problem == ""


async def test_workers_that_can_not_be_queued_hold_up_no_removal_and_get_no_nodes(
    world: World, dispatcher: Dispatcher
) -> None:
    world.broken = {"AddWorkers"}
    world.pools["gpu"] = PoolSeen(name="gpu", steady=True, term=1, target_spot=1, nodes=nodes("unusable"))
    await dispatcher.look()
    assert world.steps == [RemoveNodes(("n1",))]
    assert world.statuses["gpu"].problem == "409 JobCompleted"
    world.pools["gpu"] = empty()
    await dispatcher.look()
    assert world.steps == [RemoveNodes(("n1",))], "nodes without workers would only cost"


async def test_an_unknown_depth_changes_and_says_nothing(world: World, dispatcher: Dispatcher) -> None:
    await dispatcher.look()
    world.active = None
    world.steps.clear()
    await dispatcher.look()
    assert (world.steps, len(world.told)) == ([], 1)
    world.active = 10
    await dispatcher.look()
    assert len(world.told) == 1, "what was decided before stays decided"


async def test_a_restart_does_not_repeat_the_last_decision(world: World, dispatcher: Dispatcher) -> None:
    await dispatcher.look()
    await dispatcher_in(world).look()
    assert len(world.written) == 1


async def test_nodes_cost_while_batch_can_not_be_seen_and_samples_wait_for_the_books(
    world: World, dispatcher: Dispatcher
) -> None:
    world.pools["gpu"] = PoolSeen(
        name="gpu", steady=True, term=1, target_spot=2, nodes=nodes("running", "running"), workers=workers(2)
    )
    await dispatcher.look()
    world.broken = {"batch gpu", "ledger"}
    for _ in range(3):
        world.now += timedelta(seconds=60)
        await dispatcher.look()
    assert world.samples == []
    world.broken = set()
    await dispatcher.look()
    assert sum(sample.node_seconds for sample in world.samples) == 2 * 180


async def test_a_pool_that_can_not_be_read_says_so_and_keeps_its_last_status(
    world: World, dispatcher: Dispatcher
) -> None:
    await dispatcher.look()
    world.broken = {"batch gpu"}
    world.now += timedelta(seconds=15)
    await dispatcher.look()
    status = world.statuses["gpu"]
    assert (status.problem, status.looked_at, status.max_nodes) == ("503", world.now, 4)


async def test_work_that_will_be_late_is_told_once_although_nothing_can_be_bought(
    world: World, dispatcher: Dispatcher
) -> None:
    dispatcher = dispatcher_in(world, max_nodes=0)
    for _ in range(3):
        await dispatcher.look()
    assert [(found.nodes, found.late) for found in world.written] == [(0, True)]
    assert "LATE: 10 of 10 detect images" in world.told[0].because
    assert world.steps == []


async def test_a_clock_that_jumps_by_an_hour_takes_nothing_back_and_asks_for_nothing_twice(
    world: World, dispatcher: Dispatcher
) -> None:
    await dispatcher.look()
    busy = PoolSeen(
        name="gpu", steady=True, term=1, target_spot=1, nodes=nodes("running"), workers=workers(1), resized_at=NOW
    )
    world.pools["gpu"] = busy
    world.steps.clear()
    for number in range(10):
        world.now = NOW + timedelta(hours=1 if number % 2 else -1)
        await dispatcher.look()
    assert world.steps == []


async def test_a_disabled_subscription_buys_nothing_and_says_so(world: World) -> None:
    world.receives = False
    targets = await dispatcher_in(world).look()
    assert targets["gpu"].nodes == 0
    assert "the subscription of detect is disabled" in targets["gpu"].because


async def test_an_error_nobody_foresaw_ends_one_look_and_not_the_process(world: World) -> None:
    world.surprises = 2
    dispatcher, stop = dispatcher_in(world, interval_seconds=0.01), asyncio.Event()
    running = asyncio.create_task(dispatcher.run(stop))
    async with asyncio.timeout(5):
        while not world.told and not running.done():
            await asyncio.sleep(0.01)
    stop.set()
    await running
    assert world.surprises == 0 and world.written


async def test_a_row_that_can_not_be_decoded_leaves_a_gap_and_stops_no_look(
    world: World, dispatcher: Dispatcher
) -> None:
    world.broken = {"row"}
    await dispatcher.look()
    assert world.steps == GROW


def test_a_boot_time_of_zero_in_the_settings_is_nothing_to_divide_by() -> None:
    assert Memory(settings_with(boot_seconds=0.0)).pools["gpu"].boot.p50 > 0


async def test_a_complete_delivery_is_read_no_more_and_an_open_one_is_seen_however_many_came_after(
    world: World,
) -> None:
    def run(name: str, state: RunState) -> RunRow:
        return RunRow(run_id=name, supplier="acme", state=state, opened_at=NOW, last_upload_at=NOW, first_upload_id="u")

    world.deliveries = [*(run(f"r{number}", RunState.COMPLETE) for number in range(1500)), run("old", RunState.OPEN)]
    dispatcher = dispatcher_in(world, ledger_seconds=1e-9)
    for _ in range(2):
        dispatcher._eyes._work_until = 0.0
        await dispatcher.look()
    assert world.looked_into == ["old"]
