"""One look after another with plain ports: what is said and done when something fails, and who may act."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from fusebus.blobs import BlobSettings
from fusebus.bus import BusSettings, Depth, PublishFailed
from fusebus.contracts.messages import FleetChanged, JobKind
from fusebus.contracts.outcomes import Outgoing
from fusebus.costs import Verdict
from fusebus.costs.settings import CostSettings
from fusebus.dispatcher.breaker import Breaker
from fusebus.dispatcher.ceilings import ceilings
from fusebus.dispatcher.errors import FleetError, LostLeadership, PoolChanged, Refused
from fusebus.dispatcher.facts import Facts
from fusebus.dispatcher.loop import Dispatcher
from fusebus.dispatcher.memory import Memory
from fusebus.dispatcher.orders import Orders, obey
from fusebus.dispatcher.quota import Quota
from fusebus.dispatcher.seen import NodeSeen, PoolSeen, WorkerSeen, WorkerState
from fusebus.dispatcher.settings import DispatcherSettings, PoolEntry
from fusebus.dispatcher.steps import AddWorkers, DrainWorkers, RemoveNodes, Resize, Step, StopWaiting, Target
from fusebus.ledger import (
    Controls,
    CostSample,
    Decision,
    LedgerSettings,
    LedgerUnavailable,
    Pause,
    Pin,
    PoolStatus,
    RunRow,
    UploadRow,
    Window,
)

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def workers(running: int = 0, waiting: int = 0, failed: int = 0) -> tuple[WorkerSeen, ...]:
    states = [WorkerState.RUNNING] * running + [WorkerState.WAITING] * waiting + [WorkerState.ENDED] * failed
    return tuple(
        WorkerSeen(id=f"worker-{number}", state=state, since=NOW, failed=state is WorkerState.ENDED, node=f"n{number}")
        for number, state in enumerate(states, start=1)
    )


def nodes(*states: str) -> tuple[NodeSeen, ...]:
    return tuple(NodeSeen(id=f"n{number}", state=state) for number, state in enumerate(states, start=1))


def empty(name: str = "gpu", term: int = 1) -> PoolSeen:
    return PoolSeen(name=name, steady=True, term=term)


@dataclass
class World:
    """Queue, pools, books, publisher and lease in memory, each able to fail."""

    name: str = "tester"
    now: datetime = NOW
    active: int | None = 10
    receives: bool | None = True
    pools: dict[str, PoolSeen] = field(default_factory=lambda: {"gpu": empty()})
    broken: set[str] = field(default_factory=set)
    allowed: Quota | None = None
    surprises: int = 0
    """So many readings of a pool end in an error nobody foresaw."""
    steps: list[Step] = field(default_factory=list)
    claims: list[tuple[str, int]] = field(default_factory=list)
    written: list[Decision] = field(default_factory=list)
    samples: list[CostSample] = field(default_factory=list)
    statuses: dict[str, PoolStatus] = field(default_factory=dict)
    told: list[FleetChanged] = field(default_factory=list)
    orders: Controls = field(default_factory=Controls)
    announced: list[Window] = field(default_factory=list)
    leads: int | None = 1
    met: int = 0
    """The later term for which leadership was given up."""
    leads_after_steps: int | None = None
    """Steps after which the lease is lost."""

    async def depth(self, topic: str, subscription: str) -> Depth | None:
        return None if self.active is None else Depth(active=self.active, dead_letter=0, scheduled=0)

    async def receiving(self, topic: str, subscription: str) -> bool | None:
        return self.receives

    async def publish(self, outgoing: Sequence[Outgoing]) -> None:
        self._fail("bus", PublishFailed("fleet"))
        self.told += [one.message for one in outgoing if isinstance(one.message, FleetChanged)]

    async def write_decision(self, decision: Decision) -> None:
        self._fail("ledger", LedgerUnavailable("decisions"))
        self.written.append(decision)

    async def decisions(self, pool: str, limit: int = 20, at: datetime | None = None) -> list[Decision]:
        return [found for found in self.written[::-1] if found.pool == pool][:limit]

    async def add_cost_sample(self, sample: CostSample) -> None:
        self._fail("ledger", LedgerUnavailable("costs"))
        self.samples.append(sample)

    async def cost_samples(self, month: str) -> AsyncIterator[CostSample]:
        for sample in self.samples:
            yield sample

    async def budget_alerts(self, month: str) -> frozenset[str]:
        return frozenset()

    async def note_budget_alert(self, month: str, mark: str, told_at: datetime) -> bool:
        return True

    async def write_pool_status(self, status: PoolStatus) -> None:
        self._fail("ledger", LedgerUnavailable("pools"))
        self.statuses[status.pool] = status

    async def controls(self, now: datetime) -> Controls:
        self._fail("ledger", LedgerUnavailable("controls"))
        return self.orders

    async def windows(self, after: datetime, before: datetime) -> list[Window]:
        return [window for window in self.announced if after <= window.opens_at < before]

    async def runs(self, supplier: str | None = None, limit: int = 100) -> list[RunRow]:
        self._fail("row", msgspec.ValidationError("Expected `str`, got `null`"))
        return []

    async def uploads(self, run_id: str) -> list[UploadRow]:
        return []

    async def ensure(self) -> None:
        """Nothing is missing."""

    async def read(self, name: str) -> PoolSeen:
        self._fail(f"batch {name}", FleetError("503"))
        if self.surprises:
            self.surprises -= 1
            raise ZeroDivisionError("float division by zero")
        return self.pools[name]

    async def claim(self, seen: PoolSeen, term: int) -> None:
        self._fail("claim", PoolChanged("412"))
        self.claims.append((seen.name, term))
        self.pools[seen.name] = msgspec.structs.replace(seen, term=term)

    async def quota(self) -> Quota:
        if self.allowed is None:
            raise FleetError("not known here")
        return self.allowed

    async def carry_out(self, seen: PoolSeen, step: Step, author: str) -> None:
        self._fail("step", FleetError("500"))
        self._fail(f"step {seen.name}", PoolChanged("412"))
        self._fail(type(step).__name__, Refused("409 JobCompleted"))
        self.steps.append(step)
        if self.leads_after_steps is not None and len(self.steps) >= self.leads_after_steps:
            self.leads = None

    async def tidy(self, seen: PoolSeen, now: datetime) -> None:
        """Nothing is old."""

    async def node_log(self, name: str, node_id: str) -> str:
        return f"{node_id}: no such driver"

    async def worker_log(self, name: str, task_id: str) -> str:
        return f"{task_id}: no such module"

    def term(self) -> int | None:
        return self.leads

    def step_down(self, met: int) -> None:
        self.leads, self.met = None, met

    def _fail(self, what: str, error: Exception) -> None:
        if what in self.broken:
            raise error


def settings_with(**more: Any) -> DispatcherSettings:
    return DispatcherSettings(
        bus=BusSettings(),
        ledger=LedgerSettings(),
        blobs=BlobSettings(),
        batch_url="http://localhost:1",
        costs=CostSettings(),
        **more,
    )


def dispatcher_in(world: World, **more: Any) -> Dispatcher:
    return Dispatcher(settings_with(**more), world, world, world, world, world, clock=lambda: world.now)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def dispatcher(world: World) -> Dispatcher:
    return dispatcher_in(world)


GROW = [AddWorkers(1), Resize(0, 1)]


async def test_a_decision_is_carried_out_written_and_told_once(world: World, dispatcher: Dispatcher) -> None:
    await dispatcher.look()
    await dispatcher.look()
    assert world.steps[:2] == GROW
    assert [(found.nodes, found.workers) for found in world.written] == [(1, 1)]
    assert [found.because for found in world.told] == [found.because for found in world.written]
    assert world.statuses["gpu"].wanted_spot == 1


@pytest.mark.parametrize(("opened", "removed"), [(60, False), (600, True)])
async def test_a_window_that_has_opened_keeps_its_nodes_until_its_images_are_seen(
    world: World, dispatcher: Dispatcher, opened: int, removed: bool
) -> None:
    opens_at = NOW - timedelta(seconds=opened)
    world.announced = [Window(job_kind="detect", opens_at=opens_at, deadline=NOW + timedelta(hours=1), images=100)]
    world.pools["gpu"] = PoolSeen(name="gpu", steady=True, target_spot=2, nodes=nodes("idle", "idle"), term=1)
    world.active = 0
    await dispatcher.look()
    assert [type(step) for step in world.steps] == [RemoveNodes] * removed


@pytest.mark.parametrize("broken", ["bus", "ledger"])
async def test_what_could_not_be_said_holds_up_no_step_and_is_said_by_the_next_look(
    world: World, dispatcher: Dispatcher, broken: str
) -> None:
    world.active = None
    await dispatcher.look()  # orders are known from here on
    world.active, world.broken = 10, {broken}
    with pytest.raises(PublishFailed if broken == "bus" else LedgerUnavailable):
        await dispatcher.look()
    assert world.steps == GROW
    world.broken = set()
    await dispatcher.look()
    assert len(world.told) == 1
    assert {found.decided_at for found in world.written} == {NOW}


async def test_a_step_that_batch_refuses_is_said_all_the_same_and_tried_again(
    world: World, dispatcher: Dispatcher
) -> None:
    world.broken = {"step"}
    await dispatcher.look()
    assert len(world.told) == 1
    assert world.statuses["gpu"].problem == "500"
    world.broken = set()
    await dispatcher.look()
    assert world.steps == GROW
    assert len(world.told) == 1
    assert world.statuses["gpu"].problem == ""


async def test_workers_that_can_not_be_queued_hold_up_no_removal_and_get_no_nodes(
    world: World, dispatcher: Dispatcher
) -> None:
    world.broken = {"AddWorkers"}
    world.pools["gpu"] = PoolSeen(name="gpu", steady=True, term=1, target_spot=1, nodes=nodes("unusable"))
    await dispatcher.look()
    assert world.steps == [RemoveNodes(("n1",))]
    assert world.statuses["gpu"].problem == "409 JobCompleted"
    world.pools["gpu"] = empty()
    await dispatcher.look()
    assert world.steps == [RemoveNodes(("n1",))], "nodes without workers would only cost"


async def test_an_unknown_depth_changes_and_says_nothing(world: World, dispatcher: Dispatcher) -> None:
    await dispatcher.look()
    world.active = None
    world.steps.clear()
    await dispatcher.look()
    assert (world.steps, len(world.told)) == ([], 1)
    world.active = 10
    await dispatcher.look()
    assert len(world.told) == 1, "what was decided before stays decided"


async def test_a_restart_does_not_repeat_the_last_decision(world: World, dispatcher: Dispatcher) -> None:
    await dispatcher.look()
    await dispatcher_in(world).look()
    assert len(world.written) == 1


async def test_nodes_cost_while_batch_can_not_be_seen_and_samples_wait_for_the_books(
    world: World, dispatcher: Dispatcher
) -> None:
    world.pools["gpu"] = PoolSeen(
        name="gpu", steady=True, term=1, target_spot=2, nodes=nodes("running", "running"), workers=workers(2)
    )
    await dispatcher.look()
    world.broken = {"batch gpu", "ledger"}
    for _ in range(3):
        world.now += timedelta(seconds=60)
        await dispatcher.look()
    assert world.samples == []
    world.broken = set()
    await dispatcher.look()
    assert sum(sample.node_seconds for sample in world.samples) == 2 * 180


async def test_a_pool_that_can_not_be_read_says_so_and_keeps_its_last_status(
    world: World, dispatcher: Dispatcher
) -> None:
    await dispatcher.look()
    world.broken = {"batch gpu"}
    world.now += timedelta(seconds=15)
    await dispatcher.look()
    status = world.statuses["gpu"]
    assert (status.problem, status.looked_at, status.max_nodes) == ("503", world.now, 4)


async def test_work_that_will_be_late_is_told_once_although_nothing_can_be_bought(
    world: World, dispatcher: Dispatcher
) -> None:
    dispatcher = dispatcher_in(world, max_nodes=0)
    for _ in range(3):
        await dispatcher.look()
    assert [(found.nodes, found.late) for found in world.written] == [(0, True)]
    assert "LATE: 10 of 10 detect images" in world.told[0].because
    assert world.steps == []


async def test_a_clock_that_jumps_by_an_hour_takes_nothing_back_and_asks_for_nothing_twice(
    world: World, dispatcher: Dispatcher
) -> None:
    await dispatcher.look()
    busy = PoolSeen(
        name="gpu", steady=True, term=1, target_spot=1, nodes=nodes("running"), workers=workers(1), resized_at=NOW
    )
    world.pools["gpu"] = busy
    world.steps.clear()
    for number in range(10):
        world.now = NOW + timedelta(hours=1 if number % 2 else -1)
        await dispatcher.look()
    assert world.steps == []


async def test_a_disabled_subscription_buys_nothing_and_says_so(world: World) -> None:
    world.receives = False
    targets = await dispatcher_in(world).look()
    assert targets["gpu"].nodes == 0
    assert "the subscription of detect is disabled" in targets["gpu"].because


# --- errors nobody foresaw


async def test_an_error_nobody_foresaw_ends_one_look_and_not_the_process(world: World) -> None:
    world.surprises = 2
    dispatcher, stop = dispatcher_in(world, interval_seconds=0.01), asyncio.Event()
    running = asyncio.create_task(dispatcher.run(stop))
    async with asyncio.timeout(5):
        while not world.steps and not running.done():
            await asyncio.sleep(0.01)
    stop.set()
    await running
    assert world.steps[:2] == GROW


async def test_a_row_that_can_not_be_decoded_leaves_a_gap_and_stops_no_look(
    world: World, dispatcher: Dispatcher
) -> None:
    world.broken = {"row"}
    await dispatcher.look()
    assert world.steps == GROW


def test_a_boot_time_of_zero_in_the_settings_is_nothing_to_divide_by() -> None:
    assert Memory(settings_with(boot_seconds=0.0)).pools["gpu"].boot.p50 > 0


# --- several pools

TWO = {"pools": [PoolEntry(name="gpu"), PoolEntry(name="cpu", job_kind=JobKind.CONVERT, buy="dedicated")]}


async def test_each_pool_gets_its_own_kinds_work_and_buys_what_it_may() -> None:
    world = World(pools={"gpu": empty("gpu"), "cpu": empty("cpu")})
    targets = await dispatcher_in(world, **TWO).look()
    assert [(name, target.dedicated, target.spot) for name, target in targets.items()] == [("gpu", 0, 1), ("cpu", 1, 0)]
    assert world.steps == [AddWorkers(1), Resize(0, 1), AddWorkers(1), Resize(1, 0)]
    assert {found.pool for found in world.told} == {"gpu", "cpu"}


@pytest.mark.parametrize("broken", ["batch gpu", "step gpu"])
async def test_one_pools_trouble_leaves_the_other_alone(broken: str) -> None:
    world = World(pools={"gpu": empty("gpu"), "cpu": empty("cpu")}, broken={broken})
    await dispatcher_in(world, **TWO).look()
    assert world.steps == [AddWorkers(1), Resize(1, 0)]


# --- leadership


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


# --- people's orders

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
    assert "pinned to 1 node by ops@desk until 2026-11-21 01:00 UTC: a test; without the pin" in (
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


# --- the breaker


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
