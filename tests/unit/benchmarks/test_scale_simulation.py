"""The scale simulation against cases worked out by hand, and what must hold in every case."""

import math
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scale_figures import figures, values
from scale_fluid import Stage, fill, run
from scale_simulation import (
    CREDITS,
    NODES,
    NOTIFIER,
    PARTITIONS,
    ladder,
    node_rate,
    renewals,
    shared,
    simulate,
    stages,
    tiers,
)

WIDE = {"suppliers": 1e6, "ingest_replicas": 1e6, "notifier_replicas": 1e6, "accounts": 1e6}


# Worked out by hand.


def test_one_stage_takes_images_over_rate() -> None:
    out = run(100, [Stage("work", {}, most=10)], {}, [])
    assert out.seconds == pytest.approx(10)
    assert out.bound == {"itself": pytest.approx(10)}


def test_a_pool_works_with_the_nodes_that_are_ready() -> None:
    # 10 a second from second 5, 20 from second 10: 50 after 10 s, the other 50 in 2.5 s.
    out = run(100, [Stage("work", {}, most=10, pooled=True)], {}, [5.0, 10.0])
    assert out.seconds == pytest.approx(12.5)
    assert out.node_seconds == pytest.approx(7.5 + 2.5)


def test_two_stages_share_what_is_scarce_and_the_second_catches_up() -> None:
    # 30 credits/s, 1 and 2 an image: both go at 10/s.
    out = run(100, [Stage("send", {"c": 1}), Stage("receive", {"c": 2})], {"c": 30.0}, [])
    assert out.seconds == pytest.approx(10)
    assert out.used["c"] == pytest.approx(1)


def test_a_late_consumer_finds_a_queue_and_has_all_credits_afterwards() -> None:
    # Sending alone: 30/s, all 100 sent after 3.33 s. The node comes at 5 s and receives at 15/s: 6.67 s.
    work = Stage("receive", {"c": 2}, most=math.inf, pooled=True)
    out = run(100, [Stage("send", {"c": 1}), work], {"c": 30.0}, [5.0])
    assert out.seconds == pytest.approx(5 + 100 / 15)
    assert out.peak["receive"] == pytest.approx(100)
    assert out.empty_at["send"] == pytest.approx(100 / 30)


def test_a_full_queue_holds_the_sender_back() -> None:
    # 20 fit; before the node comes 20 are sent, then as many as it takes: 80 more at 10/s, and the 20 that wait.
    work = Stage("work", {}, most=10, pooled=True, room=20)
    out = run(100, [Stage("send", {}, most=100), work], {}, [4.0])
    assert out.peak["work"] == pytest.approx(20)
    assert out.seconds == pytest.approx(4 + 100 / 10)
    assert out.empty_at["send"] == pytest.approx(4 + 80 / 10)


def test_who_needs_nothing_scarce_is_not_held_back() -> None:
    rates, why = fill(
        [Stage("a", {"c": 1}), Stage("b", {}, most=50)], [math.inf, 50], {"c": 10.0}, [False, False], [False, False]
    )
    assert rates == [10, 50]
    assert why == ["c", "itself"]


def test_a_pool_without_nodes_never_ends_and_says_so() -> None:
    with pytest.raises(ValueError, match="nothing moves"):
        run(10, [Stage("work", {}, most=1, pooled=True, why=NODES)], {}, [])


def test_standard_tier_gives_a_thousand_credits_and_an_image_costs_twenty_five() -> None:
    # Sent thrice (3), compared with 7, 8 and 1 filters (16), received thrice (3), settled thrice (3).
    cost = sum(one.uses.get(CREDITS, 0.0) for one in stages(values(), "detect"))
    assert cost == 25
    report = simulate("detect", WIDE | {"depth_reads_per_second": 0})
    assert report.saturates == CREDITS
    assert report.images_per_second == pytest.approx(1000 / 25, rel=0.01)


def test_locks_are_renewed_only_where_images_are_held_for_half_a_lock() -> None:
    assert renewals(values(), rate=20.0) == 0  # 32 in hand for 1.6 s
    assert renewals(values(), rate=0.5) == 2  # for 64 s of locks that are renewed at 30 s


def test_an_evicted_node_is_away_for_a_boot() -> None:
    still = values({"evictions_per_node_hour": 0})
    shaky = values({"evictions_per_node_hour": 1, "boot_first_seconds": 3600, "boot_last_seconds": 3600})
    assert node_rate(shaky, "detect") == pytest.approx(node_rate(still, "detect") / 2)


# In every case.

