"""How the dispatcher measures: seconds per image from the queue's decline, node-seconds from what it sees."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from fusebus.dispatcher.meter import Meter
from fusebus.dispatcher.rate import Rate

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("name", "seen", "seconds_per_image"),
    [
        ("nothing seen: the assumption stays", [], 9.0),
        ("two workers, 10 images in 10 s: 2 s each", [(0, 20, 2), (10, 10, 2)], 2.0),
        ("too few images say nothing yet", [(0, 20, 1), (10, 16, 1)], 9.0),
        ("short looks add up to one sample", [(0, 20, 1), (3, 18, 1), (6, 16, 1), (9, 14, 1)], 1.5),
        ("no worker, no rate", [(0, 20, 0), (10, 10, 0)], 9.0),
        ("another number of workers begins a new sample", [(0, 20, 1), (10, 12, 2), (20, 2, 2)], 2.0),
        ("arrivals begin a new sample", [(0, 20, 1), (5, 40, 1), (15, 30, 1)], 1.0),
        ("an unknown depth is skipped", [(0, 20, 1), (5, None, 1), (10, 10, 1)], 1.0),
        ("idle time after the last image is not work", [(0, 20, 1), (2, 17, 1), (4, 0, 1), (100, 0, 1)], 0.2),
        ("later samples count for less", [(0, 100, 1), (10, 90, 1), (30, 80, 1)], 1.3),
    ],
)
def test_the_rate_is_seen_in_the_queue(
    name: str, seen: list[tuple[float, int | None, int]], seconds_per_image: float
) -> None:
    rate = Rate(seconds_per_image=9.0)
    for now, depth, workers in seen:
        rate = rate.observe(now, depth, workers)
    assert rate.seconds_per_image == pytest.approx(seconds_per_image), name


def test_a_sample_is_nodes_times_time_times_price() -> None:
    meter = Meter("gpu", price_per_hour=3600, currency="EUR", sample_seconds=60)
    assert meter.observe(at(0), 2) is None
    assert meter.observe(at(30), 4) is None
    sample = meter.observe(at(60), 4)
    assert sample is not None
    assert (sample.started_at, sample.ended_at) == (at(0), at(60))
    assert sample.node_seconds == 2 * 30 + 4 * 30
    assert sample.cost == pytest.approx(180)
    assert sample.estimated


def test_samples_follow_each_other_without_gap_or_overlap() -> None:
    meter = Meter("gpu", 1, "EUR", sample_seconds=10)
    samples = [sample for second in range(100) if (sample := meter.observe(at(second), 3)) is not None]
    samples.append(meter.close(at(99)))  # type: ignore[arg-type]
    assert sum(sample.node_seconds for sample in samples) == 3 * 99
    assert all(one.ended_at == two.started_at for one, two in itertools.pairwise(samples))


def test_nodes_that_cannot_be_seen_go_on_costing() -> None:
    meter = Meter("gpu", 1, "EUR", sample_seconds=20)
    meter.observe(at(0), 2)
    meter.observe(at(10), None)
    sample = meter.observe(at(20), 0)
    assert sample is not None and sample.node_seconds == 40


def test_the_last_node_gone_ends_the_sample_and_nothing_costs_nothing() -> None:
    meter = Meter("gpu", 1, "EUR", sample_seconds=60)
    meter.observe(at(0), 1)
    sample = meter.observe(at(5), 0)
    assert sample is not None and sample.node_seconds == 5
    assert [meter.observe(at(second), 0) for second in range(10, 500, 10)] == [None] * 49
    assert meter.close(at(500)) is None


def test_a_clock_that_is_set_back_takes_no_cost_back() -> None:
    meter = Meter("gpu", 3600.0, "EUR", 1000.0)
    assert [meter.observe(at(seconds), 1) for seconds in (0, 100, -3600)] == [None] * 3
    sample = meter.close(at(-3600))
    assert sample is not None
    assert sample.node_seconds == 100
