"""Policy, orders and steps against the local Batch's state machine on virtual time: a whole day in a second."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from fusebus.blobs import BlobSettings
from fusebus.bus import BusSettings
from fusebus.contracts.messages import JobKind
from fusebus.costs import Rates, Verdict
from fusebus.costs.settings import CostSettings
from fusebus.dispatcher import planner
from fusebus.dispatcher.facts import Facts
from fusebus.dispatcher.memory import Memory
from fusebus.dispatcher.orders import Orders, obey
from fusebus.dispatcher.seen import NodeSeen, PoolSeen, WorkerSeen, WorkerState
from fusebus.dispatcher.settings import DispatcherSettings
from fusebus.dispatcher.steps import AddWorkers, DrainWorkers, RemoveNodes, Resize, StopWaiting, steps
from fusebus.ledger import Controls, LedgerSettings
from fusebus.localbatch.entities import AccountLimits, Deallocation, NodeState, StartProcess, TaskState
from fusebus.localbatch.state import BatchState

SETTINGS = DispatcherSettings(
    bus=BusSettings(),
    ledger=LedgerSettings(),
    blobs=BlobSettings(),
    costs=CostSettings(),
    batch_url="http://local",
    max_nodes=6,
    deadline_seconds=900,
    boot_seconds=200,
    assumed_seconds_per_image=2.0,
    retry_resize_seconds=300,
    least_use_seconds=60,
    fallback_seconds=30,
    settle_seconds=30,
)
RATES: Mapping[str, Rates] = {"gpu": Rates(dedicated=1.0, spot=0.3, currency="EUR", detail="")}
NO_BUDGET = Verdict(left=float("inf"), alerts=(), because="")
LOOK_SECONDS = 15.0
IMAGE_SECONDS = 2.0  # of one worker
IDLE_EXIT_SECONDS = 30.0
STATES = {TaskState.ACTIVE: WorkerState.WAITING, TaskState.COMPLETED: WorkerState.ENDED}


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@dataclass
class Day:
    """Batch, a queue as a number, and workers that take an image every IMAGE_SECONDS and leave when idle."""

    quota: int | None = None
    now: float = 0.0
    depth: float = 0.0
    made: int = 0
    idle_since: dict[int, float] = field(default_factory=dict)
    memory: Memory = field(default_factory=lambda: Memory(SETTINGS))

    def __post_init__(self) -> None:
        account = AccountLimits(boot_seconds=200, leave_seconds=20, preempted_seconds=120, capacity=self.quota)
        self.batch = BatchState(account, lambda: self.now)
        self.batch.create_pool("gpu", {"vmSize": "Standard_NC4as_T4_v3"})
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
                elif self.now - self.idle_since.get(run_id, self.now) >= IDLE_EXIT_SECONDS:
                    self.batch.process_ended(run_id, 0)
            self.advance()

    def seen(self) -> PoolSeen:
        pool = self.batch.pool("gpu")
        problem = "; ".join(code for code, *_ in pool.resize_errors) if pool.steady else ""
        return PoolSeen(
            name="gpu",
            steady=pool.steady,
            target_spot=pool.target_spot,
            nodes=tuple(
                NodeSeen(id=node.id, state=node.state.value, since=moment(node.since), allocated_at=moment(node.since))
                for node in pool.nodes.values()
            ),
            workers=tuple(
                WorkerSeen(
                    id=task.id,
                    state=STATES.get(task.state, WorkerState.RUNNING),
                    since=moment(task.since),
                    node=task.node_id or "",
                )
                for task in self.batch.job("work").tasks.values()
            ),
            resized_at=None if pool.resize_started is None else moment(pool.resize_started),
            shortfall=problem if len(pool.nodes) < pool.target_spot else "",
        )

    def look(self) -> None:
        seen = self.seen()
        facts = Facts(
            now=moment(self.now),
            pools={"gpu": seen},
            depths={JobKind.DETECT: -int(-self.depth // 1)},
            controls=Controls(),
        )
        self.memory.observe(facts, self.now)
        plan = planner.plan(SETTINGS, facts, self.memory, RATES, NO_BUDGET)
        target = obey(
            planner.targets(SETTINGS, plan)["gpu"],
            seen,
            Orders(max_nodes=6),
            self.memory.pools["gpu"].breaker,
            facts.now,
        )
        for step in steps(target, seen):
            self.carry_out(step)
        self.advance()

    def carry_out(self, step: object) -> None:
        nodes = self.batch.pool("gpu").nodes
        match step:
            case AddWorkers(count):
                for _ in range(count):
                    self.made += 1
                    self.batch.create_task("work", {"id": f"worker-{self.made:09d}", "commandLine": "x"})
            case StopWaiting(task_ids) | DrainWorkers(task_ids):
                for task_id in task_ids:
                    self.batch.terminate_task("work", task_id)
            case RemoveNodes(node_ids):
                assert all(nodes[name].run is None for name in node_ids), "a busy node was removed"
                self.batch.remove_nodes("gpu", node_ids, Deallocation.TASK_COMPLETION)
            case Resize(dedicated, spot):
                before = [name for name, node in nodes.items() if not node.removing]
                self.batch.update_pool("gpu", {"scaleSettings": {"fixedScale": {"targetLowPriorityNodes": spot}}})
                assert dedicated == 0
                assert not any(nodes[name].removing for name in before), "a resize took nodes away"

    def live(self, seconds: float) -> None:
        for _ in range(int(seconds / LOOK_SECONDS)):
            self.look()
            self.pass_time(LOOK_SECONDS)


def test_a_delivery_is_done_in_time_and_the_pool_goes_back_to_zero() -> None:
    day = Day(depth=900)  # 1800 s of work, 900 s until its deadline, of which 200 to 320 are a boot
    day.live(SETTINGS.deadline_seconds)
    assert day.depth == 0
    day.live(300)
    assert day.batch.pool("gpu").nodes == {}
    assert day.batch.pool("gpu").target_spot == 0
    billed = day.batch.billed_node_seconds("gpu")[False]
    assert billed < 1.6 * (5 * 200 + 900 * IMAGE_SECONDS)  # boots, work, and not much else


def test_a_single_image_costs_one_node_once() -> None:
    day = Day(depth=1)
    day.live(1500)
    assert (day.depth, day.made, day.batch.pool("gpu").nodes_made) == (0, 1, 1)
    assert day.batch.pool("gpu").nodes == {}


def test_below_the_wanted_size_the_quota_is_enough_to_finish() -> None:
    day = Day(depth=600, quota=2)
    day.live(2500)
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
    # Evictions in a row are a storm, in which no Spot is bought: this pool has nothing else until it is over.
    day.live(day.depth * IMAGE_SECONDS + SETTINGS.storm_seconds + 3000)
    assert day.depth == 0
    assert day.batch.pool("gpu").nodes == {}
    assert not day.batch.runs
    assert all(task.state is TaskState.COMPLETED for task in day.batch.job("work").tasks.values())
