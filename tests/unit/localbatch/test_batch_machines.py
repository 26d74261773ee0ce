"""Boots, start tasks, notices, evictions and breakage on a hand-moved clock."""

import statistics
from collections.abc import Callable
from typing import Any

import pytest

from fusebus.localbatch.entities import (
    BatchProblem,
    Deallocation,
    DropFiles,
    DropNodeFiles,
    EventKind,
    NodeState,
    StartNodeProcess,
    TaskState,
)

Worlds = Callable[..., Any]


def boots(world: Any, nodes: int) -> list[float]:
    """Seconds from the request until each node is idle."""
    began = world.now
    world.scale(spot=nodes)
    world.step(2000)
    return [node.booted - began for node in world.state.pool("gpu").nodes.values()]


def test_boots_vary_around_their_median_and_a_seed_gives_the_same_again(new_world: Worlds) -> None:
    quota = {"capacity": None, "boot_seconds": 240.0}
    drawn = boots(new_world(boot_spread=0.4, seed=1, **quota), 200)
    assert statistics.median(drawn) == pytest.approx(240, rel=0.1)
    assert max(drawn) > 400 and min(drawn) < 160
    assert drawn == boots(new_world(boot_spread=0.4, seed=1, **quota), 200)
    assert drawn != boots(new_world(boot_spread=0.4, seed=2, **quota), 200)
    assert set(boots(new_world(**quota), 5)) == {240.0}


def test_a_resize_gives_up_exactly_at_its_timeout(world: Any) -> None:
    world.state.faults.market[("standard_nc4as_t4_v3", True)] = 1
    world.scale(dedicated=3, resizeTimeout="PT6M")
    world.step(359)
    pool = world.state.pool("gpu")
    assert (pool.allocation_state, len(pool.nodes), pool.resize_errors) == ("resizing", 1, [])
    world.step(1)
    assert (pool.allocation_state, [code for code, _ in pool.resize_errors]) == ("steady", ["AllocationTimedout"])
    assert pool.target_dedicated == 3


def test_quota_and_market_errors_are_told_together(new_world: Worlds) -> None:
    world = new_world(dedicated_cores=8)
    world.state.faults.market[("standard_nc4as_t4_v3", False)] = 0
    world.scale(dedicated=3, spot=1)
    world.step(1000)
    codes = [code for code, _ in world.state.pool("gpu").resize_errors]
    assert codes == ["AccountCoreQuotaReached", "AllocationTimedout"]


def test_sizes_that_are_not_listed_count_with_the_cores_of_their_name(new_world: Worlds) -> None:
    world = new_world(capacity=None, spot_cores=40)
    world.state.create_pool("big", {"vmSize": "Standard_E16_v9"})
    world.state.update_pool("big", {"scaleSettings": {"fixedScale": {"targetLowPriorityNodes": 9}}})
    world.step(20)
    assert len(world.state.pool("big").nodes) == 2


def test_a_start_task_that_fails_runs_again_as_often_as_it_may(world: Any) -> None:
    world.state.update_pool("gpu", {"startTask": {"commandLine": "prepare", "maxTaskRetryCount": 2}})
    world.scale(spot=1)
    world.step(10)
    assert world.states() == ["waitingforstarttask"]
    for code in (1, 1, 0):
        (run,) = world.state.start_runs
        world.state.process_ended(run, code)
        world.step()
    assert world.states() == ["idle"]
    (node,) = world.state.pool("gpu").nodes.values()
    assert (node.start_info.retries, node.start_info.failure) == (2, None)
    assert sum(isinstance(done, StartNodeProcess) for done in world.done) == 3


def test_tasks_do_not_wait_for_a_start_task_that_need_not_succeed(world: Any) -> None:
    world.state.update_pool("gpu", {"startTask": {"commandLine": "prepare", "waitForSuccess": False}})
    world.task("a")
    world.scale(spot=1)
    world.step(10)
    assert world.states() == ["running"]
    (run,) = world.state.start_runs
    world.state.process_ended(run, 1)
    world.step()
    assert world.states() == ["running"]


def test_a_notice_comes_before_the_end_and_the_machine_goes_on_time(world: Any) -> None:
    world.task("a")
    world.scale(spot=1)
    world.step(10)
    (node,) = world.state.pool("gpu").nodes.values()
    world.state.announce("gpu", node.id, EventKind.PREEMPT, 30)
    world.step(29)
    assert (node.state, node.notice is None) == (NodeState.RUNNING, False)
    world.step(1)
    assert (node.state, node.notice) == (NodeState.PREEMPTED, None)
    assert DropNodeFiles("gpu", node.id) in world.done


def test_a_freeze_passes_and_a_reboot_restarts_the_machine_and_gives_the_task_back(world: Any) -> None:
    world.task("a")
    world.scale(dedicated=1)
    world.step(10)
    (node,) = world.state.pool("gpu").nodes.values()
    world.state.announce("gpu", node.id, EventKind.FREEZE, 5)
    world.step(10)
    assert (world.states(), node.incarnation) == (["running"], 3)
    world.state.announce("gpu", node.id, EventKind.REBOOT, 5)
    world.step(5)
    assert world.states() == ["rebooting"]
    world.end("a", 137)
    world.step(1)
    assert (world.states(), world.state.task("work", "a").requeues) == (["running"], 1)


