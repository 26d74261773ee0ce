"""What holds of the policy whatever the fleet and the work."""

import re

import msgspec
from hypothesis import assume, given, settings
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

CLASSES = (True, False)

small = st.integers(0, 6)
few_or_none = st.sampled_from([0, 0, 0, 1, 6])  # else nearly every fleet has all that its work needs
depths = st.integers(0, 60_000)


@st.composite
def pools(draw, name, steady=None):
    spot = {key: draw(few_or_none) for key in ("starting", "idle", "busy", "preempted")}
    dedicated = {key: draw(few_or_none) for key in ("starting", "idle", "busy")}
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


ROOMY = Limits(max_nodes=500)
quota_of = st.builds(Quota, vcpus=st.integers(0, 60), family=st.sampled_from(["", "T4", "A100"]), spot=st.booleans())
quotas_of = st.lists(quota_of, max_size=3).map(tuple)
limits_of = st.builds(
    Limits, max_nodes=st.integers(0, 60), quotas=quotas_of, budget_left=st.none() | st.floats(0, 50),
    storms_per_hour=st.sampled_from([0.0, 0.25, 3.0]),
)  # fmt: skip


def after(fleet, plan):
    """The fleet as it is at once after Batch has taken the plan's resizes: idle nodes are gone, busy ones are not."""
    found = []
    for state in fleet.pools:
        wanted = plan.pool(state.name)
        if wanted.hold or not state.steady:
            found.append(state)
            continue
        counts = {spot: _resized(state.counts(spot), wanted.spot if spot else wanted.dedicated) for spot in CLASSES}
        grown = any(counts[spot].starting > state.counts(spot).starting for spot in CLASSES)
        found.append(
            msgspec.structs.replace(
                state,
                spot=counts[True],
                dedicated=counts[False],
                steady=not grown,
                ordered_at=NOW if grown else state.ordered_at,
            )
        )
    return Fleet(tuple(found))


def _resized(counts, wanted):
    missing = wanted - counts.present
    if missing > 0:
        return msgspec.structs.replace(counts, target=wanted, starting=counts.starting + missing)
    left = {"preempted": counts.preempted, "idle": counts.idle, "starting": counts.starting}
    for name in left:
        gone = min(left[name], -missing)
        left[name] -= gone
        missing += gone
    return msgspec.structs.replace(counts, target=wanted, **left)


def settled(fleet):
    """The same once the resizes have ended."""
    return Fleet(tuple(msgspec.structs.replace(state, steady=True) for state in fleet.pools))


def sizes(plan):
    return [(pool.pool, pool.dedicated, pool.spot) for pool in plan.pools]


def grown(fleet, plan):
    """Nodes bought, by pool and class (those of a pool that resizes were bought before)."""
    found = {}
    for state in fleet.pools:
        pool = plan.pool(state.name)
        for spot in CLASSES:
            counts = state.counts(spot)
            more = (pool.spot if spot else pool.dedicated) - (counts.present - counts.broken)
            if state.steady and more > 0:
                found[state.name, spot] = more
    return found


def offer_of(name):
    return next(offer for offer in PRICES.offers if offer.pool == name)


@CHECKS
@given(fleets(), depths, dues(), limits_of)
def test_no_plan_leaves_the_bounds(fleet, depth, split, limits):
    plan = decide(fleet, demand_of(depth, split), limits, PRICES, NOW)
    more, used = grown(fleet, plan), 0
    for state in fleet.pools:
        pool = plan.pool(state.name)
        assert min(pool.dedicated, pool.spot, pool.workers) >= 0
        most = sum(max(state.counts(spot).present, state.counts(spot).target) for spot in CLASSES)
        used += most if not state.steady else sum(state.counts(spot).present for spot in CLASSES)
        assert pool.nodes <= max(most, offer_of(state.name).max_nodes)
    assert sum(more.values()) <= max(0, limits.max_nodes - used)


@settings(CHECKS, max_examples=300)
@given(fleets(), st.integers(3000, 60_000), st.integers(900, 7200), st.lists(quota_of, min_size=1, max_size=3))
def test_quotas_hold_beside_what_is_there(fleet, depth, until, quotas):
    """With work that needs nodes, and no other limit that is narrower."""
    limits = msgspec.structs.replace(ROOMY, quotas=tuple(quotas))
    more = grown(fleet, decide(fleet, demand_of(depth, [(1, until)]), limits, PRICES, NOW))
    for quota in limits.quotas:
        used = bought = 0
        for state in fleet.pools:
            offer = offer_of(state.name)
            if quota.family in ("", offer.family):
                counts = state.counts(quota.spot)
                used += offer.vcpus * (counts.present if state.steady else max(counts.present, counts.target))
                bought += offer.vcpus * more.get((state.name, quota.spot), 0)
        assert bought <= max(0, quota.vcpus - used)


