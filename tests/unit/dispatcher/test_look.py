"""One look after another with plain ports: what is said when something fails."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from fusebus.bus import BusSettings, Depth, PublishFailed
from fusebus.contracts.messages import FleetChanged
from fusebus.contracts.outcomes import Outgoing
from fusebus.dispatcher.adapters import FleetError
from fusebus.dispatcher.loop import Dispatcher
from fusebus.dispatcher.policy import AddWorkers, Fleet, Resize, Step
from fusebus.dispatcher.settings import DispatcherSettings
from fusebus.ledger import CostSample, Decision, LedgerSettings, LedgerUnavailable

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@dataclass
class World:
    """Queue, pool, books and publisher in memory, each able to fail."""

    now: datetime = NOW
    active: int | None = 10
    fleet: Fleet = field(default_factory=lambda: Fleet(steady=True, target=0))
    broken: set[str] = field(default_factory=set)
    steps: list[Step] = field(default_factory=list)
    written: list[Decision] = field(default_factory=list)
    samples: list[CostSample] = field(default_factory=list)
    told: list[FleetChanged] = field(default_factory=list)

    async def depth(self, topic: str, subscription: str) -> Depth | None:
        return None if self.active is None else Depth(active=self.active, dead_letter=0, scheduled=0)

    async def publish(self, outgoing: Sequence[Outgoing]) -> None:
        self._fail("bus", PublishFailed("fleet"))
        self.told += [one.message for one in outgoing if isinstance(one.message, FleetChanged)]

    async def write_decision(self, decision: Decision) -> None:
        self._fail("ledger", LedgerUnavailable("decisions"))
        self.written.append(decision)

    async def decisions(self, pool: str, limit: int = 20) -> list[Decision]:
        return self.written[::-1][:limit]

    async def add_cost_sample(self, sample: CostSample) -> None:
        self._fail("ledger", LedgerUnavailable("costs"))
        self.samples.append(sample)

    async def ensure(self) -> None:
        """Nothing is missing."""

    async def read(self, now: datetime) -> Fleet:
        self._fail("batch", FleetError("503"))
        return self.fleet

    async def quota_nodes(self) -> int | None:
        return None

    async def carry_out(self, step: Step) -> None:
        self._fail("step", FleetError("409"))
        self.steps.append(step)

    def _fail(self, what: str, error: Exception) -> None:
        if what in self.broken:
            raise error


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def dispatcher(world: World) -> Dispatcher:
    settings = DispatcherSettings(
        bus=BusSettings(), ledger=LedgerSettings(), batch_url="http://localhost:1", price_per_node_hour=3600.0
    )
    return Dispatcher(settings, world, world, world, world, clock=lambda: world.now)


async def test_a_decision_is_carried_out_written_and_told_once(world: World, dispatcher: Dispatcher) -> None:
    await dispatcher.look()
    await dispatcher.look()
    assert world.steps[:2] == [AddWorkers(1), Resize(1)]
    assert [(found.nodes, found.workers) for found in world.written] == [(1, 1)]
    assert [found.because for found in world.told] == [found.because for found in world.written]


@pytest.mark.parametrize(("broken", "error"), [("bus", PublishFailed), ("ledger", LedgerUnavailable)])
async def test_what_could_not_be_said_holds_up_no_step_and_is_said_by_the_next_look(
    world: World, dispatcher: Dispatcher, broken: str, error: type[Exception]
) -> None:
    world.broken = {broken}
    with pytest.raises(error):
        await dispatcher.look()
    assert world.steps == [AddWorkers(1), Resize(1)]
    world.broken = set()
    await dispatcher.look()
    assert len(world.told) == 1
    assert {found.decided_at for found in world.written} == {NOW}


async def test_a_step_that_batch_refuses_is_said_all_the_same_and_tried_again(
    world: World, dispatcher: Dispatcher
) -> None:
    world.broken = {"step"}
    with pytest.raises(FleetError):
        await dispatcher.look()
    assert len(world.told) == 1
    world.broken = set()
    await dispatcher.look()
    assert world.steps == [AddWorkers(1), Resize(1)]
    assert len(world.told) == 1


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
    restarted = Dispatcher(dispatcher._settings, world, world, world, world, clock=lambda: world.now)
    await restarted.begin()
    await restarted.look()
    assert len(world.written) == 1


async def test_nodes_cost_while_batch_can_not_be_seen_and_samples_wait_for_the_books(
    world: World, dispatcher: Dispatcher
) -> None:
    world.fleet = msgspec.structs.replace(world.fleet, busy=2, running=2, target=2)
    await dispatcher.look()
    world.broken = {"batch", "ledger"}
    for _ in range(3):
        world.now += timedelta(seconds=60)
        with pytest.raises(FleetError):
            await dispatcher.look()
    assert world.samples == []
    world.broken = set()
    await dispatcher.look()
    assert sum(sample.node_seconds for sample in world.samples) == 2 * 180
    assert sum(sample.cost for sample in world.samples) == 2 * 180