def test_a_preempted_node_waits_until_the_market_has_a_machine(world: Any) -> None:
    world.scale(spot=1)
    world.step(10)
    world.state.faults.market[("standard_nc4as_t4_v3", False)] = 0
    world.state.preempt("gpu", next(iter(world.state.pool("gpu").nodes)))
    world.step(500)
    assert world.states() == ["preempted"]
    world.state.faults.market.clear()
    world.step(20 + 10)
    assert world.states() == ["idle"]


def test_spot_nodes_live_as_long_as_told_on_average_and_the_seed_decides(new_world: Worlds) -> None:
    def lives(seed: int) -> list[float]:
        world = new_world(capacity=None, spot_lifetime_seconds=3600.0, seed=seed)
        world.scale(spot=300)
        world.step(10)
        return [node.evict_at - node.booted for node in world.state.pool("gpu").nodes.values()]

    assert statistics.mean(lives(1)) == pytest.approx(3600, rel=0.2)
    assert lives(1) == lives(1) != lives(2)


def test_an_unusable_node_is_billed_and_may_recover(world: Any) -> None:
    world.scale(spot=1)
    world.step(10)
    (node,) = world.state.pool("gpu").nodes.values()
    world.state.break_node("gpu", node.id, 60)
    before = world.state.billed_node_seconds("gpu")[False]
    world.step(59)
    assert world.states() == ["unusable"]
    assert world.state.billed_node_seconds("gpu")[False] == before + 59
    world.step(1)
    assert (world.states(), node.errors) == (["idle"], [])


@pytest.mark.parametrize(
    ("state", "code"),
    [("starting", "NodeBeingStarted"), ("unusable", "NodeStateUnusable"), ("rebooting", "NodeBeingRebooted")],
)
def test_a_node_is_not_restarted_at_every_time(world: Any, state: str, code: str) -> None:
    world.scale(spot=1)
    world.step(3 if state == "starting" else 10)
    (node,) = world.state.pool("gpu").nodes.values()
    if state == "unusable":
        world.state.break_node("gpu", node.id)
    if state == "rebooting":
        world.state.reboot("gpu", node.id, Deallocation.REQUEUE)
    with pytest.raises(BatchProblem) as refused:
        world.state.reboot("gpu", node.id, Deallocation.REQUEUE)
    assert (refused.value.status, refused.value.code) == (409, code)


def test_a_stopped_shrink_keeps_nodes_that_still_work(world: Any) -> None:
    world.task("a")
    world.scale(spot=1)
    world.step(10)
    world.scale(spot=0, nodeDeallocationOption="TaskCompletion")
    world.step(1)
    world.state.stop_resize("gpu")
    assert world.state.pool("gpu").allocation_state == "stopping"
    world.step(1)
    assert world.state.pool("gpu").allocation_state == "steady"
    world.end("a")
    assert world.states() == ["idle"]


def test_files_go_when_their_time_is_over_and_the_task_stays(world: Any) -> None:
    world.task("a", constraints={"retentionTime": "PT1H"})
    world.task("b")
    world.scale(spot=2)
    world.step(10)
    world.end("a")
    world.end("b")
    world.step(3599)
    assert not any(isinstance(done, DropFiles) for done in world.done)
    world.step(1)
    assert [done for done in world.done if isinstance(done, DropFiles)] == [DropFiles("work", "a")]
    assert world.state.task("work", "a").files_gone
    world.step(7 * 86400)
    assert DropFiles("work", "b") in world.done
    assert world.state.task("work", "b").state is TaskState.COMPLETED


def test_files_of_a_task_that_ran_once_more_stay_for_the_second_time(world: Any) -> None:
    world.task("a", constraints={"retentionTime": "PT1H"})
    world.scale(spot=1)
    world.step(10)
    world.end("a", 1)
    world.step(3000)
    world.state.reactivate_task("work", "a")
    world.step()
    world.end("a", 0)
    world.step(3000)
    assert not world.state.task("work", "a").files_gone
    world.step(600)
    assert world.state.task("work", "a").files_gone


def test_tasks_of_a_more_important_job_start_first(world: Any) -> None:
    world.state.create_job({"id": "urgent", "poolInfo": {"poolId": "gpu"}, "priority": 5})
    world.task("a")
    world.state.create_task("urgent", {"id": "b", "commandLine": "run"})
    world.scale(spot=1)
    world.step(10)
    assert world.started() == ["b"]


def test_a_terminated_task_on_a_preempted_node_does_not_run_again(world: Any) -> None:
    world.task("a")
    world.scale(spot=1)
    world.step(10)
    world.state.terminate_task("work", "a")
    world.state.preempt("gpu", next(iter(world.state.pool("gpu").nodes)))
    world.end("a", 137)
    assert world.state.task("work", "a").failure == ("TaskEnded", "Task was ended by user request")