AMOUNT = st.floats(0.1, 50)
STAGES = st.lists(
    st.builds(
        lambda a, b, most, room, pooled: Stage("", {"a": a, "b": b}, most=most, room=room, pooled=pooled),
        st.sampled_from([0.0, 1.0, 3.0]),
        st.sampled_from([0.0, 0.5, 2.0]),
        AMOUNT,
        st.floats(1, 1000),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
).map(lambda made: [Stage(**{**vars(one), "name": str(number)}) for number, one in enumerate(made)])


@settings(deadline=None)  # a crowded machine is no fault
@given(STAGES, AMOUNT, AMOUNT, st.lists(st.floats(0, 30), min_size=1, max_size=4))
def test_work_is_conserved_and_no_limit_is_passed(
    made: list[Stage], first: float, second: float, ready: list[float]
) -> None:
    images, room = 500.0, {"a": first, "b": second}
    out = run(images, made, room, ready)
    for name, amount in room.items():
        spent = images * sum(stage.uses[name] for stage in made)  # each image costs each stage once, no more, no less
        assert out.used[name] * amount * out.seconds == pytest.approx(spent, rel=1e-6, abs=1e-3)
        assert out.used[name] <= 1 + 1e-9
    for stage in made:
        assert out.seconds >= images / (stage.most * (len(ready) if stage.pooled else 1)) * (1 - 1e-9)
    for stage in made[1:]:
        assert out.peak[stage.name] <= stage.room + 1e-3
    assert sum(out.bound.values()) == pytest.approx(out.seconds)


@settings(deadline=None)  # a crowded machine is no fault
@given(STAGES, AMOUNT, AMOUNT, st.lists(st.booleans(), min_size=8, max_size=8))
def test_somebody_always_meets_a_limit(made: list[Stage], first: float, second: float, states: list[bool]) -> None:
    room, count = {"a": first, "b": second}, len(made)
    most = [one.most for one in made]
    rates, why = fill(made, most, room, [False, *states[1:count]], [False, *states[5 : 4 + count]])
    assert all(why)
    for name, amount in room.items():
        assert sum(one.uses[name] * rate for one, rate in zip(made, rates, strict=True)) <= amount * (1 + 1e-9)
    assert all(rate <= limit * (1 + 1e-9) for rate, limit in zip(rates, most, strict=True))
    tight = any(
        math.isclose(sum(one.uses[name] * rate for one, rate in zip(made, rates, strict=True)), amount)
        for name, amount in room.items()
    )
    assert tight or any(math.isclose(rate, limit) for rate, limit in zip(rates, most, strict=True))


@pytest.mark.parametrize("job", ["detect", "convert"])
def test_no_run_is_quicker_than_its_scarcest_thing(job: str) -> None:
    for _, report in ladder(job, {}):
        filled = values(report.changed)
        room = shared(filled)
        for name, amount in room.items():
            cost = sum(one.uses.get(name, 0.0) for one in stages(filled, job))
            assert report.hours * 3600 >= filled["images"] * cost / amount * (1 - 1e-9), name
        assert report.hours * 3600 >= filled["images"] / (filled["nodes"] * node_rate(filled, job))


QUIET = {"share_of_model": 0.99, "detect_cpu_ms": 22.0, "convert_cpu_ms": 18.0}
"""Of a machine with nothing else to do: where the ladder ends depends on what a node can do, and the committed figures
may be of a slow hour."""


@pytest.mark.parametrize(("job", "end", "busy"), [("detect", NODES, 0.9), ("convert", PARTITIONS, 0.5)])
def test_each_change_of_the_ladder_helps_until_none_is_left(job: str, end: str, busy: float) -> None:
    """Conversion is so quick that a table's partition ends it before 100 nodes are busy."""
    steps = [report for _, report in ladder(job, QUIET)]
    assert all(after.hours <= before.hours * (1 + 1e-6) for before, after in pairwise(steps))
    assert steps[-1].saturates == end
    assert steps[-1].nodes_busy > busy


def test_a_single_supplier_is_held_by_its_own_turns() -> None:
    report = simulate("detect", WIDE | {"premium_units": 16, "suppliers": 1})
    assert report.saturates.startswith("ledger")
    assert report.images_per_second == pytest.approx(50, rel=0.01)  # two table requests of 10 ms each


def test_the_notifier_is_named_where_it_is_alone() -> None:
    assert simulate("detect", WIDE | {"premium_units": 16, "notifier_replicas": 1}).saturates == NOTIFIER


def test_ten_million_images_take_seconds_and_every_figure_says_where_it_is_from() -> None:
    began = time.process_time()
    tiers("detect", {})
    ladder("convert", {})
    assert time.process_time() - began < 30
    assert all(figure.unit and figure.source for figure in figures().values())
    unknown: dict[str, Any] = {"node": 1}
    with pytest.raises(KeyError):
        simulate("detect", unknown)
