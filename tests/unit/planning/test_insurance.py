"""When more Spot nodes are bought than deadlines need, how many at most, and which are given up after a storm."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusebus.planning import (
    Demand,
    Due,
    Fleet,
    KindDemand,
    Limits,
    NodeCounts,
    PoolOffer,
    PoolState,
    Prices,
    Quantiles,
    Quota,
    decide,
)

NOW = 1_000_000.0
HOUR = 3600.0
T4 = PoolOffer(
    pool="t4", kind="detect", vm_size="NC4as_T4_v3", family="T4", vcpus=4, images_per_second=1.0,
    dedicated_per_hour=0.6, spot_per_hour=0.2,
)  # fmt: skip
FAR = msgspec.structs.replace(T4, pool="far", region="far", spot_per_hour=0.21)
D4 = msgspec.structs.replace(T4, pool="d4", kind="convert", vm_size="D4s_v5", family="D")
OFF = Limits(storms_per_hour=0.0)


def plan_of(images, hours=2.0, limits=None, offers=(T4,), states=(), more=()):
    due = Due(images=images, deadline=NOW + hours * HOUR, since=NOW - 60, total=images)
    detect = KindDemand(kind="detect", depth=images, due=(due,))
    states = states or tuple(PoolState(name=offer.pool) for offer in offers)
    return decide(Fleet(states), Demand((detect, *more)), limits or Limits(), Prices(offers=offers), NOW)


def test_a_long_plan_on_spot_is_insured_and_says_what_for_and_at_what_price():
    found, plain = plan_of(7500).pools[0], plan_of(7500, limits=OFF).pools[0]
    assert (plain.spot, found.spot) == (2, 10)
    assert "buys 10 Spot NC4as_T4_v3 at 0.2 an hour; 8 of them are insurance, for 0.13 USD: " in found.because
    assert "the work costs 0.45 without it, and 0.83 more should all Spot vanish" in found.because
    assert "insurance" not in plain.because


@pytest.mark.parametrize("images", [1, 500, 1500])
def test_what_is_done_soon_is_not_insured(images):
    assert plan_of(images).pools[0].spot == plan_of(images, limits=OFF).pools[0].spot


def test_where_spot_of_another_region_could_take_over_there_is_little_to_insure():
    assert (
        plan_of(7500, offers=(T4, FAR)).pool("t4").spot == plan_of(7500, offers=(T4, FAR), limits=OFF).pool("t4").spot
    )


def test_what_no_spot_node_does_is_not_insured():
    dear = msgspec.structs.replace(T4, spot_per_hour=None)
    assert plan_of(7500, offers=(dear,)) == plan_of(7500, offers=(dear,), limits=OFF)


def test_an_image_that_takes_long_is_not_given_a_node_of_its_own():
    jobs = KindDemand(
        kind="detect",
        depth=60,
        due=(Due(images=60, deadline=NOW + 2 * HOUR),),
        service={"t4": Quantiles(600, 720, True)},
    )
    found = decide(Fleet((PoolState(name="t4"),)), Demand((jobs,)), Limits(), Prices(offers=(T4,)), NOW)
    assert found.pools[0].spot == 12  # five rounds


def test_no_kind_insures_itself_with_what_another_needs():
    convert = KindDemand(kind="convert", depth=7500, due=(Due(images=7500, deadline=NOW + 2 * HOUR),))
    limits = Limits(max_nodes=6)
    found = plan_of(7500, offers=(T4, D4), limits=limits, more=(convert,))
    assert found.pool("d4").spot == plan_of(7500, limits=OFF).pools[0].spot
    assert found.pool("t4").spot == 4
    assert found.late == ()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60_000), st.floats(0.4, 10), st.sampled_from([0.25, 3.0, 100.0]), st.floats(0, 1),
    st.integers(0, 200), st.none() | st.floats(0, 20),
)  # fmt: skip
def test_insurance_never_costs_more_than_its_share_and_keeps_to_every_limit(images, hours, storms, most, vcpus, money):
    """The share: of the boots and the work without it."""
    limits = Limits(quotas=(Quota(vcpus=vcpus, spot=True),), budget_left=money)
    plain = plan_of(images, hours, msgspec.structs.replace(limits, storms_per_hour=0.0)).pools[0]
    insured = msgspec.structs.replace(limits, storms_per_hour=storms, most_premium=most)
    found, boot = plan_of(images, hours, insured).pools[0], 300.0
    more = found.spot - plain.spot
    assert (found.dedicated, more >= 0) == (plain.dedicated, True)
    if more:
        per_image = (0.2 * plain.spot + 0.6 * plain.dedicated) / plain.nodes
        assert more * boot * 0.2 <= most * (plain.nodes * boot * 0.6 + images * per_image) + 1e-6
        assert found.spot * 4 <= vcpus
        assert money is None or found.spot * boot * 0.2 / HOUR <= money


def stormy(since, preempted=12, **more):
    """All Spot was lost so many seconds ago."""
    spot = NodeCounts(target=preempted, preempted=preempted)
    return PoolState(name="t4", spot=spot, evicted=preempted, evicted_at=NOW - since, waiting=preempted, **more)


def test_lost_nodes_that_the_rest_does_not_need_are_given_up():
    found = plan_of(560, hours=1.7, states=(stormy(150),)).pools[0]
    assert (found.spot, found.dedicated) == (1, 0)
    assert "of 12 Spot NC4as_T4_v3 that Azure took 11 can go: 1 could do the rest" in found.because


@pytest.mark.parametrize(
    ("images", "state"),
    [
        (560, stormy(100)),  # the storm may still take others: one resize is enough
        (560, stormy(150, preempted=6)),  # too few to be worth a resize
        (560, stormy(150, steady=False)),
        (60_000, stormy(150)),  # all are needed
    ],
)
def test_lost_nodes_are_kept_where_they_are_needed_or_not_worth_a_resize(images, state):
    assert plan_of(images, hours=1.7, states=(state,)).pools[0].spot == state.spot.preempted


def test_no_worker_waits_for_a_cheap_node_while_a_dear_one_is_to_go():
    state = PoolState(
        name="t4", running=3, dedicated=NodeCounts(target=2, busy=2), spot=NodeCounts(target=2, busy=1, starting=1)
    )
    found = plan_of(1000, states=(state,)).pools[0]
    assert (found.dedicated, found.spot, found.workers) == (0, 2, 1)
