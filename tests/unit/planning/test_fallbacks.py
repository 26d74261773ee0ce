"""What is bought where the cheapest is refused: another size, region or price class. Times in seconds."""

import msgspec
import pytest

from fusebus.planning import (
    Demand,
    Due,
    Fleet,
    KindDemand,
    Limits,
    PoolOffer,
    PoolState,
    Prices,
    Quota,
    Refusal,
    decide,
)

NOW = 1_000_000.0
MINUTE, HOUR = 60.0, 3600.0
T4 = PoolOffer(
    pool="t4", kind="detect", vm_size="NC4as_T4_v3", family="T4", vcpus=4, images_per_second=1.0,
    dedicated_per_hour=0.6, spot_per_hour=0.2,
)  # fmt: skip
A100 = PoolOffer(
    pool="a100", kind="detect", vm_size="NC24ads_A100_v4", family="A100", vcpus=24, images_per_second=4.0,
    dedicated_per_hour=4.8, spot_per_hour=1.0,
)  # fmt: skip
SPOT = msgspec.structs.replace(T4, dedicated_per_hour=None)
FAR = msgspec.structs.replace(T4, pool="far", region="far", spot_per_hour=0.21)


def plan_of(demand, *states, limits=None, offers=(T4,), changes=(), now=NOW):
    states = states or tuple(PoolState(name=offer.pool) for offer in offers)
    kinds = demand if isinstance(demand, tuple) else (demand,)
    limits = limits or Limits(storms_per_hour=0.0)
    return decide(Fleet(states), Demand(kinds), limits, Prices(offers=offers, changes=changes), now)


def work(depth, due_in=30 * MINUTE, **more):
    due = () if depth is None else (Due(images=depth, deadline=NOW + due_in),)
    return KindDemand(kind="detect", depth=depth, due=due, **more)


def fresh(depth):
    """Work that has just arrived and has two hours."""
    due = Due(images=depth, deadline=NOW + 2 * HOUR, since=NOW - 30, total=depth)
    return KindDemand(kind="detect", depth=depth, due=(due,))


def test_another_region_takes_over_where_the_first_has_no_quota():
    far = msgspec.structs.replace(T4, pool="t4-far", region="far")
    limits = Limits(
        quotas=(Quota(vcpus=0, spot=True), Quota(vcpus=0, family="T4"), Quota(vcpus=100, spot=True, region="far"))
    )
    found = plan_of(work(1000), limits=limits, offers=(T4, far))
    assert (found.pool("t4").nodes, found.pool("t4-far").spot) == (0, 1)


def test_a_larger_size_takes_over_where_the_small_one_is_refused():
    refused = tuple(Refusal(spot=spot, at=NOW - 60, reason="AllocationTimedOut") for spot in (True, False))
    states = (PoolState(name="t4", refusals=refused), PoolState(name="a100"))
    found = plan_of(fresh(20_000), *states, offers=(T4, A100))
    assert found.pool("t4").nodes == 0
    assert found.pool("a100").spot == 1
    assert "AllocationTimedOut" in found.because


def test_a_refusal_is_forgotten_after_a_while():
    state = PoolState(name="t4", refusals=(Refusal(spot=True, at=NOW - 601, reason="AllocationTimedOut"),))
    assert plan_of(fresh(1000), state).pools[0].spot == 1


@pytest.mark.parametrize(("times", "pause"), [(1, 10), (2, 20), (3, 40), (4, 80), (9, 80)])
def test_the_pause_after_a_refusal_doubles_with_each_in_a_row(times, pause):
    def bought(minutes):
        refusal = Refusal(spot=True, at=NOW - minutes * MINUTE, reason="AllocationTimedOut", times=times)
        return (
            plan_of(work(1000, due_in=12 * HOUR), PoolState(name="t4", refusals=(refusal,)), offers=(SPOT,))
            .pools[0]
            .spot
        )

    assert (bought(pause - 1), bought(pause + 1)) == (0, 1)


def test_no_pause_is_longer_than_half_of_the_time_left_so_late_work_asks_as_often_as_it_may():
    refusal = Refusal(spot=True, at=NOW - 11 * MINUTE, reason="AllocationTimedOut", times=9)
    state = PoolState(name="t4", refusals=(refusal,))
    assert plan_of(work(1000, due_in=-HOUR), state, offers=(SPOT,)).pools[0].spot > 0
    assert plan_of(work(1000, due_in=20 * MINUTE), state, offers=(SPOT,)).pools[0].spot > 0
    assert plan_of(work(1000, due_in=2 * HOUR), state, offers=(SPOT,)).pools[0].spot == 0


def test_after_two_sizes_were_refused_no_third_is_tried_in_that_region_but_the_other_region_is():
    refused = (Refusal(spot=True, at=NOW - MINUTE, reason="AllocationTimedOut"),)
    states = [PoolState(name="t4", refusals=refused), PoolState(name="a100"), PoolState(name="far")]
    one = plan_of(fresh(20_000), *states[:2], offers=(T4, A100))
    assert one.pool("a100").spot == 1, "another size is tried at once"
    third = msgspec.structs.replace(A100, pool="third", spot_per_hour=1.1)
    short = [states[0], PoolState(name="a100", refusals=refused), PoolState(name="third")]
    two = plan_of(fresh(20_000), *short, offers=(T4, A100, third))
    assert sum(pool.spot for pool in two.pools) == 0
    elsewhere = plan_of(fresh(20_000), *short, states[2], offers=(T4, A100, third, FAR))
    assert elsewhere.pool("far").spot > 0


def test_spot_that_was_refused_is_not_tried_again_when_the_deadline_is_near():
    state = PoolState(name="t4", refusals=(Refusal(spot=True, at=NOW - 601, reason="AllocationTimedOut"),))
    found = plan_of(work(1000), state).pools[0]
    assert (found.spot, found.dedicated) == (0, 1)
    assert "the deadline is near" in found.because


def test_dedicated_takes_over_where_spot_is_refused():
    state = PoolState(name="t4", refusals=(Refusal(spot=True, at=NOW - 60, reason="AllocationTimedOut"),))
    found = plan_of(work(1000), state).pools[0]
    assert (found.spot, found.dedicated) == (0, 1)
