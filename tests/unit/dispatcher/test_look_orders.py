"""People's orders in a look: pauses, pins, the kill switch, and what a pin can't have."""

from datetime import timedelta
from typing import Any

import pytest
from dispatcher_world import GROW, NOW, TWO, World, dispatcher_in, empty, nodes, settings_with, workers

from fusebus.costs import Verdict
from fusebus.dispatcher.breaker import Breaker
from fusebus.dispatcher.ceilings import ceilings
from fusebus.dispatcher.facts import Facts
from fusebus.dispatcher.loop import Dispatcher
from fusebus.dispatcher.orders import Orders, obey
from fusebus.dispatcher.quota import Quota
from fusebus.dispatcher.seen import PoolSeen
from fusebus.dispatcher.settings import PoolEntry
from fusebus.dispatcher.steps import DrainWorkers, RemoveNodes, Target
from fusebus.ledger import (
    Controls,
    LedgerUnavailable,
    Pause,
    Pin,
)

BUSY = PoolSeen(
    name="gpu", steady=True, term=1, target_spot=3, nodes=nodes("running", "running", "idle"), workers=workers(2)
)


def paused(**more: Any) -> Controls:
    return Controls(pauses={"": Pause(set_by="ops@desk", set_at=NOW, **more)})


async def test_a_pause_stops_every_step_and_is_written_down(world: World, dispatcher: Dispatcher) -> None:
    world.orders = paused(reason="maintenance")
    await dispatcher.look()
    assert world.steps == []
    assert [(found.mode, found.because) for found in world.written] == [("paused", "paused by ops@desk: maintenance")]
    world.orders = Controls()
    await dispatcher.look()
    assert world.steps == GROW


async def test_the_kill_switch_of_the_settings_needs_no_ledger(world: World) -> None:
    world.pools["gpu"] = BUSY
    world.broken = {"ledger"}
    with pytest.raises(LedgerUnavailable):  # saying so can wait
        await dispatcher_in(world, kill_switch=True).look()
    assert DrainWorkers(("worker-2", "worker-1")) in world.steps


@pytest.mark.parametrize("how", ["ledger", "settings"])
async def test_the_kill_switch_drains_workers_and_empties_the_pool(world: World, how: str) -> None:
    world.pools["gpu"] = BUSY
    world.orders = paused(to_zero=True) if how == "ledger" else Controls()
    await dispatcher_in(world, kill_switch=how == "settings").look()
    assert world.steps == [DrainWorkers(("worker-2", "worker-1")), RemoveNodes(("n3",))]
    assert world.written[0].mode == "emptied"
    assert "kill switch" in world.written[0].because


async def test_a_pin_fixes_the_nodes_and_drains_what_is_above(world: World, dispatcher: Dispatcher) -> None:
    world.pools["gpu"] = BUSY
    pin = Pin(pool="gpu", nodes=1, until=NOW + timedelta(hours=1), set_by="ops@desk", set_at=NOW, reason="a test")
    world.orders = Controls(pins={"gpu": pin})
    await dispatcher.look()
    assert world.steps == [DrainWorkers(("worker-2",)), RemoveNodes(("n3",))]
    assert "pinned to 1 node by ops@desk until 2026-11-21 01:00 UTC: a test; the policy beside it" in (
        world.written[0].because
    )


async def test_a_pin_above_the_ceiling_gets_the_ceiling_even_without_a_known_depth(
    world: World, dispatcher: Dispatcher
) -> None:
    world.active = None
    pin = Pin(pool="gpu", nodes=50, until=NOW + timedelta(hours=1), set_by="ops", set_at=NOW)
    world.orders = Controls(pins={"gpu": pin})
    targets = await dispatcher.look()
    assert targets["gpu"].nodes == 4
    assert "at most 4 are allowed" in targets["gpu"].because


@pytest.mark.parametrize("how", ["pinned", "paused", "emptied"])
async def test_work_that_people_keep_from_one_pool_is_bought_in_another(how: str) -> None:
    t4, a100 = PoolEntry(name="t4"), PoolEntry(name="a100", vm_size="Standard_NC24ads_A100_v4", seconds_per_image=0.25)
    pause = Pause(set_by="ops", set_at=NOW, to_zero=how == "emptied")
    orders = Controls(pins={"t4": pinned("t4", 0)}) if how == "pinned" else Controls(pauses={"t4": pause})
    world = World(pools={"t4": empty("t4"), "a100": empty("a100")}, active=1500, orders=orders)
    calm = {"pools": [t4, a100], "max_nodes": 5, "deadline_seconds": 1800.0, "storms_per_hour": 0.0}
    without = await dispatcher_in(World(pools=world.pools, active=1500), **calm).look()
    assert (without["t4"].spot, without["a100"].nodes) == (2, 0)
    found = await dispatcher_in(world, **calm).look()
    assert (found["t4"].nodes, found["a100"].spot) == (0, 1)
    assert "buys 1 Spot Standard_NC24ads_A100_v4" in found["a100"].because


