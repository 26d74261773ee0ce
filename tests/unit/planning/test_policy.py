"""Every clause of the policy with plain values. Times in seconds, `NOW` is now."""

import math

import msgspec
import pytest

from fusebus.planning import (
    Demand,
    Due,
    Fleet,
    KindDemand,
    Limits,
    NodeCounts,
    Pin,
    PoolOffer,
    PoolState,
    PriceChange,
    Prices,
    Quota,
    Window,
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
D4 = PoolOffer(
    pool="d4", kind="convert", vm_size="D4s_v5", family="D", vcpus=4, images_per_second=4.0,
    dedicated_per_hour=0.2, spot_per_hour=0.05,
)  # fmt: skip


def plan_of(demand, *states, limits=None, offers=(T4,), changes=(), now=NOW):
    states = states or tuple(PoolState(name=offer.pool) for offer in offers)
    kinds = demand if isinstance(demand, tuple) else (demand,)
    return decide(Fleet(states), Demand(kinds), limits or Limits(), Prices(offers=offers, changes=changes), now)


def work(depth, due_in=30 * MINUTE, **more):
    due = () if depth is None else (Due(images=depth, deadline=NOW + due_in),)
    return KindDemand(kind="detect", depth=depth, due=due, **more)


def fresh(depth):
    """Work that has just arrived and has two hours."""
    due = Due(images=depth, deadline=NOW + 2 * HOUR, since=NOW - 30, total=depth)
    return KindDemand(kind="detect", depth=depth, due=(due,))


def nodes(target, **states):
    return NodeCounts(target=target, **states)


def test_nothing_is_bought_for_nothing():
    assert plan_of(work(0)).pools[0].nodes == 0


@pytest.mark.parametrize(("images", "expected"), [(1, 1), (100, 1), (1000, 1), (10_000, 10), (20_000, 19)])
def test_as_many_nodes_are_bought_as_the_deadline_needs(images, expected):
    # 30 min less a boot of 8 and a margin of 1 leave 21 min; 15 % more than needed is bought.
    assert plan_of(work(images)).pools[0].spot == expected


def test_the_cheapest_price_class_is_bought_and_named():
    found = plan_of(work(1000)).pools[0]
    assert (found.dedicated, found.spot) == (0, 1)
    assert "Spot NC4as_T4_v3 at 0.2 an hour" in found.because


def test_what_comes_is_never_ordered_twice():
    state = PoolState(name="t4", steady=False, spot=nodes(10, starting=4), ordered_at=NOW - 60)
    assert plan_of(work(10_000), state).pools[0].spot == 10
    done = PoolState(name="t4", spot=nodes(10, starting=10), ordered_at=NOW - 60)
    assert plan_of(work(10_000), done).pools[0].spot == 10


def test_a_pool_that_resizes_is_left_alone():
    state = PoolState(name="t4", steady=False, spot=nodes(2, starting=2), ordered_at=NOW - 10)
    found = plan_of(work(30_000), state)
    assert found.pools[0].spot == 2
    assert "must wait" in found.pools[0].because


def test_an_unknown_depth_holds_still():
    state = PoolState(name="t4", spot=nodes(3, busy=2, idle=1), running=2)
    found = plan_of(work(None), state).pools[0]
    assert (found.hold, found.spot, found.workers) == (True, 3, 2)


def test_an_unknown_depth_of_one_kind_does_not_hold_the_other():
    convert = KindDemand(kind="convert", depth=1000, due=(Due(images=1000, deadline=NOW + HOUR),))
    found = plan_of((work(None), convert), offers=(T4, D4))
    assert found.pool("t4").hold
    assert found.pool("d4").spot == 1


def test_work_of_two_deadlines_is_planned_for_both():
    soon, later = Due(images=2000, deadline=NOW + 30 * MINUTE), Due(images=8000, deadline=NOW + 4 * HOUR)
    both = KindDemand(kind="detect", depth=10_000, due=(soon, later))
    assert plan_of(both, limits=Limits(storms_per_hour=0.0)).pools[0].spot == 2  # the first alone needs as many


def test_messages_without_a_deadline_get_the_usual_one_from_their_age():
    old = KindDemand(kind="detect", depth=4000, oldest_age=15 * MINUTE)
    young = KindDemand(kind="detect", depth=4000, oldest_age=0.0)
    assert plan_of(old).pools[0].spot > plan_of(young).pools[0].spot


def test_the_ledger_may_lag_behind_the_queue():
    dues = (Due(images=5000, deadline=NOW + 20 * MINUTE), Due(images=100, deadline=NOW + 4 * HOUR))
    assert plan_of(KindDemand(kind="detect", depth=100, due=dues)).pools[0].spot == 1


def test_a_quota_clamps_and_is_named():
    limits = Limits(quotas=(Quota(vcpus=16, spot=True), Quota(vcpus=8, family="T4")))
    found = plan_of(work(10_000), limits=limits)
    assert (found.pools[0].spot, found.pools[0].dedicated) == (4, 2)
    assert "quota of Spot is 16 vCores" in found.because
    assert "quota of T4 is 8 vCores" in found.because


def test_a_quota_of_another_region_does_not_count():
    limits = Limits(quotas=(Quota(vcpus=0, spot=True, region="westus"),))
    assert plan_of(work(1000), limits=limits).pools[0].spot == 1


def test_a_pool_out_of_order_gets_nothing():
    state = PoolState(name="t4", out_of_order="3 start tasks failed")
    found = plan_of(work(1000), state)
    assert found.pools[0].nodes == 0
    assert "3 start tasks failed" in found.because
    assert found.late[0].seconds == math.inf


def test_idle_nodes_whose_workers_fail_go_and_another_pool_does_the_work():
    idle = PoolState(name="t4", spot=nodes(4, idle=4), out_of_order="6 workers failed within 120 s")
    found = plan_of(fresh(20_000), idle, PoolState(name="a100"), offers=(T4, A100))
    assert found.pool("t4").nodes == 0
    assert found.pool("a100").nodes > 0
    assert "4 idle nodes of t4 get no worker and can go: 6 workers failed" in found.pool("t4").because


def test_nodes_of_a_pool_out_of_order_that_have_a_worker_or_get_one_stay_and_count():
    working = PoolState(
        name="t4", spot=nodes(4, idle=2, busy=2), running=2, waiting=1, out_of_order="3 nodes in a row are unusable"
    )
    found = plan_of(fresh(1000), working, PoolState(name="a100"), offers=(T4, A100))
    assert (found.pool("t4").spot, found.pool("a100").nodes) == (3, 0)


def test_what_no_pool_can_do_in_time_is_told_and_done_even_so():
    found = plan_of(work(10_000, due_in=12 * MINUTE), limits=Limits(max_nodes=5))
    assert found.pools[0].spot == 5
    assert found.late[0].images > 5000
    assert 0 < found.late[0].seconds < HOUR
    assert "at most 5 more nodes" in found.late[0].because


def test_one_late_image_does_not_buy_a_fleet():
    assert plan_of(work(1, due_in=-HOUR)).pools[0].spot == 1


def test_late_work_is_not_ordered_again_at_each_look():
    state = PoolState(name="t4", steady=False, spot=nodes(2, starting=2), ordered_at=NOW - 15)
    assert plan_of(work(500, due_in=-HOUR), state).pools[0].spot == 2


def test_the_budget_stops_buying_and_says_what_is_late():
    found = plan_of(work(10_000), limits=Limits(budget_left=0.0))
    assert found.pools[0].nodes == 0
    assert "the budget has 0.00 left" in found.because
    assert found.late[0].images == 10_000


def test_what_is_left_of_the_budget_buys_fewer():
    some = plan_of(work(10_000), limits=Limits(budget_left=0.5)).pools[0].nodes
    assert 0 < some < 10


def test_what_the_nodes_at_hand_will_cost_is_set_aside_before_new_ones_are_bought():
    # Four nodes do 10,000 of 20,000 images in 42 min: 0.56 of the budget are spoken for.
    state = PoolState(name="t4", spot=nodes(4, busy=4), running=4)
    plenty = plan_of(work(20_000, due_in=42 * MINUTE), state, limits=Limits(budget_left=2.0)).pools[0]
    little = plan_of(work(20_000, due_in=42 * MINUTE), state, limits=Limits(budget_left=0.5)).pools[0]
    assert plenty.spot > 4
    assert (little.spot, little.dedicated) == (4, 0)
    assert "the budget has 0.00 left" in little.because


def test_one_kind_buys_nothing_with_the_money_that_the_nodes_of_another_will_cost():
    convert = KindDemand(kind="convert", depth=100_000, due=(Due(images=100_000, deadline=NOW + 4 * HOUR),))
    state = PoolState(name="d4", spot=nodes(2, busy=2), running=2)
    limits = Limits(budget_left=0.3)  # the d4 nodes need 0.35
    assert (
        plan_of((work(1000), convert), PoolState(name="t4"), state, offers=(T4, D4), limits=limits).pool("t4").nodes
        == 0
    )
    assert plan_of((work(1000),), PoolState(name="t4"), offers=(T4, D4), limits=limits).pool("t4").nodes == 1


def test_a_pin_goes_before_what_is_computed_until_it_ends():
    limits = Limits(pins=(Pin(pool="t4", nodes=3, until=NOW + HOUR),))
    assert plan_of(work(0), limits=limits).pools[0].spot == 3
    assert plan_of(work(0), limits=limits, now=NOW + HOUR).pools[0].spot == 0


def test_a_pin_keeps_to_the_quota():
    limits = Limits(pins=(Pin(pool="t4", nodes=9),), quotas=(Quota(vcpus=8, spot=True),))
    found = plan_of(work(0), limits=limits).pools[0]
    assert found.spot == 2
    assert "quota of 8 vCores" in found.because


@pytest.mark.parametrize("paused", ["t4", "*"])
def test_a_paused_pool_stays_as_it_is(paused):
    state = PoolState(name="t4", spot=nodes(2, busy=2), running=2)
    found = plan_of(work(10_000), state, limits=Limits(paused=(paused,))).pools[0]
    assert (found.hold, found.spot) == (True, 2)


def test_all_go_when_nothing_is_left():
    state = PoolState(name="t4", spot=nodes(3, idle=1, busy=2), running=2)
    found = plan_of(work(0), state).pools[0]
    assert (found.nodes, found.workers) == (0, 0)


def test_an_idle_node_is_held_for_a_window_that_opens_before_a_boot_would_end():
    state = PoolState(name="t4", spot=nodes(1, idle=1), idle_since=NOW - 60)
    soon = work(0, windows=(Window(opens_at=NOW + 240, images=100, deadline=NOW + HOUR),))
    later = work(0, windows=(Window(opens_at=NOW + 1200, images=100, deadline=NOW + HOUR),))
    assert plan_of(soon, state).pools[0].nodes == 1
    assert plan_of(later, state).pools[0].nodes == 0


def test_nodes_for_a_window_are_held_until_its_images_are_seen_or_some_minutes_have_passed():
    state = PoolState(name="t4", spot=nodes(3, idle=3), idle_since=NOW - 60)

    def kept(opened, **more):
        windows = (Window(opens_at=NOW - opened, images=2500, deadline=NOW + HOUR),)
        return plan_of(work(0, windows=windows, **more), state).pools[0].nodes

    assert kept(0.0, quiet=math.inf) == 3
    assert kept(299.0, quiet=math.inf) == 3
    assert kept(300.0, quiet=math.inf) == 0
    assert kept(120.0, quiet=100.0) == 0, "they came and are done"


def test_an_idle_node_is_held_up_to_its_break_even_where_deadlines_leave_no_time_to_boot():
    limits, more = Limits(deadline=5 * MINUTE), {"gap": 200.0, "quiet": 20.0}
    held = PoolState(name="t4", spot=nodes(1, idle=1), idle_since=NOW - 100)
    over = PoolState(name="t4", spot=nodes(1, idle=1), idle_since=NOW - 301)
    assert plan_of(work(0, **more), held, limits=limits).pools[0].nodes == 1
    assert plan_of(work(0, **more), over, limits=limits).pools[0].nodes == 0


def test_a_window_is_warmed_for_when_that_saves_a_node():
    ahead = (Window(opens_at=NOW + 290, images=2500, deadline=NOW + 290 + 30 * MINUTE),)
    found = plan_of(work(0, windows=ahead)).pools[0]
    assert found.spot == 2
    assert "3 if cold" in found.because
    assert found.workers == 0


def test_a_window_is_not_warmed_for_too_early_and_says_when():
    ahead = (Window(opens_at=NOW + HOUR, images=3000, deadline=NOW + 90 * MINUTE),)
    found = plan_of(work(0, windows=ahead))
    assert found.pools[0].nodes == 0
    assert NOW < found.wait_until < NOW + HOUR


def test_a_window_with_time_enough_gets_a_cold_start():
    ahead = (Window(opens_at=NOW + 290, images=100, deadline=NOW + 3 * HOUR),)
    assert plan_of(work(0, windows=ahead)).pools[0].nodes == 0


def test_one_node_waits_for_more_work_to_share_its_boot():
    trickle = work(10, due_in=6 * HOUR, gap=180.0, quiet=30.0)
    found = plan_of(trickle)
    assert found.pools[0].nodes == 0
    assert NOW + 5 * HOUR < found.wait_until < NOW + 6 * HOUR
    assert plan_of(trickle, now=found.wait_until).pools[0].nodes == 1


def test_nothing_is_waited_for_where_nothing_is_expected():
    assert plan_of(work(10, due_in=6 * HOUR)).pools[0].nodes == 1


def test_a_delivery_under_way_is_let_end_first():
    growing = {"quiet": 0.0, "delivery_age": 30.0}
    assert plan_of(work(1000, **growing)).pools[0].nodes == 0
    assert plan_of(work(1000, quiet=0.0, delivery_age=91.0)).pools[0].nodes == 1


def test_a_lower_price_is_waited_for_if_the_deadline_allows_it():
    night = (PriceChange(pool="t4", at=NOW + HOUR, spot_per_hour=0.1),)
    assert plan_of(work(4000, due_in=6 * HOUR), changes=night).pools[0].nodes == 0
    assert plan_of(work(4000, due_in=65 * MINUTE), changes=night).pools[0].nodes > 0


def test_spot_that_vanishes_is_not_bought_in_a_storm():
    state = PoolState(name="t4", spot=nodes(3, preempted=3), evicted=3, evicted_at=NOW - 30)
    due = (Due(images=4000, deadline=NOW + 18 * MINUTE, since=NOW - 5 * MINUTE, total=4000),)
    found = plan_of(KindDemand(kind="detect", depth=4000, due=due), state).pools[0]
    assert found.dedicated > 0
    assert found.spot == 3  # Batch may bring them back


def test_in_a_storm_work_ahead_of_uniform_progress_waits_for_spot():
    state = PoolState(name="t4", spot=nodes(3, preempted=3), evicted=3, evicted_at=NOW - 30)
    due = (Due(images=4000, deadline=NOW + 5 * HOUR, since=NOW - HOUR, total=10_000),)
    found = plan_of(KindDemand(kind="detect", depth=4000, due=due), state).pools[0]
    assert found.dedicated == 0
    assert "Spot is lost" in found.because


def test_dedicated_nodes_go_once_spot_does_the_rest():
    state = PoolState(name="t4", spot=nodes(3, busy=3), dedicated=nodes(2, busy=2), running=5)
    found = plan_of(work(1000, due_in=HOUR), state).pools[0]
    assert (found.spot, found.dedicated) == (3, 0)


def test_much_cheaper_nodes_take_over_a_long_work():
    states = (PoolState(name="t4", dedicated=nodes(2, busy=2), running=2), PoolState(name="a100"))
    found = plan_of(work(20_000, due_in=6 * HOUR), *states, offers=(T4, A100))
    assert found.pool("t4").spot > 0
    assert found.pool("t4").dedicated == 2  # until the others are ready


def test_poison_does_not_buy_nodes_for_ever():
    state = PoolState(name="t4", spot=nodes(1, busy=1), running=1)
    assert plan_of(work(3, fruitless=3599.0), state).pools[0].nodes == 1
    found = plan_of(work(3, fruitless=3600.0), state).pools[0]
    assert found.nodes == 0
    assert "poison" in found.because


def test_a_disabled_subscription_buys_nothing():
    found = plan_of(work(1000, receiving=False)).pools[0]
    assert found.nodes == 0
    assert "disabled" in found.because


def test_surplus_nodes_go_when_long_jobs_run_out():
    state = PoolState(name="t4", spot=nodes(20, busy=3, idle=17), running=3)
    slow = msgspec.structs.replace(T4, images_per_second=1 / 600)
    assert plan_of(work(3, due_in=2 * HOUR), state, offers=(slow,)).pools[0].spot == 3


def test_surplus_nodes_do_not_idle_for_ever_beside_one_stubborn_image():
    idle = {"spot": nodes(9, busy=1, idle=8), "running": 1}
    assert plan_of(work(1), PoolState(name="t4", idle_since=NOW - 400, **idle)).pools[0].spot == 9
    assert plan_of(work(1), PoolState(name="t4", idle_since=NOW - 450, **idle)).pools[0].spot == 1


def test_a_preempted_node_that_does_not_come_back_is_not_counted_on():
    lost = {"spot": nodes(2, preempted=1, busy=1), "running": 1, "evicted": 1}
    just = PoolState(name="t4", evicted_at=NOW - 15, **lost)
    long_ago = PoolState(name="t4", evicted_at=NOW - 300, **lost)
    assert plan_of(work(2500), just).pools[0].dedicated == 0
    assert plan_of(work(2500), long_ago).pools[0].dedicated > 0


def test_max_nodes_holds_for_all_pools_together():
    convert = KindDemand(kind="convert", depth=100_000, due=(Due(images=100_000, deadline=NOW + 30 * MINUTE),))
    found = plan_of((work(100_000), convert), offers=(T4, D4), limits=Limits(max_nodes=12))
    assert sum(pool.nodes for pool in found.pools) == 12


def test_a_pool_whose_kind_is_unknown_is_held():
    found = plan_of((), PoolState(name="t4", spot=nodes(2, busy=2), running=2)).pools[0]
    assert (found.hold, found.spot) == (True, 2)
