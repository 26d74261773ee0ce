"""The bound: tight where the best schedule is known, below every schedule that is in time."""

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusebus.planning.fleet import Quantiles
from fusebus.planning.simulation import simulate
from fusebus.planning.simulation.bound import lower_bound
from fusebus.planning.simulation.scenario import Draws, Lump, Scenario
from fusebus.planning.simulation.scenarios import D4, GPUS, T4

HOUR = 3600.0


def scenario_of(*lumps, deadline=1800.0, offers=(T4,), boot=300.0, seconds=1.0, **more):
    return Scenario(
        name="t", says="", lumps=lumps, deadline=deadline, offers=offers, service=Quantiles(seconds, seconds),
        boot=Quantiles(boot, boot), **more,
    )  # fmt: skip


def node_seconds(scenario):
    """The bound in seconds of a Spot T4."""
    return lower_bound(scenario, Draws(scenario)) / T4.spot_per_hour * HOUR


def test_one_burst_needs_one_boot_and_its_work():
    assert node_seconds(scenario_of(Lump(0.0, 1000))) == pytest.approx(1300)


def test_whole_nodes_are_counted():
    assert node_seconds(scenario_of(Lump(0.0, 1801))) == pytest.approx(1801 + 2 * 300)


def test_arrivals_that_can_wait_share_a_boot():
    assert node_seconds(scenario_of(Lump(0.0, 10), Lump(1700.0, 10))) == pytest.approx(320)


def test_arrivals_far_apart_pay_for_two_boots():
    assert node_seconds(scenario_of(Lump(0.0, 10), Lump(9000.0, 10))) == pytest.approx(620)


def test_a_node_idles_where_that_is_cheaper_than_a_boot():
    # Without time to wait, an image each 100 s for 1,000 s: one node for all of it.
    lumps = [Lump(100.0 * k, 1) for k in range(11)]
    assert node_seconds(scenario_of(*lumps, deadline=10.0)) == pytest.approx(1000 - 10 + 300)


def test_work_in_a_storm_is_counted_at_the_price_of_dedicated_nodes():
    stormy = scenario_of(Lump(5000.0, 1000), storms=((0.0, 20_000.0),))
    assert node_seconds(stormy) == pytest.approx(1300 * T4.dedicated_per_hour / T4.spot_per_hour)


def test_a_gap_without_work_is_paid_by_a_node_that_idles_or_by_another_boot():
    # Between the first's deadline and the second's arrival are 200 s: cheaper than a boot of 300, but not for nothing.
    near = scenario_of(Lump(0.0, 1000), Lump(2000.0, 1000))
    assert 2000 + 300 + 180 < node_seconds(near) <= 2000 + 300 + 200
    assert node_seconds(scenario_of(Lump(0.0, 1000), Lump(9000.0, 1000))) == pytest.approx(2600)


def test_nobody_orders_before_second_0_so_one_node_is_too_few_where_its_boot_leaves_too_little_time():
    assert node_seconds(scenario_of(Lump(0.0, 1500))) == pytest.approx(1500 + 300)
    assert node_seconds(scenario_of(Lump(0.0, 1501))) == pytest.approx(1501 + 2 * 300)
    assert node_seconds(scenario_of(Lump(5000.0, 1501))) == pytest.approx(1501 + 300)


def test_work_before_a_storm_takes_as_many_spot_nodes_as_can_do_it_until_then():
    # Of 880 s until the last Spot node is gone at least 150 go into its boot: 730 s are left, and 10 nodes are needed.
    stormy = scenario_of(Lump(0.0, 7300), deadline=7200.0, storms=((760.0, 90_000.0),))
    assert node_seconds(stormy) == pytest.approx(7300 + 10 * 300)


def test_a_region_without_storms_keeps_its_price():
    home, far = (msgspec.structs.replace(T4, pool=name, region=name) for name in ("home", "far"))
    more = {"deadline": 7200.0, "storms": ((0.0, 90_000.0),), "storm_regions": ("home",)}
    assert node_seconds(scenario_of(Lump(5000.0, 1000), offers=(home, far), **more)) == pytest.approx(1300)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 20_000), st.integers(1, 3000)), min_size=1, max_size=6),
    st.sampled_from([1200.0, 3600.0, 14_400.0]),
    st.integers(0, 1000),
    st.none() | st.tuples(st.floats(0, 20_000), st.floats(600, 20_000)),
    st.sampled_from([0.0, 3.0]),
)
def test_whoever_is_in_time_pays_at_least_the_bound(arrivals, deadline, seed, storm, insured):
    first = min(at for at, _ in arrivals)
    lumps = tuple(Lump(at - first, images) for at, images in sorted(arrivals))
    scenario = Scenario(
        name="t", says="", lumps=lumps, deadline=deadline, offers=GPUS, service=Quantiles(1.5, 2.0), seed=seed,
        storms=() if storm is None else ((storm[0], storm[0] + storm[1]),), storms_per_hour=insured,
    )  # fmt: skip
    for outcome in simulate(scenario):
        assert math.isfinite(outcome.bound)
        assert outcome.hits < outcome.images or outcome.cost >= outcome.bound * (1 - 1e-9), outcome.policy


@pytest.mark.parametrize("seed", range(12))
def test_nobody_undercuts_the_bound_of_two_kinds_that_boot_beside_each_other(seed):
    # Boots vary tenfold and cost nearly everything: who counted one kind's boots for the other would be wrong.
    scenario = Scenario(
        name="t", says="", lumps=(Lump(0.0, 20), Lump(1.0, 20, "convert"), Lump(9000.0, 20)), deadline=3000.0,
        offers=(T4, D4), service=Quantiles(1.0, 1.0), boot=Quantiles(300.0, 900.0), seed=seed,
    )  # fmt: skip
    for outcome in simulate(scenario):
        assert outcome.hits < outcome.images or outcome.cost >= outcome.bound * (1 - 1e-9), outcome.policy
