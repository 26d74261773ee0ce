"""How the dispatcher measures seconds per image: from the queue's decline."""

import pytest

from fusebus.dispatcher.rate import Rate


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