@CHECKS
@given(fleets(), depths, dues(), limits_of, st.floats(0, 20))
def test_what_is_bought_fits_into_the_budget(fleet, depth, split, limits, left):
    limits = msgspec.structs.replace(limits, budget_left=left)
    more = grown(fleet, decide(fleet, demand_of(depth, split), limits, PRICES, NOW))
    boots = {state.name: state.boot.p50 for state in fleet.pools}
    # At least its boot and the time that every node is bought for, or what work there is.
    cost = sum(n * offer_of(name).price(spot) * boots[name] / 3600 for (name, spot), n in more.items())
    assert cost <= left


@CHECKS
@given(fleets(), depths, dues(), limits_of)
def test_a_spent_budget_buys_nothing(fleet, depth, split, limits):
    spent = msgspec.structs.replace(limits, budget_left=0.0)
    assert grown(fleet, decide(fleet, demand_of(depth, split), spent, PRICES, NOW)) == {}


@CHECKS
@given(pools("t4", steady=True), depths, st.integers(0, 20_000), dues(), limits_of)
def test_more_work_never_asks_for_fewer_nodes(state, depth, more, split, limits):
    calm = msgspec.structs.replace(state, evicted=0, evicted_at=None, dedicated=NodeCounts(), running=state.spot.busy)
    calm = msgspec.structs.replace(calm, spot=msgspec.structs.replace(calm.spot, preempted=0))
    found = [
        decide(Fleet((calm,)), demand_of(d, split), limits, Prices(offers=(T4,)), NOW).pools[0].nodes
        for d in (depth, depth + more)
    ]
    assert found[0] <= found[1]


@CHECKS
@given(depths, st.lists(st.tuples(st.integers(1, 5), st.floats(1500, 30_000)), min_size=1, max_size=4))
def test_every_deadline_is_bought_for_that_can_be_met(depth, split):
    """By nodes that need their boot's p95 and are done a margin before, and no alert is given."""
    empty = Fleet((PoolState(name="t4"), PoolState(name="a100")))
    demand = demand_of(depth, split)
    plan = decide(empty, demand, ROOMY, PRICES, NOW)
    more = grown(empty, plan)
    room = sum(offer.max_nodes * offer.images_per_second for offer in PRICES.offers)
    cumulative, possible = 0, True
    for due in sorted(demand.kinds[0].due, key=lambda due: due.deadline):
        cumulative += due.images
        seconds = due.deadline - NOW - PoolState(name="").boot.p95 - ROOMY.margin
        rate = sum(n * offer_of(name).images_per_second for (name, _), n in more.items())
        if cumulative * 1.3 < room * seconds:
            assert rate * seconds >= cumulative - 1
        else:
            possible = False
    assert plan.late == () or not possible


@CHECKS
@given(fleets(steady=True), limits_of)
def test_without_work_all_go_to_zero(fleet, limits):
    plan = decide(fleet, Demand((KindDemand(kind="detect", depth=0),)), limits, PRICES, NOW)
    assert [(pool.nodes, pool.workers) for pool in plan.pools] == [(0, 0), (0, 0)]


@CHECKS
@given(fleets(steady=True), st.integers(1, 60_000), dues(), limits_of)
def test_the_last_node_goes_only_when_nothing_is_left(fleet, depth, split, limits):
    plan = decide(fleet, demand_of(depth, split), limits, PRICES, NOW)
    there = sum(state.dedicated.present + state.spot.present for state in fleet.pools)
    assert sum(pool.nodes for pool in plan.pools) >= min(1, there)


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
@given(fleets(), depths, dues(), limits_of)
def test_a_plan_that_was_carried_out_asks_for_nothing_more(fleet, depth, split, limits):
    """Whatever there was before, whatever is wanted and allowed: only what still resizes goes on. What is let go makes
    room below a limit; that may be used (test_plans_come_to_rest…)."""
    demand = demand_of(depth, split)
    plan = decide(fleet, demand, limits, PRICES, NOW)
    assume(not let_go(fleet, plan))
    done = after(fleet, plan)
    again = decide(done, demand, limits, PRICES, NOW)
    assert sizes(again) == sizes(plan)
    assert grown(done, again) == {}


@CHECKS
@given(fleets(), depths, dues(), limits_of)
def test_plans_come_to_rest_and_never_buy_back_what_they_let_go(fleet, depth, split, limits):
    """Once its resizes have ended a plan buys nothing more, but where what it let go has made room below a limit."""
    demand, fleet, given_up = demand_of(depth, split), settled(fleet), set()
    for turn in range(4):
        plan = decide(fleet, demand, limits, PRICES, NOW)
        more, less = grown(fleet, plan), let_go(fleet, plan)
        assert not given_up & set(more)
        assert not turn or given_up or not more
        given_up |= less
        fleet = settled(after(fleet, plan))
    assert not more


def let_go(fleet, plan):
    """Pools and classes of which nodes that are there are given up."""
    found = set()
    for state in fleet.pools:
        pool = plan.pool(state.name)
        for spot in CLASSES:
            if not pool.hold and (pool.spot if spot else pool.dedicated) < state.counts(spot).present:
                found.add((state.name, spot))
    return found


