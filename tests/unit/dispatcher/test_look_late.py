"""Work that no pool can do in time: somebody is told, once for each time."""

from datetime import timedelta

import pytest
from dispatcher_world import World, dispatcher_in

from fusebus.bus import PublishFailed


async def test_two_looks_that_see_late_work_alert_once(world: World) -> None:
    dispatcher = dispatcher_in(world, max_nodes=0)
    counts = []
    for _ in range(4):
        await dispatcher.look()
        counts.append(len(world.alerts))
        world.now += timedelta(seconds=15)
    assert counts == [0, 1, 1, 1]
    (alert,) = world.alerts
    assert (alert.job_kind, alert.images, alert.late_seconds) == ("detect", 10, None)
    assert "10 of 10 detect images are late" in alert.because


async def test_it_is_told_anew_only_after_an_hour_without_late_work(world: World) -> None:
    dispatcher = dispatcher_in(world, max_nodes=0)
    for minutes, active in ((0, 10), (1, 10), (10, 0), (11, 10), (12, 10), (90, 0), (91, 10), (92, 10), (93, 10)):
        world.now, world.active = world.now.replace(hour=minutes // 60, minute=minutes % 60), active
        await dispatcher.look()
    assert [alert.since.hour * 60 + alert.since.minute for alert in world.alerts] == [0, 91]


async def test_an_alert_that_can_not_be_sent_is_sent_by_a_later_look_under_the_same_name(world: World) -> None:
    dispatcher = dispatcher_in(world, max_nodes=0)
    await dispatcher.look()
    world.now += timedelta(seconds=15)
    world.broken = {"bus"}
    with pytest.raises(PublishFailed):
        await dispatcher.look()
    world.now += timedelta(seconds=15)
    world.broken = set()
    await dispatcher.look()
    assert [alert.since for alert in world.alerts] == [world.now - timedelta(seconds=30)]


async def test_a_restart_and_another_leader_tell_nothing_twice(world: World) -> None:
    for term in (1, 1, 2):
        world.leads = term
        dispatcher = dispatcher_in(world, max_nodes=0)
        for _ in range(3):
            world.now += timedelta(seconds=15)
            await dispatcher.look()
    assert len(world.alerts) == 1


async def test_a_shadow_alerts_nobody(world: World) -> None:
    dispatcher = dispatcher_in(world, max_nodes=0, shadow=True)
    for _ in range(3):
        world.now += timedelta(seconds=15)
        await dispatcher.look()
    assert world.alerts == []
