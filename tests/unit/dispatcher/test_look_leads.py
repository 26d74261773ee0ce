"""Who may act in a look, and who only decides."""

import pytest
from dispatcher_world import GROW, NOW, World, dispatcher_in, empty

from fusebus.dispatcher.errors import LostLeadership
from fusebus.dispatcher.loop import Dispatcher
from fusebus.ledger import (
    Decision,
)


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
