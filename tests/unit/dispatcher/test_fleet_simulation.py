"""The policy against the local Batch's state machine on virtual time: whole days of arrivals in a second."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusebus.dispatcher.policy import AddWorkers, Demand, Fleet, Limits, RemoveNodes, Resize, StopWaiting, decide, steps
from fusebus.localbatch.entities import AccountLimits, Deallocation, NodeState, StartProcess, TaskState
from fusebus.localbatch.state import BatchState

LIMITS = Limits(max_nodes=6, deadline_seconds=600, boot_seconds=200, retry_resize_seconds=300)
LOOK_SECONDS = 15.0
IMAGE_SECONDS = 2.0  # of one worker
IDLE_EXIT_SECONDS = 30.0


@dataclass
class Day:
    """Batch, a queue as a number, and workers that take an image every IMAGE_SECONDS and leave when idle."""

    quota: int | None = None
    now: float = 0.0
    depth: float = 0.0
    made: int = 0
    idle_since: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        account = AccountLimits(boot_seconds=200, leave_seconds=20, preempted_seconds=120, capacity=self.quota)
        self.batch = BatchState(account, lambda: self.now)
        self.batch.create_pool("gpu", {"vmSize": "x"})
        self.batch.create_job({"id": "work", "poolInfo": {"poolId": "gpu"}})

    def advance(self) -> None:
        for instruction in self.batch.advance():
            if isinstance(instruction, StartProcess):
                self.idle_since[instruction.run_id] = self.now

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.now += 1
            self.advance()
            for run_id in list(self.batch.runs):
                if self.batch.runs[run_id].stopping is not None:
                    self.batch.process_ended(run_id, 143)
                elif self.depth > 0:
                    self.depth = max(0.0, self.depth - 1 / IMAGE_SECONDS)
                    self.idle_since[run_id] = self.now
                elif self.now - self.idle_since[run_id] >= IDLE_EXIT_SECONDS:
                    self.batch.process_ended(run_id, 0)
            self.advance()

    def fleet(self) -> Fleet:
        pool = self.batch.pool("gpu")
        states = [(node.id, node.state) for node in pool.nodes.values()]
        tasks = list(self.batch.job("work").tasks.values())
        failed = pool.resize_started if pool.resize_errors and pool.steady else None
        return Fleet(
            steady=pool.steady,
            target=pool.target_spot,
            starting=sum(state is NodeState.STARTING for _, state in states),
            idle=tuple(name for name, state in states if state is NodeState.IDLE),
            busy=sum(state is NodeState.RUNNING for _, state in states),
            preempted=tuple(name for name, state in states if state is NodeState.PREEMPTED),
            leaving=sum(state is NodeState.LEAVING for _, state in states),
            waiting=tuple(task.id for task in tasks if task.state is TaskState.ACTIVE),
            running=sum(task.state is TaskState.RUNNING for task in tasks),
            resize_failed_at=None if failed is None else datetime.fromtimestamp(failed, UTC),
        )

    def look(self) -> None:
        fleet = self.fleet()
        demand = Demand(depth=-int(-self.depth // 1), seconds_per_image=IMAGE_SECONDS)
        plan = decide(fleet, demand, LIMITS, datetime.fromtimestamp(self.now, UTC))
        for step in steps(plan, fleet):
            match step:
                case AddWorkers(count):
                    for _ in range(count):
                        self.made += 1
                        self.batch.create_task("work", {"id": f"w{self.made}", "commandLine": "x"})
                case StopWaiting(task_ids):
                    for task_id in task_ids:
                        self.batch.terminate_task("work", task_id)
                case RemoveNodes(node_ids):
                    nodes = self.batch.pool("gpu").nodes
                    assert all(nodes[name].run is None for name in node_ids), "a busy node was removed"
                    self.batch.remove_nodes("gpu", node_ids, Deallocation.TASK_COMPLETION)
                case Resize(count):
                    scale = {"fixedScale": {"targetLowPriorityNodes": count}}
                    before = set(self.batch.pool("gpu").nodes)
                    self.batch.update_pool("gpu", {"scaleSettings": scale})
                    removed = [name for name in before if self.batch.pool("gpu").nodes[name].removing]
                    leaving = {name for name in before if self.batch.node("gpu", name).state is NodeState.LEAVING}
                    assert set(removed) <= leaving and not any(self.batch.node("gpu", n).run for n in removed)
        self.advance()

    def live(self, seconds: float) -> None:
        for _ in range(int(seconds / LOOK_SECONDS)):
            self.look()
            self.pass_time(LOOK_SECONDS)


def test_a_delivery_is_done_in_time_and_the_pool_goes_back_to_zero() -> None:
    day = Day(depth=900)  # 1800 s of work, 400 s after booting: needs 5 workers
    day.live(LIMITS.deadline_seconds + 2 * LOOK_SECONDS)
    assert day.depth == 0
    day.live(300)
    assert day.batch.pool("gpu").nodes == {}
    assert day.batch.pool("gpu").target_spot == 0
    billed = day.batch.billed_node_seconds("gpu")[False]
    assert billed < 1.6 * (5 * 200 + 900 * IMAGE_SECONDS)  # boots, work, and not much else


def test_a_single_image_costs_one_node_once() -> None:
    day = Day(depth=1)
    day.live(900)
    assert (day.depth, day.made, day.batch.pool("gpu").nodes_made) == (0, 1, 1)
    assert day.batch.pool("gpu").nodes == {}


def test_below_the_wanted_size_the_quota_is_enough_to_finish() -> None:
    day = Day(depth=600, quota=2)
    day.live(2000)
    assert day.depth == 0
    assert day.batch.pool("gpu").nodes == {}
    assert day.batch.pool("gpu").target_spot == 0


@settings(max_examples=25, deadline=None)
@given(
    events=st.lists(
        st.tuples(st.sampled_from([30, 120, 600]), st.sampled_from([0, 1, 40, 700]), st.booleans()),
        min_size=1,
        max_size=8,
    ),
    quota=st.sampled_from([None, 1, 3]),
)
def test_whatever_arrives_and_whatever_is_preempted_it_ends_with_no_work_and_no_node(
    events: list[tuple[int, int, bool]], quota: int | None
) -> None:
    day = Day(quota=quota)
    for seconds, arriving, preempt in events:
        day.depth += arriving
        day.live(seconds)
        victims = [n for n in day.batch.pool("gpu").nodes.values() if n.state is NodeState.RUNNING and not n.removing]
        if preempt and victims:
            day.batch.preempt("gpu", victims[0].id)
            day.advance()
    day.live(day.depth * IMAGE_SECONDS + 3000)
    assert day.depth == 0
    assert day.batch.pool("gpu").nodes == {}
    assert not day.batch.runs
    assert all(task.state is TaskState.COMPLETED for task in day.batch.job("work").tasks.values())


@pytest.mark.parametrize("gap_seconds", [60, 400])
def test_a_trickle_does_not_boot_a_node_for_each_image(gap_seconds: int) -> None:
    day = Day()
    for _ in range(10):
        day.depth += 1
        day.live(gap_seconds)
    assert day.batch.pool("gpu").nodes_made <= 10
