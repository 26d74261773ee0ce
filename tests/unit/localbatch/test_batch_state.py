"""The state machine of the local Batch on a hand-moved clock: no server, no process."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fusebus.localbatch.entities import (
    AccountLimits,
    BatchProblem,
    Deallocation,
    DropFiles,
    Instruction,
    JobState,
    NodeState,
    SignalProcess,
    StartProcess,
    TaskState,
)
from fusebus.localbatch.odata import matching
from fusebus.localbatch.state import BatchState
from fusebus.localbatch.values import seconds

LIMITS = AccountLimits(boot_seconds=10, leave_seconds=1, terminate_grace_seconds=5, preempted_seconds=20, capacity=4)
VM = {"vmSize": "Standard_NC4as_T4_v3"}


class World:
    """A state machine with a clock that the test moves."""

    def __init__(self, limits: AccountLimits = LIMITS) -> None:
        self.now = 1000.0
        self.state = BatchState(limits, lambda: self.now)
        self.done: list[Instruction] = []

    def step(self, pass_seconds: float = 0) -> list[Instruction]:
        """Stop at every deadline on the way, as a server's timer would."""
        end = self.now + pass_seconds
        fresh = self.state.advance()
        while (due := self.state.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            fresh += self.state.advance()
        self.now = end
        fresh += self.state.advance()
        self.done += fresh
        return fresh

    def scale(self, spot: int = 0, dedicated: int = 0, **more: Any) -> None:
        fixed = {"targetLowPriorityNodes": spot, "targetDedicatedNodes": dedicated, **more}
        self.state.update_pool("gpu", {"scaleSettings": {"fixedScale": fixed}})

    def task(self, task_id: str, **body: Any) -> None:
        self.state.create_task("work", {"id": task_id, "commandLine": "run", **body})

    def states(self) -> list[str]:
        return [node.state.value for node in self.state.pool("gpu").nodes.values()]

    def started(self) -> list[str]:
        return [done.task_id for done in self.done if isinstance(done, StartProcess)]

    def end(self, task_id: str, exit_code: int = 0) -> None:
        run = next(run for run in self.state.runs.values() if run.task.id == task_id)
        self.state.process_ended(run.id, exit_code)
        self.step()


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    world.state.create_pool("gpu", VM)
    world.state.create_job({"id": "work", "poolInfo": {"poolId": "gpu"}})
    yield world


def test_nodes_are_allocated_then_boot_then_idle(world: World) -> None:
    world.scale(spot=2)
    world.step()
    assert world.states() == []
    assert not world.state.pool("gpu").steady
    world.step(2.5)
    assert world.states() == ["starting", "starting"]
    assert world.state.pool("gpu").steady
    world.step(7.5)
    assert world.states() == ["idle", "idle"]


def test_a_resize_needs_a_steady_pool(world: World) -> None:
    world.scale(spot=1)
    world.step()
    with pytest.raises(BatchProblem) as refused:
        world.scale(spot=2)
    assert refused.value.status == 409


def test_a_stale_etag_is_refused_and_changes_nothing(world: World) -> None:
    etag = world.state.pool("gpu").etag
    world.state.update_pool("gpu", {"displayName": "one"}, etag)
    with pytest.raises(BatchProblem) as refused:
        world.state.update_pool("gpu", {"displayName": "two"}, etag)
    assert refused.value.status == 412
    assert world.state.pool("gpu").properties["displayName"] == "one"


def test_above_the_quota_a_resize_ends_with_an_error_and_what_fits(world: World) -> None:
    world.scale(spot=6)
    world.step(20)
    pool = world.state.pool("gpu")
    assert len(pool.nodes) == 4
    assert [code for code, _ in pool.resize_errors] == ["AccountLowPriorityCoreQuotaReached"]
    world.scale(spot=1)
    world.step(20)
    assert pool.resize_errors == []


def test_tasks_start_in_order_of_arrival_one_per_node(world: World) -> None:
    for name in ("a", "b", "c"):
        world.task(name)
    world.scale(spot=2)
    world.step(20)
    assert world.started() == ["a", "b"]
    assert world.states() == ["running", "running"]
    world.end("a")
    assert world.started() == ["a", "b", "c"]


def test_a_failed_task_runs_again_until_its_retries_are_used_up(world: World) -> None:
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


def test_removing_a_busy_node_stops_its_task_and_runs_it_elsewhere(world: World) -> None:
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


def test_task_completion_keeps_the_pool_resizing_until_the_task_ends(world: World) -> None:
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


def test_terminate_on_removal_ends_the_task_for_good(world: World) -> None:
    world.task("a")
    world.scale(spot=1)
    world.step(20)
    world.scale(spot=0, nodeDeallocationOption="Terminate")
    world.step()
    world.end("a", 143)
    assert world.state.task("work", "a").failure == ("TaskEnded", "Task was ended by user request")


def test_a_shrinking_resize_takes_idle_nodes_first(world: World) -> None:
    world.task("a")
    world.scale(spot=3)
    world.step(20)
    world.scale(spot=1)
    world.step(2)
    assert world.states() == ["running"]


def test_named_removal_lowers_the_target(world: World) -> None:
    world.scale(spot=2, dedicated=1)
    world.step(20)
    pool = world.state.pool("gpu")
    spot = next(node.id for node in pool.nodes.values() if not node.dedicated)
    world.state.remove_nodes("gpu", [spot], Deallocation.REQUEUE)
    world.step(2)
    assert (pool.target_dedicated, pool.target_spot, len(pool.nodes), pool.steady) == (1, 1, 2, True)


def test_every_node_second_from_allocation_to_departure_is_metered(world: World) -> None:
    world.scale(spot=1)
    world.step(2.5)  # allocated here
    world.step(7.5 + 30)  # boots, idles
    assert world.state.billed_node_seconds("gpu") == {True: 0, False: pytest.approx(37.5)}
    world.scale(spot=0)
    world.step(100)  # leaves within a second
    assert world.state.billed_node_seconds("gpu")[False] == pytest.approx(38.5)


def test_a_preempted_node_costs_nothing_gives_its_task_back_and_returns(world: World) -> None:
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


def test_a_task_over_its_wall_clock_is_stopped(world: World) -> None:
    world.task("a", constraints={"maxWallClockTime": "PT30S"})
    world.scale(spot=1)
    world.step(10)
    assert not any(isinstance(done, SignalProcess) for done in world.step(29))
    assert any(isinstance(done, SignalProcess) for done in world.step(1))
    world.end("a", 143)
    assert world.state.task("work", "a").failure == ("TaskTimedOut", "The task exceeded its maximum wall clock time")


def test_a_terminated_job_ends_running_and_waiting_tasks(world: World) -> None:
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


def test_a_deleted_job_is_gone_once_its_processes_are(world: World) -> None:
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
def test_ids_that_could_be_paths_are_refused(world: World, bad: str | None) -> None:
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


class Fleet(RuleBasedStateMachine):
    """In whatever order: no node runs two tasks, no task runs twice, the quota holds, all time is billed."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.state.create_pool("gpu", VM)
        self.world.state.create_job({"id": "work", "poolInfo": {"poolId": "gpu"}})
        self.tasks = 0
        self.expected = 0.0

    @rule()
    def add_a_task(self) -> None:
        self.tasks += 1
        self.world.task(f"t{self.tasks}", constraints={"maxTaskRetryCount": 1})
        self.pass_time(0)

    @rule(amount=st.sampled_from([0, 0.3, 2.5, 7, 30]))
    def pass_time(self, amount: float) -> None:
        end = self.world.now + amount
        while self.world.now < end or amount == 0:
            due = self.world.state.next_deadline()
            until = min(end, max(self.world.now, due)) if due is not None else end
            self.expected += (until - self.world.now) * len(self.billed())
            self.world.now = until
            self.world.step()
            if amount == 0:
                break

    @rule(size=st.integers(0, 5), option=st.sampled_from(["Requeue", "Terminate", "TaskCompletion"]))
    def resize(self, size: int, option: str) -> None:
        if self.world.state.pool("gpu").steady:
            self.world.scale(spot=size, nodeDeallocationOption=option)
            self.pass_time(0)

    @precondition(lambda self: self.world.state.runs)
    @rule(data=st.data(), code=st.sampled_from([0, 1, 137]))
    def a_process_ends(self, data: st.DataObject, code: int) -> None:
        run = data.draw(st.sampled_from(sorted(self.world.state.runs)))
        self.world.state.process_ended(run, code)
        self.pass_time(0)

    @rule(data=st.data())
    def preempt(self, data: st.DataObject) -> None:
        usable = [n for n in self.world.state.pool("gpu").nodes.values() if n in self.billed() and not n.removing]
        if usable:
            self.world.state.preempt("gpu", data.draw(st.sampled_from([node.id for node in usable])))
            self.pass_time(0)

    def billed(self) -> list[Any]:
        return [node for node in self.world.state.pool("gpu").nodes.values() if node.billed_since is not None]

    @invariant()
    def nodes_and_runs_agree(self) -> None:
        runs = list(self.world.state.runs.values())
        assert len({run.task.id for run in runs}) == len(runs)
        placed = [run for run in runs if run.node.run is run]
        assert len({run.node.id for run in placed}) == len(placed)
        pool = self.world.state.pool("gpu")
        assert len(pool.nodes) <= 4
        for node in pool.nodes.values():
            assert (node.state is NodeState.RUNNING) <= (node.run is not None)
            assert node.state is not NodeState.IDLE or node.run is None
            assert (node.billed_since is None) <= (node.state in (NodeState.PREEMPTED, NodeState.LEAVING))

    @invariant()
    def the_meter_agrees_with_the_clock(self) -> None:
        assert self.world.state.billed_node_seconds("gpu")[False] == pytest.approx(self.expected)

    @invariant()
    def no_waiting_task_beside_an_idle_node(self) -> None:
        waiting = [t for t in self.world.state.job("work").tasks.values() if t.state is TaskState.ACTIVE]
        assert not (waiting and "idle" in self.world.states())


Fleet.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
test_no_order_of_events_breaks_the_fleet = Fleet.TestCase
