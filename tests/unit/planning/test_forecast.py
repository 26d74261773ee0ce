"""What the arrivals so far tell of those to come."""

import pytest

from fusebus.planning import Arrivals


def after(*arrivals, until=None):
    """`arrivals`: (second, images), looked at every 15 s."""
    found, due = Arrivals(), dict(arrivals)
    for second in range(0, (until or max(due)) + 1, 15):
        found = found.observe(float(second), due.get(second, 0))
    return found


def test_a_steady_rate_is_measured_even_by_a_young_watch():
    found = after(*((second, 30) for second in range(0, 901, 15)))
    assert found.per_second(900.0) == pytest.approx(2.0, rel=0.05)


def test_nothing_is_said_before_there_are_two_gaps():
    assert after((0, 100), (1500, 100)).gap(1500.0) is None


def test_the_usual_gap_is_the_median_between_deliveries():
    found = after((0, 5), (15, 5), (600, 5), (1200, 5), (9000, 5))
    assert found.gap(9000.0) == 600.0
    assert found.quiet(9030.0) == 30.0


def test_a_flow_has_no_gaps():
    found = after(*((second, 3) for second in range(0, 901, 15)))
    assert found.gap(900.0) == 60.0
    assert found.delivery_age(900.0) == 900.0
