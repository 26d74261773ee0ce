"""Nodes and workers that fail, look after look: the breaker, its words, and its end."""

from datetime import timedelta

from dispatcher_world import World, empty, nodes, workers

from fusebus.dispatcher.loop import Dispatcher
from fusebus.dispatcher.seen import NodeSeen, PoolSeen
from fusebus.dispatcher.steps import RemoveNodes, Resize, StopWaiting


async def test_nodes_that_keep_breaking_stop_the_buying_and_their_log_is_in_the_decision(
    world: World, dispatcher: Dispatcher
) -> None:
    for number in range(3):
        node = NodeSeen(id=f"bad{number}", state="starttaskfailed", problem="start task: exit code 1")
        world.pools["gpu"] = PoolSeen(name="gpu", steady=True, term=1, target_spot=1, nodes=(node,))
        await dispatcher.look()
        world.now += timedelta(seconds=60)
    world.pools["gpu"] = empty()
    world.steps.clear()
    targets = await dispatcher.look()
    assert Resize(0, 1) not in world.steps
    assert "3 nodes in a row turned out unusable" in targets["gpu"].because
    assert "bad2: no such driver" in world.statuses["gpu"].breaker
    world.now += timedelta(seconds=700)
    world.steps.clear()
    await dispatcher.look()
    assert Resize(0, 1) in world.steps, "after a while one may try"


async def test_workers_that_keep_failing_are_not_replaced_for_now(world: World, dispatcher: Dispatcher) -> None:
    world.pools["gpu"] = PoolSeen(
        name="gpu", steady=True, term=1, target_spot=1, nodes=nodes("idle"), workers=workers(failed=6)
    )
    targets = await dispatcher.look()
    assert targets["gpu"].workers == 0
    assert "6 workers failed within 120 s" in targets["gpu"].because
    assert "no such module" in world.written[0].facts["breaker"]  # type: ignore[operator]


async def test_waiting_workers_are_called_off_when_nothing_is_left(world: World, dispatcher: Dispatcher) -> None:
    world.active = 0
    world.pools["gpu"] = PoolSeen(
        name="gpu", steady=True, term=1, target_spot=1, nodes=nodes("starting"), workers=workers(waiting=1)
    )
    await dispatcher.look()
    assert world.steps == [StopWaiting(("worker-1",)), RemoveNodes(("n1",))]


async def test_nodes_that_never_get_ready_open_the_breaker_as_broken_ones_do(
    world: World, dispatcher: Dispatcher
) -> None:
    for number in range(3):
        node = NodeSeen(id=f"stuck{number}", state="starting", since=world.now)
        world.pools["gpu"] = PoolSeen(name="gpu", steady=True, term=1, target_spot=1, nodes=(node,))
        await dispatcher.look()
        assert world.statuses["gpu"].breaker == ""
        world.now += timedelta(minutes=19)  # twice the p95 of a boot of 300 s, and two minutes
        await dispatcher.look()
        assert RemoveNodes((node.id,)) in world.steps
    world.pools["gpu"] = empty()
    world.steps.clear()
    await dispatcher.look()
    assert Resize(0, 1) not in world.steps
    assert "3 nodes in a row turned out unusable" in world.statuses["gpu"].breaker


async def test_a_node_that_somebody_took_offline_opens_no_breaker(world: World, dispatcher: Dispatcher) -> None:
    for number in range(4):
        node = NodeSeen(id=f"off{number}", state="offline", since=world.now)
        world.pools["gpu"] = PoolSeen(name="gpu", steady=True, term=1, target_spot=1, nodes=(node,))
        world.now += timedelta(minutes=19)
        await dispatcher.look()
    assert world.statuses["gpu"].breaker == ""
