"""The hard cap in a look: what is metered stops the buying, and nothing that runs."""

from datetime import timedelta

import msgspec
import pytest
from dispatcher_world import NOW, World, dispatcher_in, empty, nodes, workers

from fusebus.costs.settings import CostSettings
from fusebus.dispatcher.seen import PoolSeen
from fusebus.dispatcher.steps import Resize
from fusebus.ledger import CostSample

CAPPED = CostSettings(budget_per_month=10.0)


def spend(world: World, cost: float) -> None:
    start = NOW - timedelta(minutes=1)
    world.samples.append(
        CostSample(
            pool="gpu", started_at=start, ended_at=NOW, node_seconds=60, cost=cost, currency="GBP", estimated=True
        )
    )


@pytest.fixture
def world() -> World:
    """In the middle of a month."""
    return World(now=NOW)


async def test_a_spent_budget_buys_no_node_and_says_what_becomes_of_the_deadlines(world: World) -> None:
    spend(world, 10.5)
    dispatcher = dispatcher_in(world, costs=CAPPED)
    for _ in range(3):
        targets = await dispatcher.look()
        world.now += timedelta(seconds=15)
    assert world.steps == [] and targets["gpu"].nodes == 0
    assert [crossed.share for crossed in world.crossed] == [0.5, 0.8, 0.9, 1.0], "each once"
    words = world.crossed[-1].consequence
    assert "Buying goes on when the budget is raised" in words
    assert "10 images wait, 10 of them are due before and will be late" in words
    assert "10.50 of 10.00 GBP spent" in str(world.written[0].facts["budget"])
    (late,) = world.alerts
    assert late.images == 10, "that the work will be late is alerted too"


async def test_nodes_that_are_there_go_on_while_the_budget_is_spent(world: World) -> None:
    spend(world, 10.5)
    busy = PoolSeen(
        name="gpu", steady=True, term=1, target_spot=1, nodes=nodes("running"), workers=workers(1), resized_at=NOW
    )
    world.pools["gpu"] = busy
    dispatcher = dispatcher_in(world, costs=CAPPED)
    await dispatcher.look()
    assert world.steps == []


async def test_what_is_metered_look_by_look_ends_the_buying_within_the_budget(world: World) -> None:
    """One node at 0.14 GBP an hour, and a budget of 0.10: after about half an hour the rest is kept for its end."""
    world.active = 5000
    node = msgspec.structs.replace(nodes("running")[0], allocated_at=NOW)
    world.pools["gpu"] = PoolSeen(
        name="gpu", steady=True, term=1, target_spot=1, nodes=(node,), workers=workers(1), resized_at=NOW
    )
    dispatcher = dispatcher_in(world, costs=CostSettings(budget_per_month=0.1))
    stopped_at = None
    for minute in range(60):
        world.now = NOW + timedelta(minutes=minute)
        await dispatcher.look()
        if stopped_at is None and any(crossed.share == 1.0 for crossed in world.crossed):
            stopped_at = minute
    assert stopped_at is not None and 20 <= stopped_at <= 30
    world.pools["gpu"], world.steps[:] = empty(), []
    await dispatcher.look()
    assert not [step for step in world.steps if isinstance(step, Resize)]
    assert sorted(crossed.share for crossed in world.crossed) == [0.5, 0.8, 0.9, 1.0], "each once"