@CHECKS
@given(st.integers(10, 60_000), dues(), st.floats(0.9, 1.1), limits_of)
def test_noise_of_ten_per_cent_changes_nothing(depth, split, noise, limits):
    limits = msgspec.structs.replace(limits, max_nodes=500, quotas=(), budget_left=None)
    empty = Fleet((PoolState(name="t4"), PoolState(name="a100")))
    plan = decide(empty, demand_of(depth, split), limits, PRICES, NOW)
    again = decide(settled(after(empty, plan)), demand_of(int(depth * noise), split), limits, PRICES, NOW)
    assert sizes(again) == sizes(plan)


@CHECKS
@given(st.integers(10, 60_000), dues(), st.floats(0.9, 1.1))
def test_a_rate_measured_ten_per_cent_wrong_changes_nothing(depth, split, noise):
    empty = Fleet((PoolState(name="t4"), PoolState(name="a100")))

    def measured(factor):
        one = {offer.pool: 1.0 / offer.images_per_second * factor for offer in PRICES.offers}
        return {"service": {pool: Quantiles(seconds, seconds * 1.2, True) for pool, seconds in one.items()}}

    plan = decide(empty, demand_of(depth, split, **measured(1.0)), ROOMY, PRICES, NOW)
    again = decide(settled(after(empty, plan)), demand_of(depth, split, **measured(noise)), ROOMY, PRICES, NOW)
    assert sizes(again) == sizes(plan)


@CHECKS
@given(st.integers(10, 60_000), dues(), st.lists(st.floats(0.95, 1.05), min_size=8, max_size=8))
def test_a_depth_that_trembles_never_resizes(depth, split, noises):
    """Ten per cent from the lowest to the highest reading, look after look, while nodes boot and work."""
    fleet = Fleet((PoolState(name="t4"), PoolState(name="a100")))
    plan = decide(fleet, demand_of(depth, split), ROOMY, PRICES, NOW)
    fleet = settled(after(fleet, plan))
    for look, noise in enumerate(noises):
        again = decide(fleet, demand_of(int(depth * noise), split), ROOMY, PRICES, NOW + 15 * look)
        assert sizes(again) == sizes(plan)


RELEASED = re.compile(r"\d+ (?:nodes ready or coming |(?:Spot|dedicated) NC\w+ at [\d.]+ )?can go|0 nodes")
BOUGHT = re.compile(r"(\d+) (Spot|dedicated) (NC\w+) at ([\d.]+) an hour")


@CHECKS
@given(fleets(), depths, dues(), limits_of)
def test_every_purchase_is_explained_with_its_numbers(fleet, depth, split, limits):
    demand = demand_of(depth, split)
    plan = decide(fleet, demand, limits, PRICES, NOW)
    more = grown(fleet, plan)
    for (name, spot), count in more.items():
        because, offer = plan.pool(name).because, offer_of(name)
        assert because in plan.because
        assert f"{depth} detect images" in because
        assert "nodes ready and" in because or "cost" in because
        bought = because.split("buys ", 1)[1].split(";", 1)[0]
        told = {(words[1] == "Spot", words[2]): (int(words[0]), float(words[3])) for words in BOUGHT.findall(bought)}
        assert told[spot, offer.vm_size] == (count, offer.price(spot))


@CHECKS
@given(fleets(), st.integers(0, 200) | depths, dues(), limits_of)
def test_every_release_is_explained_with_its_numbers(fleet, depth, split, limits):
    plan = decide(fleet, demand_of(depth, split), limits, PRICES, NOW)
    for state in fleet.pools:
        pool = plan.pool(state.name)
        there = sum(state.counts(spot).present - state.counts(spot).broken for spot in CLASSES)
        if state.steady and pool.nodes < there:
            assert RELEASED.search(pool.because), pool.because


@CHECKS
@given(fleets(), depths, dues(), limits_of)
def test_every_plan_has_a_reason_with_numbers_and_what_is_late_has_its_own(fleet, depth, split, limits):
    plan = decide(fleet, demand_of(depth, split), limits, PRICES, NOW)
    for pool in plan.pools:
        assert pool.because in plan.because
        assert re.search(r"\d", pool.because)
    for late in plan.late:
        assert late.because.startswith(f"{late.images} of {depth} detect images are late")
        assert late.images <= depth
        assert late.seconds >= 0


@CHECKS
@given(fleets(), limits_of)
def test_unknown_depth_changes_nothing(fleet, limits):
    plan = decide(fleet, Demand((KindDemand(kind="detect", depth=None),)), limits, PRICES, NOW)
    for state in fleet.pools:
        pool = plan.pool(state.name)
        assert pool.hold
        assert pool.workers == state.live
        for spot in CLASSES:
            counts = state.counts(spot)
            assert (pool.spot if spot else pool.dedicated) == (
                counts.present - counts.broken if state.steady else counts.target
            )


def test_plans_are_compared_without_their_reasons():
    empty = Fleet((PoolState(name="t4"),))
    one = decide(empty, demand_of(10, [(1, 5000)]), Limits(), PRICES, NOW)
    two = decide(empty, demand_of(11, [(1, 5000)]), Limits(), PRICES, NOW)
    assert same(one, two)
    assert one.because != two.because
    assert not same(None, one)
