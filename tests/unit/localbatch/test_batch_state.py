"""The state machine of the local Batch on a hand-moved clock: no server, no process."""

from typing import Any

import pytest

from fusebus.localbatch.entities import (
    BatchProblem,
    Deallocation,
    DropFiles,
    JobState,
    SignalProcess,
    TaskState,
)
from fusebus.localbatch.odata import matching
from fusebus.localbatch.values import seconds


def test_nodes_are_allocated_then_boot_then_idle(world: Any) -> None:
    world.scale(spot=2)
    world.step()
    assert world.states() == []
    assert not world.state.pool("gpu").steady
    world.step(2.5)
    assert world.states() == ["starting", "starting"]
    assert world.state.pool("gpu").steady
    world.step(7.5)
    assert world.states() == ["idle", "idle"]


def test_a_resize_needs_a_steady_pool(world: Any) -> None:
    world.scale(spot=1)
    world.step()
    with pytest.raises(BatchProblem) as refused:
        world.scale(spot=2)
    assert refused.value.status == 409


def test_a_stale_etag_is_refused_and_changes_nothing(world: Any) -> None:
    etag = world.state.pool("gpu").etag
    world.state.update_pool("gpu", {"displayName": "one"}, etag)
    with pytest.raises(BatchProblem) as refused:
        world.state.update_pool("gpu", {"displayName": "two"}, etag)
    assert refused.value.status == 412
    assert world.state.pool("gpu").properties["displayName"] == "one"


def test_above_the_quota_a_resize_ends_with_an_error_and_what_fits(world: Any) -> None:
    world.scale(spot=6)
    world.step(20)
    pool = world.state.pool("gpu")
    assert len(pool.nodes) == 4
    assert [code for code, _ in pool.resize_errors] == ["AccountLowPriorityCoreQuotaReached"]
    world.scale(spot=1)
    world.step(20)
    assert pool.resize_errors == []


def test_tasks_start_in_order_of_arrival_one_per_node(world: Any) -> None:
    for name in ("a", "b", "c"):
        world.task(name)
    world.scale(spot=2)
    world.step(20)
    assert world.started() == ["a", "b"]
    assert world.states() == ["running", "running"]
    world.end("a")
    assert world.started() == ["a", "b", "c"]


def test_a_failed_task_runs_again_until_its_retries_are_used_up(world: Any) -> None:
    world.task("a", constraints={"maxTaskRetryCount": 1})
    world.scale(spot=1)
    world.step(20)
    world.end("a", 137)
    task = world.state.task("work", "a")
    assert (task.state, task.retries) == (TaskState.RUNNING, 1)
    world.end("a", 1)
    assert (task.state, task.exit_code, task.failure and task.failure[0]) == (
        TaskState.COMPLETED,
        1,
        "FailureExitCode",
    )


def test_removing_a_busy_node_stops_its_task_and_runs_it_elsewhere(world: Any) -> None:
    world.task("a")
    world.scale(spot=1)
    world.step(20)
    node_id = world.state.task("work", "a").node_id
    assert node_id is not None
    world.state.remove_nodes("gpu", [node_id], Deallocation.REQUEUE)
    assert [done.kill for done in world.step() if isinstance(done, SignalProcess)] == [False]
    assert [done.kill for done in world.step(5) if isinstance(done, SignalProcess)] == [True]
    world.end("a", 137)
    world.step(1)
    task = world.state.task("work", "a")
    assert (task.state, task.requeues, world.states()) == (TaskState.ACTIVE, 1, [])
    world.scale(spot=1)
    world.step(20)
    assert world.started() == ["a", "a"]


def test_task_completion_keeps_the_pool_resizing_until_the_task_ends(world: Any) -> None:
    world.task("a")
    world.task("b")
    world.scale(spot=1)
    world.step(20)
    world.scale(spot=0, nodeDeallocationOption="TaskCompletion")
    world.step(100)
    assert not world.state.pool("gpu").steady
    world.end("a")
    world.step(1)
    assert world.state.pool("gpu").steady
    assert world.states() == []
    assert world.started() == ["a"]
    assert world.state.task("work", "a").failure is None


def test_terminate_on_removal_ends_the_task_for_good(world: Any) -> None:
    world.task("a")
    world.scale(spot=1)
    world.step(20)
    world.scale(spot=0, nodeDeallocationOption="Terminate")
    world.step()
    world.end("a", 143)
    assert world.state.task("work", "a").failure == ("TaskEnded", "Task was ended by user request")


def test_a_shrinking_resize_takes_idle_nodes_first(world: Any) -> None:
    world.task("a")
    world.scale(spot=3)
    world.step(20)
    world.scale(spot=1)
    world.step(2)
    assert world.states() == ["running"]


def test_named_removal_lowers_the_target(world: Any) -> None:
    world.scale(spot=2, dedicated=1)
    world.step(20)
    pool = world.state.pool("gpu")
    spot = next(node.id for node in pool.nodes.values() if not node.dedicated)
    world.state.remove_nodes("gpu", [spot], Deallocation.REQUEUE)
    world.step(2)
    assert (pool.target_dedicated, pool.target_spot, len(pool.nodes), pool.steady) == (1, 1, 2, True)


