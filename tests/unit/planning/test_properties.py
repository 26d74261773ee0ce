"""What holds of the policy whatever the fleet and the work."""

import re

import msgspec
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
    Quota,
    decide,
    same,
)

NOW = 1_000_000.0
T4 = PoolOffer(
    pool="t4", kind="detect", vm_size="NC4as_T4_v3", family="T4", vcpus=4, images_per_second=1.0,
    dedicated_per_hour=0.6, spot_per_hour=0.2, max_nodes=40,
)  # fmt: skip
A100 = PoolOffer(
    pool="a100", kind="detect", vm_size="NC24ads_A100_v4", family="A100", vcpus=24, images_per_second=4.0,
    dedicated_per_hour=4.8, spot_per_hour=1.0, max_nodes=4,
)  # fmt: skip
PRICES = Prices(offers=(T4, A100))
CHECKS = settings(max_examples=60, deadline=None)

small = st.integers(0, 6)
depths = st.integers(0, 60_000)


@st.composite
def pools(draw, name, steady=None):
    spot = {key: draw(small) for key in ("starting", "idle", "busy", "preempted")}
    dedicated = {key: draw(small) for key in ("starting", "idle", "busy")}
    is_steady = draw(st.booleans()) if steady is None else steady
    more = 0 if is_steady else draw(small)
    busy = spot["busy"] + dedicated["busy"]
    evicted = draw(small)
    return PoolState(
        name=name,
        steady=is_steady,
        spot=NodeCounts(target=sum(spot.values()) + more, **spot),
        dedicated=NodeCounts(target=sum(dedicated.values()), **dedicated),
        running=busy,
        waiting=draw(small),
        ordered_at=NOW - draw(st.floats(0, 1000)),
        evicted=evicted,
        evicted_at=NOW - draw(st.floats(0, 4000)) if evicted else None,
    )


@st.composite
def fleets(draw, steady=None):
    return Fleet((draw(pools("t4", steady)), draw(pools("a100", steady))))


@st.composite
def dues(draw):
    """Fractions of the work with their deadlines, in seconds from now."""
    return draw(st.lists(st.tuples(st.integers(1, 5), st.floats(-600, 30_000)), min_size=1, max_size=4))


