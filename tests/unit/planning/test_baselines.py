"""The baselines do what Kubernetes, KEDA and Batch document."""

import pytest

from fusebus.planning.fleet import Quantiles
from fusebus.planning.simulation.batch_formula import BatchFormula, _Autoscale
from fusebus.planning.simulation.keda import Keda, _Scaler
from fusebus.planning.simulation.nodes import Batchful
from fusebus.planning.simulation.scenario import Draws, Lump, Scenario
from fusebus.planning.simulation.scenarios import T4
from fusebus.planning.simulation.world import World

EXACT = Quantiles(300.0, 300.0, True)  # boots of always the same length


def watched(scaler, *lumps, seconds=1.5, **more):
    """Billed nodes at every moment that the scaler looked: (second, nodes)."""
    scenario = Scenario(
        name="t", says="", lumps=lumps, deadline=1800.0, offers=(T4,), service=Quantiles(seconds, seconds),
        boot=EXACT, **more,
    )  # fmt: skip
    world = World(scenario, Draws(scenario), scaler.self_starting)
    seen = []
    sample = world.sample
    world.sample = lambda: (seen.append((world.now, world.billed)), sample())
    scaler.begin(world)
    world.run()
    return dict(seen), world


def test_keda_wakes_at_a_poll_and_doubles_or_adds_four():
    seen, _ = watched(Keda(), Lump(1.0, 1000))
    assert [seen[t] for t in (15.0, 30.0, 45.0, 60.0, 75.0, 90.0)] == [0, 5, 10, 20, 40, 50]


def test_keda_wants_one_replica_for_five_messages():
    seen, _ = watched(Keda(), Lump(1.0, 23))
    assert max(seen.values()) == 5


@pytest.mark.parametrize(("messages", "replicas"), [(21, 5), (25, 5)])
def test_keda_counts_up_to_whole_replicas(messages, replicas):
    seen, _ = watched(Keda(), Lump(1.0, messages))
    assert max(seen.values()) == replicas


def test_keda_tolerates_ten_per_cent():
    # Five replicas for 25; at 27 the ratio is 1.08: nothing changes. At 28 it is 1.12.
    assert max(watched(Keda(), Lump(1.0, 25), Lump(61.0, 2))[0].values()) == 5
    assert max(watched(Keda(), Lump(1.0, 25), Lump(61.0, 3))[0].values()) == 6


def test_keda_goes_down_after_five_minutes_and_to_zero_after_the_cooldown():
    seen, world = watched(Keda(), Lump(1.0, 50))
    work_ends = max(world.latency) + 1.0
    assert seen[15.0 * (work_ends // 15 + 18)] == 10
    # The cooldown counts from the last poll that saw messages, at most 30 s before the end.
    assert work_ends + 270.0 <= world.now <= work_ends + 345.0


def test_keda_holds_while_the_metric_is_out():
    seen, _ = watched(Keda(), Lump(1.0, 1000), outages=((40.0, 200.0),))
    assert seen[195.0] == 5


def test_keda_removes_busy_pods():
    _, world = watched(Keda(), Lump(1.0, 30), seconds=600.0)
    assert world.busy_removed > 0


def test_the_formula_is_evaluated_every_five_minutes_and_never_above_five():
    seen, _ = watched(BatchFormula(), Lump(1.0, 1000))
    assert seen[270.0] == 0
    assert seen[300.0] == 5
    assert max(seen.values()) == 5


def test_the_formula_sees_samples_a_minute_late():
    seen, _ = watched(BatchFormula(), Lump(250.0, 3), Lump(1000.0, 1))
    assert seen[300.0] == 0
    assert seen[600.0] == 3


def test_the_formula_forgets_running_tasks():
    _, world = watched(BatchFormula(), Lump(1.0, 5), seconds=1200.0)
    assert world.busy_removed > 0


@pytest.fixture
def world():
    scenario = Scenario(
        name="t", says="", lumps=(), deadline=1800.0, offers=(T4,), service=Quantiles(1.5, 1.5), boot=EXACT
    )
    return World(scenario, Draws(scenario), self_starting=True)


@pytest.mark.parametrize(("replicas", "wanted"), [(1, 5), (3, 7), (4, 8), (5, 10), (20, 40)])
def test_keda_goes_up_by_the_greater_of_as_many_again_and_four(world, replicas, wanted):
    scaler = _Scaler(world, world.pools["t4"])
    scaler.replicas = replicas
    assert scaler._advised(1000) == wanted


def test_keda_takes_the_highest_advice_of_the_last_five_minutes(world):
    scaler = _Scaler(world, world.pools["t4"])
    scaler.replicas, advised = 10, {}
    for world.now in range(0, 315, 15):
        advised[world.now] = scaler._advised(25 if world.now else 50)
    assert {replicas for now, replicas in advised.items() if now < 300} == {10}
    assert advised[300] == 5


@pytest.fixture
def tasks(world):
    """What the formula says at a second, after samples of waiting tasks (by second)."""

    def tasks(samples, now):
        scaled, queue = _Autoscale(world, world.pools["t4"]), world.queues["detect"]
        for world.now, count in samples.items():
            queue.waiting.clear()
            queue.waiting.append(Batchful(world.now, 0, count, 0))
            scaled.sample()
        world.now = now
        return scaled._tasks()

    return tasks


def test_the_formula_takes_the_greater_of_the_latest_sample_and_the_mean(tasks):
    times = range(30, 330, 30)
    # Of 30 to 300 those up to 240 are seen: 8 of 10.
    assert tasks({at: 9 if at < 240 else 1 for at in times}, 300.0) == (7 * 9 + 1) / 8
    assert tasks({at: 1 if at < 240 else 9 for at in times}, 300.0) == 9


def test_the_formula_forgets_what_is_older_than_five_minutes(tasks):
    assert tasks({at: 100 if at < 300 else 1 for at in range(30, 630, 30)}, 600.0) == 1


@pytest.mark.parametrize(("seen", "expected"), [(7, (6 * 9 + 1) / 7), (6, 1)])
def test_the_formula_means_only_where_70_per_cent_of_the_samples_are_there(tasks, seen, expected):
    times = [30.0 * number for number in range(9 - seen, 9)]
    assert tasks({at: 9 if at < 240 else 1 for at in times}, 300.0) == expected