def test_every_node_second_from_allocation_to_departure_is_metered(world: Any) -> None:
    world.scale(spot=1)
    world.step(2.5)  # allocated here
    world.step(7.5 + 30)  # boots, idles
    assert world.state.billed_node_seconds("gpu") == {True: 0, False: pytest.approx(37.5)}
    world.scale(spot=0)
    world.step(100)  # leaves within a second
    assert world.state.billed_node_seconds("gpu")[False] == pytest.approx(38.5)


def test_a_preempted_node_costs_nothing_gives_its_task_back_and_returns(world: Any) -> None:
    world.task("a")
    world.scale(spot=1)
    world.step(10)
    (node_id,) = world.state.pool("gpu").nodes
    world.state.preempt("gpu", node_id)
    assert [done.kill for done in world.step() if isinstance(done, SignalProcess)] == [True]
    world.end("a", 137)
    before = world.state.billed_node_seconds("gpu")[False]
    world.step(19)
    assert world.states() == ["preempted"]
    assert world.state.billed_node_seconds("gpu")[False] == before
    world.step(12)
    assert world.states() == ["running"]
    assert world.started() == ["a", "a"]


def test_a_task_over_its_wall_clock_is_stopped(world: Any) -> None:
    world.task("a", constraints={"maxWallClockTime": "PT30S"})
    world.scale(spot=1)
    world.step(10)
    assert not any(isinstance(done, SignalProcess) for done in world.step(29))
    assert any(isinstance(done, SignalProcess) for done in world.step(1))
    world.end("a", 143)
    assert world.state.task("work", "a").failure == ("TaskTimedOut", "The task exceeded its maximum wall clock time")


def test_a_terminated_job_ends_running_and_waiting_tasks(world: Any) -> None:
    world.task("a")
    world.task("b")
    world.scale(spot=1)
    world.step(10)
    world.state.terminate_job("work")
    world.step()
    assert world.state.job("work").state is JobState.TERMINATING
    world.end("a", 143)
    assert world.state.job("work").state is JobState.COMPLETED
    assert {task.state for task in world.state.job("work").tasks.values()} == {TaskState.COMPLETED}
    with pytest.raises(BatchProblem) as refused:
        world.task("c")
    assert refused.value.code == "JobCompleted"


def test_a_deleted_job_is_gone_once_its_processes_are(world: Any) -> None:
    world.task("a")
    world.scale(spot=1)
    world.step(10)
    world.state.delete_job("work")
    world.step()
    assert world.state.job("work").state is JobState.DELETING
    run = next(iter(world.state.runs))
    world.state.process_ended(run, 137)
    assert DropFiles("work", "a") in world.step()
    with pytest.raises(BatchProblem) as refused:
        world.state.job("work")
    assert refused.value.code == "JobNotFound"


@pytest.mark.parametrize("bad", ["", "a/b", "..", "x" * 65, None])
def test_ids_that_could_be_paths_are_refused(world: Any, bad: str | None) -> None:
    with pytest.raises(BatchProblem) as refused:
        world.state.create_task("work", {"id": bad, "commandLine": "run"})
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        (None, "abc"),
        ("state eq 'idle'", "ac"),
        ("state ne 'idle'", "b"),
        ("state eq 'idle' and isDedicated eq true", "c"),
        ("state eq 'running' or isDedicated eq true", "bc"),
        ("info/poolId eq 'x'", "a"),
    ],
)
def test_filters_pick_items(expression: str | None, names: str) -> None:
    items = [
        {"id": "a", "state": "idle", "isDedicated": False, "info": {"poolId": "x"}},
        {"id": "b", "state": "running", "isDedicated": False},
        {"id": "c", "state": "idle", "isDedicated": True},
    ]
    assert "".join(item["id"] for item in matching(items, expression)) == names


@pytest.mark.parametrize(
    ("text", "value"), [("PT90S", 90), ("PT1H1M1.5S", 3661.5), ("P1D", 86400), (None, None), ("P10675199D", None)]
)
def test_durations_are_read_as_seconds(text: str | None, value: float | None) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("settings", [[{"value": "x"}], [{"name": ""}], ["x"], {"name": "x"}, "x", [{"name": 1}]])
def test_settings_without_a_name_are_refused_before_anything_starts(world: Any, settings: Any) -> None:
    pool = {"poolId": "gpu"}
    requests = [
        lambda: world.task("bad", environmentSettings=settings),
        lambda: world.state.create_job({"id": "bad", "poolInfo": pool, "commonEnvironmentSettings": settings}),
        lambda: world.state.create_pool("bad", {"vmSize": "x", "startTask": {"environmentSettings": settings}}),
        lambda: world.state.update_pool("gpu", {"startTask": {"environmentSettings": settings}}),
    ]
    for request in requests:
        with pytest.raises(BatchProblem) as problem:
            request()
        assert problem.value.status == 400
    assert ("bad" in world.state.jobs, "bad" in world.state.pools) == (False, False)
    world.task("good", environmentSettings=[{"name": "A", "value": None}])
    world.scale(spot=1)
    world.step(20)
    assert world.started() == ["good"]


def test_a_priority_or_output_files_of_another_kind_are_refused(world: Any) -> None:
    requests = [
        lambda: world.state.create_job({"id": "bad", "poolInfo": {"poolId": "gpu"}, "priority": "high"}),
        lambda: world.state.update_job("work", {"priority": "high"}),
        lambda: world.task("bad", outputFiles=["*.txt"]),
    ]
    for request in requests:
        with pytest.raises(BatchProblem):
            request()
