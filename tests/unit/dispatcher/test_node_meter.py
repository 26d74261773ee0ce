"""The meter counts every node in every billed state, from its allocation until it is gone, and never twice."""

import itertools
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusebus.costs import Rates
from fusebus.dispatcher.meter import PREEMPTED_BILLED_SECONDS, NodeMeter
from fusebus.ledger import CostSample

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
RATES = Rates(dedicated=3600.0, spot=360.0, currency="GBP", detail="a test's")
BILLED = (
    "creating",
    "starting",
    "waitingforstarttask",
    "rebooting",
    "reimaging",
    "idle",
    "running",
    "unusable",
    "starttaskfailed",
    "leavingpool",
    "offline",
    "unknown",
)


class Seen(msgspec.Struct, frozen=True):
    id: str = "a"
    state: str = "running"
    dedicated: bool = True
    allocated_at: datetime | None = None
    since: datetime | None = None


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def metered(*looks: tuple[float, list[Seen] | None], until: float, sample_seconds: float = 1e9) -> list[CostSample]:
    meter = NodeMeter("gpu", "Standard_NC4as_T4_v3", "detect", sample_seconds)
    samples = [sample for seconds, nodes in looks for sample in meter.observe(nodes, RATES, at(seconds))]
    return samples + meter.close(RATES, at(until))


def seconds_of(samples: list[CostSample]) -> float:
    return sum(sample.node_seconds for sample in samples)


@pytest.mark.parametrize("state", BILLED)
def test_a_node_costs_in_every_state_in_which_it_has_a_machine(state: str) -> None:
    (sample,) = metered((0, [Seen(state=state)]), until=100)
    assert (sample.node_seconds, sample.cost) == (100, 100)
    assert sum(sample.seconds_by_state.values()) == 100
    assert (sample.vm_size, sample.serves, sample.currency, sample.detail) == (
        "Standard_NC4as_T4_v3",
        "detect",
        "GBP",
        "a test's",
    )


def test_states_are_kept_apart_in_words_of_ours() -> None:
    nodes = [Seen(id=state, state=state) for state in ("creating", "idle", "running", "unusable", "leavingPool", "odd")]
    (sample,) = metered((0, nodes), until=10)
    assert sample.seconds_by_state == dict.fromkeys(
        ("starting", "idle", "running", "unusable", "leaving", "other"), 10.0
    )


def test_spot_and_dedicated_nodes_cost_their_own_price() -> None:
    (sample,) = metered((0, [Seen(), Seen(id="b", dedicated=False)]), until=10)
    assert (sample.node_seconds, sample.spot_node_seconds, sample.cost) == (20, 10, 11)


def test_a_preempted_node_costs_until_it_is_gone() -> None:
    gone = metered((0, [Seen()]), (10, [Seen(state="preempted")]), (40, []), until=100)
    assert seconds_of(gone) == 40


def test_a_preempted_node_that_stays_listed_stops_to_cost_after_a_while() -> None:
    looks = [(0.0, [Seen()]), *((float(second), [Seen(state="preempted")]) for second in range(10, 2000, 10))]
    assert seconds_of(metered(*looks, until=2000)) == 10 + PREEMPTED_BILLED_SECONDS


def test_a_preempted_node_that_comes_back_costs_again() -> None:
    gone, back = [Seen(state="preempted", since=at(-9999))], [Seen(state="starting", allocated_at=at(120))]
    assert seconds_of(metered((0, gone), (150, back), until=200)) == 80


def test_deallocated_nodes_cost_nothing() -> None:
    assert metered((0, [Seen(state="deallocated")]), until=100) == []


def test_a_new_node_costs_from_its_allocation_not_from_the_look() -> None:
    assert seconds_of(metered((0, []), (15, [Seen(state="starting", allocated_at=at(4))]), until=20)) == 16


def test_nodes_that_could_not_be_seen_go_on_costing() -> None:
    assert seconds_of(metered((0, [Seen()]), (15, None), (30, []), until=60)) == 30


def test_what_was_allocated_while_no_dispatcher_ran_is_counted_by_the_next_one() -> None:
    meter = NodeMeter("gpu", "", counted_until=at(100), sample_seconds=60)
    nodes = [Seen(id="old", allocated_at=at(0)), Seen(id="new", allocated_at=at(400))]
    (sample,) = meter.observe(nodes, RATES, at(500))
    assert (sample.started_at, sample.ended_at, sample.node_seconds) == (at(100), at(500), 500)


def test_a_pool_that_can_not_be_read_at_first_is_counted_from_where_the_last_sample_ended_all_the_same() -> None:
    meter = NodeMeter("gpu", "", counted_until=at(100), sample_seconds=60)
    assert meter.observe(None, RATES, at(300)) == []
    assert seconds_of(meter.observe([Seen(allocated_at=at(0))], RATES, at(500))) == 400


def test_no_sample_crosses_midnight() -> None:
    twelve_hours = 12 * 3600
    first, second = metered((0, [Seen()]), (twelve_hours + 60, [Seen()]), until=twelve_hours + 60)
    assert first.ended_at == second.started_at == at(twelve_hours)
    assert (first.node_seconds, second.node_seconds) == (twelve_hours, 60)


def test_a_clock_that_is_set_back_takes_no_cost_back() -> None:
    assert seconds_of(metered((0, [Seen()]), (100, [Seen()]), (-3600, [Seen()]), until=-3600)) == 100


def test_what_is_finished_by_closing_late_is_not_thrown_away() -> None:
    assert seconds_of(metered((0, [Seen()]), until=90, sample_seconds=60)) == 90


def test_the_price_of_the_moment_counts() -> None:
    meter = NodeMeter("gpu", "", sample_seconds=1e9)
    meter.observe([Seen()], RATES, at(0))
    meter.observe([Seen()], RATES, at(10))
    dearer = msgspec.structs.replace(RATES, dedicated=7200.0, detail="dearer")
    (sample,) = meter.close(dearer, at(20))
    assert (sample.cost, sample.detail) == (30, "dearer")


def test_an_empty_pool_says_nothing_and_costs_nothing() -> None:
    assert metered(*((second, []) for second in range(0, 1000, 10)), until=1000, sample_seconds=60) == []


@given(
    looks=st.lists(st.tuples(st.floats(0.1, 5000), st.sets(st.sampled_from("abcdef"))), min_size=1, max_size=40),
    sample_seconds=st.sampled_from([1.0, 60.0, 1e9]),
    until_closed=st.floats(0, 5000),
)
def test_samples_follow_each_other_without_gap_or_overlap_and_add_up(
    looks: list[tuple[float, set[str]]], sample_seconds: float, until_closed: float
) -> None:
    meter, now, expected, before = NodeMeter("gpu", "", sample_seconds=sample_seconds), 0.0, 0.0, 0
    samples: list[CostSample] = []
    for pause, ids in looks:
        now += pause
        expected += before * pause
        samples += meter.observe([Seen(id=one) for one in ids], RATES, at(now))
        before = len(ids)
    expected += before * until_closed
    samples += meter.close(RATES, at(now + until_closed))
    assert seconds_of(samples) == pytest.approx(expected, abs=0.01)
    assert all(one.ended_at <= two.started_at for one, two in itertools.pairwise(samples))
    assert all(one.started_at < one.ended_at for one in samples)
    assert len({one.started_at for one in samples}) == len(samples)
