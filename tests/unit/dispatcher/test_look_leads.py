"""Who may act in a look, and who only decides."""

import asyncio
from copy import copy
from datetime import timedelta

import pytest
from dispatcher_world import GROW, NOW, World, dispatcher_in, empty, nodes, workers

from fusebus.dispatcher.errors import LostLeadership
from fusebus.dispatcher.loop import Dispatcher
from fusebus.dispatcher.seen import NodeSeen, PoolSeen
from fusebus.ledger import Decision


async def test_who_does_not_lead_does_nothing_at_all(world: World, dispatcher: Dispatcher) -> None:
    world.leads = None
    assert await dispatcher.look() == {}
    assert (world.steps, world.written, world.told, world.statuses, world.claims) == ([], [], [], {}, [])


async def test_a_new_leader_claims_each_pool_before_it_acts(world: World, dispatcher: Dispatcher) -> None:
    world.leads = 7
    await dispatcher.look()
    assert (world.claims, world.steps) == ([("gpu", 7)], [])
    await dispatcher.look()
    assert world.steps == GROW


async def test_a_pool_with_a_later_term_ends_leadership(world: World, dispatcher: Dispatcher) -> None:
    world.pools["gpu"] = empty(term=9)
    with pytest.raises(LostLeadership):
        await dispatcher.look()
    assert (world.steps, world.leads, world.met) == ([], None, 9)


async def test_a_lease_that_ends_during_a_look_ends_its_steps(world: World, dispatcher: Dispatcher) -> None:
    world.leads_after_steps = 1
    with pytest.raises(LostLeadership):
        await dispatcher.look()
    assert world.steps == GROW[:1]


async def test_a_leader_that_comes_back_knows_what_the_one_between_decided(
    world: World, dispatcher: Dispatcher
) -> None:
    await dispatcher.look()
    other = Decision(pool="gpu", decided_at=NOW, nodes=3, workers=3, because="another leader")
    world.written.append(other)
    world.leads = 3
    await dispatcher.look()
    assert [found.nodes for found in world.written] == [1, 3, 1]


async def test_a_shadow_decides_under_its_own_name_and_touches_nothing(world: World) -> None:
    world.leads = None
    targets = await dispatcher_in(world, shadow=True).look()
    assert targets["gpu"].nodes == 1
    assert [(found.pool, found.mode) for found in world.written] == [("gpu:shadow", "shadow")]
    assert list(world.statuses) == ["gpu:shadow"]
    assert (world.steps, world.told, world.claims, world.samples) == ([], [], [], [])


async def test_who_was_stopped_in_the_middle_of_a_look_and_leads_no_more_writes_nothing(
    world: World, dispatcher: Dispatcher
) -> None:
    world.pools["gpu"] = PoolSeen(
        name="gpu", steady=True, term=1, target_spot=1, nodes=nodes("running"), workers=workers(1)
    )
    await dispatcher.look()
    before = (len(world.written), dict(world.statuses), list(world.samples), list(world.told), dict(world.notes))
    world.active, world.ends_by_reading = 5000, True
    world.now += timedelta(hours=1)
    with pytest.raises(LostLeadership):
        await dispatcher.look()
    await dispatcher.look()
    assert (len(world.written), world.statuses, world.samples, world.told, world.notes) == before
    assert world.steps == []


async def test_hours_in_which_another_led_are_counted_by_that_one_alone(world: World, dispatcher: Dispatcher) -> None:
    there = NodeSeen(id="n1", state="running", allocated_at=NOW)
    world.pools["gpu"] = PoolSeen(name="gpu", steady=True, term=1, target_spot=1, nodes=(there,), workers=workers(1))
    for seconds in (0, 60):
        world.now = NOW + timedelta(seconds=seconds)
        await dispatcher.look()
    world.leads, world.now = None, NOW + timedelta(hours=2)
    other = dispatcher_in(copy(world))
    other._ledger.leads = 2  # type: ignore[attr-defined]
    await other.look()
    await dispatcher.look()
    await other.look()
    assert sum(sample.node_seconds for sample in world.samples) == 7200


async def test_a_leader_that_stops_in_office_writes_what_it_counted(world: World) -> None:
    there = NodeSeen(id="n1", state="running", allocated_at=NOW)
    world.pools["gpu"] = PoolSeen(name="gpu", steady=True, term=1, target_spot=1, nodes=(there,), workers=workers(1))
    dispatcher, stop = dispatcher_in(world, interval_seconds=0.01), asyncio.Event()
    running = asyncio.create_task(dispatcher.run(stop))
    async with asyncio.timeout(5):
        while not world.statuses:
            await asyncio.sleep(0.01)
    world.now += timedelta(seconds=10)
    stop.set()
    await running
    assert sum(sample.node_seconds for sample in world.samples) == 10