def demand_of(depth, split, **more):
    whole = sum(share for share, _ in split)
    due = tuple(Due(images=depth * share // whole, deadline=NOW + at) for share, at in split)
    return Demand((KindDemand(kind="detect", depth=depth, due=due, oldest_age=60.0, **more),))


limits_of = st.builds(
    Limits,
    max_nodes=st.integers(0, 60),
    quotas=st.lists(
        st.builds(Quota, vcpus=st.integers(0, 200), family=st.sampled_from(["", "T4", "A100"]), spot=st.booleans()),
        max_size=3,
    ).map(tuple),
    budget_left=st.none() | st.floats(0, 50),
)


def after(fleet, plan):
    """The fleet as it is at once after Batch has taken the plan's resizes."""
    found = []
    for state in fleet.pools:
        wanted = plan.pool(state.name)
        counts = {spot: _resized(state, spot, wanted.spot if spot else wanted.dedicated) for spot in (True, False)}
        grown = any(counts[spot].starting > state.counts(spot).starting for spot in counts)
        found.append(
            msgspec.structs.replace(
                state,
                spot=counts[True],
                dedicated=counts[False],
                steady=state.steady and not grown,
                ordered_at=NOW if grown else state.ordered_at,
            )
        )
    return Fleet(tuple(found))


def _resized(state, spot, wanted):
    counts = state.counts(spot)
    missing = wanted - counts.present if state.steady else 0
    if missing > 0:
        return msgspec.structs.replace(counts, target=wanted, starting=counts.starting + missing)
    return msgspec.structs.replace(counts, target=wanted)


@CHECKS
@given(fleets(), depths, dues(), limits_of)
def test_no_plan_leaves_the_bounds(fleet, depth, split, limits):
    plan = decide(fleet, demand_of(depth, split), limits, PRICES, NOW)
    there = {state.name: (state.dedicated, state.spot) for state in fleet.pools}
    grown = 0
    for pool in plan.pools:
        assert pool.dedicated >= 0
        assert pool.spot >= 0
        assert pool.workers >= 0
        most = sum(max(counts.present, counts.target) for counts in there[pool.pool])
        offer = T4 if pool.pool == "t4" else A100
        assert pool.nodes <= max(most, offer.max_nodes)
        grown += max(0, pool.nodes - most)
    used = sum(max(counts.present, counts.target) for both in there.values() for counts in both)
    assert grown <= max(0, limits.max_nodes - used) or grown == 0


@CHECKS
@given(depths, st.floats(900, 30_000), st.integers(0, 400), limits_of)
def test_quotas_hold(depth, due_in, vcpus, limits):
    limits = msgspec.structs.replace(limits, quotas=(Quota(vcpus=vcpus, spot=True), Quota(vcpus=vcpus, family="T4")))
    empty = Fleet((PoolState(name="t4"), PoolState(name="a100")))
    plan = decide(empty, demand_of(depth, [(1, due_in)]), limits, PRICES, NOW)
    assert plan.pool("t4").spot * 4 + plan.pool("a100").spot * 24 <= vcpus
    assert plan.pool("t4").dedicated * 4 <= vcpus


@CHECKS
@given(pools("t4", steady=True), depths, st.integers(0, 20_000), dues())
def test_more_work_never_asks_for_fewer_nodes(state, depth, more, split):
    calm = msgspec.structs.replace(state, evicted=0, evicted_at=None, dedicated=NodeCounts(), running=state.spot.busy)
    calm = msgspec.structs.replace(calm, spot=msgspec.structs.replace(calm.spot, preempted=0))
    found = [
        decide(Fleet((calm,)), demand_of(d, split), Limits(), Prices(offers=(T4,)), NOW).pools[0].nodes
        for d in (depth, depth + more)
    ]
    assert found[0] <= found[1]


@CHECKS
@given(fleets(steady=True), limits_of)
def test_without_work_all_go_to_zero(fleet, limits):
    plan = decide(fleet, Demand((KindDemand(kind="detect", depth=0),)), limits, PRICES, NOW)
    assert [(pool.nodes, pool.workers) for pool in plan.pools] == [(0, 0), (0, 0)]


@CHECKS
@given(fleets(steady=False), depths, dues(), limits_of)
def test_what_resizes_is_never_resized(fleet, depth, split, limits):
    plan = decide(fleet, demand_of(depth, split), limits, PRICES, NOW)
    for state in fleet.pools:
        pool = plan.pool(state.name)
        assert (pool.dedicated, pool.spot) == (state.dedicated.target, state.spot.target)


@CHECKS
@given(fleets(), depths, dues(), limits_of)
def test_the_same_values_give_the_same_plan(fleet, depth, split, limits):
    demand = demand_of(depth, split)
    assert decide(fleet, demand, limits, PRICES, NOW) == decide(fleet, demand, limits, PRICES, NOW)


@CHECKS
@given(depths, dues())
def test_a_plan_that_was_carried_out_asks_for_nothing_more(depth, split):
    empty = Fleet((PoolState(name="t4"), PoolState(name="a100")))
    demand = demand_of(depth, split)
    plan = decide(empty, demand, Limits(), PRICES, NOW)
    again = decide(after(empty, plan), demand, Limits(), PRICES, NOW)
    assert [(pool.dedicated, pool.spot) for pool in again.pools] == [(p.dedicated, p.spot) for p in plan.pools]


@CHECKS
@given(st.integers(10, 60_000), dues(), st.floats(0.9, 1.1))
def test_noise_of_ten_per_cent_changes_nothing(depth, split, noise):
    empty = Fleet((PoolState(name="t4"), PoolState(name="a100")))
    plan = decide(empty, demand_of(depth, split), Limits(), PRICES, NOW)
    settled = [msgspec.structs.replace(state, steady=True) for state in after(empty, plan).pools]
    again = decide(Fleet(tuple(settled)), demand_of(int(depth * noise), split), Limits(), PRICES, NOW)
    assert [(pool.dedicated, pool.spot) for pool in again.pools] == [(p.dedicated, p.spot) for p in plan.pools]


@CHECKS
@given(fleets(), depths, dues(), limits_of)
def test_every_change_is_explained_with_numbers(fleet, depth, split, limits):
    plan = decide(fleet, demand_of(depth, split), limits, PRICES, NOW)
    for pool in plan.pools:
        assert pool.because in plan.because
        assert re.search(r"\d", pool.because)


@CHECKS
@given(fleets(), limits_of)
def test_unknown_depth_changes_nothing(fleet, limits):
    plan = decide(fleet, Demand((KindDemand(kind="detect", depth=None),)), limits, PRICES, NOW)
    for state in fleet.pools:
        pool = plan.pool(state.name)
        assert pool.hold
        assert pool.workers == state.live


def test_plans_are_compared_without_their_reasons():
    empty = Fleet((PoolState(name="t4"),))
    one = decide(empty, demand_of(10, [(1, 5000)]), Limits(), PRICES, NOW)
    two = decide(empty, demand_of(11, [(1, 5000)]), Limits(), PRICES, NOW)
    assert same(one, two)
    assert one.because != two.because
    assert not same(None, one)