@pytest.mark.parametrize(
    ("order", "late"),
    [("pin of an hour", True), ("pause", True), ("pause of an hour", True), ("pause of a minute", False)],
)
async def test_work_that_people_hold_back_for_too_long_is_told_as_late(world: World, order: str, late: bool) -> None:
    ends = {"pause of an hour": NOW + timedelta(hours=1), "pause of a minute": NOW + timedelta(minutes=1)}
    pauses = {"gpu": Pause(set_by="ops", set_at=NOW, until=ends.get(order))}
    world.orders = Controls(pins={"gpu": pinned("gpu", 0)}) if "pin" in order else Controls(pauses=pauses)
    world.active = 1500
    dispatcher = dispatcher_in(world, deadline_seconds=1800.0)
    for _ in range(2):
        assert (await dispatcher.look())["gpu"].nodes == 0
        world.now += timedelta(seconds=15)
    assert [alert.images for alert in world.alerts] == [1500] * late


def pinned(pool: str, count: int) -> Pin:
    return Pin(pool=pool, nodes=count, until=NOW + timedelta(hours=1), set_by="ops", set_at=NOW)


async def test_a_pin_stays_within_the_nodes_of_all_pools_together() -> None:
    world = World(active=0, pools={"gpu": empty("gpu"), "cpu": empty("cpu")})
    there = nodes("running", "running", "running")
    world.pools["cpu"] = PoolSeen(name="cpu", steady=True, term=1, target_spot=3, nodes=there, workers=workers(3))
    world.orders = Controls(pins={"gpu": pinned("gpu", 4), "cpu": pinned("cpu", 4)})
    targets = await dispatcher_in(world, **TWO).look()
    assert sum(target.nodes for target in targets.values()) == 4
    assert "at most 4 nodes are allowed in all, 3 are other pools'" in targets["gpu"].because


@pytest.mark.parametrize(
    ("quota", "nodes_allowed", "words"),
    [
        (Quota(spot=8, dedicated=0), 2, "the quota of 8 Spot cores leaves 2 nodes"),
        (Quota(spot=0, dedicated=99), 0, "the quota of 0 Spot cores leaves 0 nodes"),
        (Quota(), 3, "pinned to 3 nodes"),
    ],
)
async def test_a_pin_stays_within_the_quota(world: World, quota: Quota, nodes_allowed: int, words: str) -> None:
    world.allowed = quota
    world.orders = Controls(pins={"gpu": pinned("gpu", 3)})
    target = (await dispatcher_in(world).look())["gpu"]
    assert target.nodes == nodes_allowed
    assert words in target.because
    assert "dedicated cores" not in target.because


def test_a_pin_buys_nothing_once_the_budget_is_spent_and_keeps_what_is_there() -> None:
    settings, spent = settings_with(), Verdict(left=0.0, alerts=(), because="the budget is spent")
    seen = PoolSeen(name="gpu", steady=True, target_spot=1, nodes=nodes("running"))
    (pool,), facts = settings.all_pools, Facts(now=NOW, pools={"gpu": seen})
    orders = Orders(pin=pinned("gpu", 3), max_nodes=4, ceilings=ceilings(pool, settings, facts, {}, spent))
    target = obey(Target(because="policy"), seen, orders, Breaker(), NOW)
    assert target.nodes == 1
    assert "nothing is bought: the budget is spent" in target.because


async def test_without_knowing_the_orders_nothing_is_done_and_afterwards_the_last_known_ones_hold(
    world: World, dispatcher: Dispatcher
) -> None:
    world.broken = {"ledger"}
    await dispatcher.look()
    assert world.steps == []
    world.broken, world.orders = set(), paused()
    await dispatcher.look()
    world.broken = {"ledger"}
    await dispatcher.look()
    assert world.steps == []


async def test_a_last_known_pin_ends_at_its_time_although_the_ledger_is_away(
    world: World, dispatcher: Dispatcher
) -> None:
    world.active = 0
    pin = Pin(pool="gpu", nodes=2, until=NOW + timedelta(hours=1), set_by="ops", set_at=NOW)
    world.orders = Controls(pins={"gpu": pin})
    world.pools["gpu"] = PoolSeen(name="gpu", steady=True, term=1, target_spot=2, nodes=nodes("idle", "idle"))
    assert (await dispatcher.look())["gpu"].nodes == 2
    world.broken = {"ledger"}
    world.now += timedelta(minutes=30)
    assert (await dispatcher.look())["gpu"].nodes == 2
    world.now += timedelta(minutes=31)
    with pytest.raises(LedgerUnavailable):  # saying so can wait
        await dispatcher.look()
    assert world.steps == [RemoveNodes(("n1", "n2"))]
