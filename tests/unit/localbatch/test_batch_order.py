"""In whatever order things happen to the local Batch: what must always hold, and that it always comes to rest."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fusebus.localbatch.entities import BatchProblem, Deallocation, EventKind, JobState, NodeState, TaskState

OPTIONS = st.sampled_from([Deallocation.REQUEUE, Deallocation.TERMINATE, Deallocation.TASK_COMPLETION])
SIZE = "standard_nc4as_t4_v3"


def disorder(new_world: Callable[..., Any], start_task: dict[str, Any] | None) -> type[RuleBasedStateMachine]:
    """No node runs two tasks, no task runs twice, quota and market hold, all time is billed, rest is reached."""

    class Disorder(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.world = new_world(resize_timeout_seconds=60.0, reboot_seconds=3.0, stop_seconds=1.0)
            self.state = self.world.state
            if start_task is not None:
                self.state.update_pool("gpu", {"startTask": start_task})
            self.tasks, self.expected = 0, 0.0

        @property
        def pool(self) -> Any:
            return self.state.pool("gpu")

        def attempt(self, event: Callable[..., object], *arguments: Any) -> None:
            """Refusals are part of the life; anything else is not."""
            try:
                event(*arguments)
            except BatchProblem as problem:
                assert problem.status in (400, 404, 409), problem
            self.pass_time(0)

        @initialize(size=st.integers(0, 4), tasks=st.integers(0, 3))
        def begin(self, size: int, tasks: int) -> None:
            self.resize(size, "Requeue")
            self.pass_time(30)
            for run in [*self.state.start_runs]:
                self.state.process_ended(run, 0)
            for _ in range(tasks):
                self.add_a_task(1)

        @rule(priority=st.integers(0, 2))
        def add_a_task(self, priority: int) -> None:
            self.tasks += 1
            self.world.task(f"t{self.tasks}", constraints={"maxTaskRetryCount": priority - 1})
            self.pass_time(0)

        @rule(amount=st.sampled_from([0, 0.3, 2.5, 7, 30, 100]))
        def pass_time(self, amount: float) -> None:
            end = self.world.now + amount
            while self.world.now < end or amount == 0:
                due = self.state.next_deadline()
                until = min(end, max(self.world.now, due)) if due is not None else end
                self.expected += (until - self.world.now) * len(self.billed())
                self.world.now = until
                self.world.step()
                if amount == 0:
                    break

        @rule(size=st.integers(0, 5), option=st.sampled_from(["Requeue", "Terminate", "TaskCompletion"]))
        def resize(self, size: int, option: str) -> None:
            self.attempt(lambda: self.world.scale(spot=size, nodeDeallocationOption=option))

        @rule()
        def stop_the_resize(self) -> None:
            self.attempt(self.state.stop_resize, "gpu")

        @precondition(lambda self: self.state.runs or self.state.start_runs)
        @rule(data=st.data(), code=st.sampled_from([0, 0, 1, 137]))
        def a_process_ends(self, data: st.DataObject, code: int) -> None:
            run = data.draw(st.sampled_from(sorted([*self.state.runs, *self.state.start_runs])))
            self.state.process_ended(run, code)
            self.pass_time(0)

        @precondition(lambda self: self.pool.nodes)
        @rule(data=st.data(), what=st.integers(0, 6), option=OPTIONS)
        def something_happens_to_a_node(self, data: st.DataObject, what: int, option: Deallocation) -> None:
            node = data.draw(st.sampled_from(sorted(self.pool.nodes)))
            state, kind = self.state, data.draw(st.sampled_from(list(EventKind)))
            events: list[Callable[[], object]] = [
                lambda: state.preempt("gpu", node),
                lambda: state.announce("gpu", node, kind, 4.0),
                lambda: state.break_node("gpu", node, 15.0),
                lambda: state.reboot("gpu", node, option, reimage=kind is EventKind.REBOOT),
                lambda: state.disable_scheduling("gpu", node, option),
                lambda: state.enable_scheduling("gpu", node),
                lambda: state.remove_nodes("gpu", [node], option),
            ]
            self.attempt(events[what])

        @precondition(lambda self: self.state.job("work").tasks)
        @rule(data=st.data(), what=st.sampled_from(["terminate_task", "reactivate_task", "delete_task"]))
        def something_happens_to_a_task(self, data: st.DataObject, what: str) -> None:
            task = data.draw(st.sampled_from(sorted(self.state.job("work").tasks)))
            self.attempt(getattr(self.state, what), "work", task)

        @rule(what=st.sampled_from(["requeue", "terminate", "wait", None]))
        def the_job_is_disabled_or_enabled(self, what: str | None) -> None:
            if what is None:
                self.attempt(self.state.enable_job, "work")
            else:
                self.attempt(self.state.disable_job, "work", what)

        @rule(machines=st.sampled_from([0, 2, None]))
        def the_market_changes(self, machines: int | None) -> None:
            self.state.faults.market.clear()
            if machines is not None:
                self.state.faults.market[(SIZE, False)] = machines
            self.pass_time(0)

        def billed(self) -> list[Any]:
            return [node for node in self.pool.nodes.values() if node.billed_since is not None]

        @invariant()
        def nodes_and_runs_agree(self) -> None:
            runs = list(self.state.runs.values())
            assert len({id(run.task) for run in runs}) == len(runs)
            placed = [run for run in runs if run.node.run is run]
            assert len({run.node.id for run in placed}) == len(placed)
            assert len(self.pool.nodes) <= 4
            for node in self.pool.nodes.values():
                assert (node.state is NodeState.RUNNING) <= (node.run is not None)
                assert node.state not in (NodeState.IDLE, NodeState.OFFLINE) or node.run is None
                assert (node.billed_since is None) <= (node.state in (NodeState.PREEMPTED, NodeState.LEAVING))
                assert node.state is not NodeState.IDLE or node.schedulable
                assert (node.state is NodeState.WAITING_FOR_START_TASK) <= (node.start_run is not None)

        @invariant()
        def a_steady_pool_is_at_rest(self) -> None:
            pool = self.pool
            moving = pool.allocation_due is not None or pool.short or any(n.removing for n in pool.nodes.values())
            assert not (pool.steady and moving)

        @invariant()
        def the_meter_agrees_with_the_clock(self) -> None:
            assert self.state.billed_node_seconds("gpu")[False] == pytest.approx(self.expected)

        @invariant()
        def no_waiting_task_beside_an_idle_node(self) -> None:
            job = self.state.job("work")
            waiting = [task for task in job.tasks.values() if task.state is TaskState.ACTIVE]
            assert not (job.state is JobState.ACTIVE and waiting and "idle" in self.world.states())

        def teardown(self) -> None:
            """Left alone, with processes that end when they are told to, everything leaves."""
            for _ in range(3):
                for run in [*self.state.runs, *self.state.start_runs]:
                    self.state.process_ended(run, 143)
                    self.pass_time(0)
            self.state.disable_job("work", "requeue")
            for _ in range(4):
                self.pass_time(100)
                for run in [*self.state.runs, *self.state.start_runs]:
                    self.state.process_ended(run, 143)
            self.attempt(self.world.scale)
            self.pass_time(200)
            assert (self.pool.nodes, self.pool.steady, self.state.runs) == ({}, True, {})

    return Disorder


@pytest.mark.parametrize(
    "start_task", [None, {"commandLine": "prepare", "maxTaskRetryCount": 1}], ids=["bare", "start"]
)
def test_no_order_of_events_breaks_the_fleet(new_world: Callable[..., Any], start_task: dict[str, Any] | None) -> None:
    run_state_machine_as_test(
        disorder(new_world, start_task), settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
    )
