"""What the scale benchmark makes of diaries, against small ones worked out by hand."""

from collections import Counter
from typing import Any

import pytest
from scale_bench import HEALTHY, KILLED, QUEUE, SLOW, STRIDE, Measured, judged, kept, sizes

Diary = list[dict[str, Any]]


class Kept:
    """A worker that is gone; its diary stays."""

    def __init__(self, diary: Diary) -> None:
        self._diary = diary

    def diary(self) -> Diary:
        return self._diary


def judge(
    diaries: list[Diary], scenario: str = HEALTHY, way: str = QUEUE, killed_after: float | None = None, **more: Any
) -> Measured:
    """A run that began at 100."""
    factors = more.get("factors", [1.0] * len(diaries))
    workers: Any = [Kept(diary) for diary in diaries]
    finals = Counter(more.get("finals", {}))
    return judged(way, scenario, factors, workers, more["count"], 100.0, killed_after, finals, more["stored"], 4.0)


def image(name: str, begun: float, took: float) -> Diary:
    return [{"image": name, "begun": begun}, {"worked": took}, {"image": name, "done": begun + took}]


def test_ideal_is_the_work_over_all_speeds() -> None:
    # 4 s by the quick one, 8 s by the slow one, that is 2 s of work: 6 in all, over 1.25 workers.
    found = judge([image("a", 100, 4), image("b", 100, 8)], SLOW, factors=[1.0, 4.0], count=2, stored=2)
    assert found.seconds == 8
    assert found.ideal_seconds == pytest.approx(6 / 1.25)
    assert (found.lost, found.done_twice, found.each) == (0, 0, [1, 1])
    assert found.cores == 0.5


def test_a_killed_worker_counts_until_it_is_killed() -> None:
    # 6 s of work; 2 s were the killed one's, so that 4 remain for the other.
    killed = [*image("a", 100, 1), {"image": "b", "begun": 101.0}]
    found = judge([killed, image("c", 100, 3) + image("b", 103, 2)], KILLED, killed_after=2.0, count=3, stored=3)
    assert found.ideal_seconds == pytest.approx(4)
    assert (found.lost, found.begun_again, found.done_twice) == (0, 1, 0)


def test_a_share_that_nobody_took_over_is_lost() -> None:
    found = judge([image("a", 100, 1), image("b", 100, 1)], KILLED, STRIDE, killed_after=1.0, count=4, stored=2)
    assert found.lost == 2


def test_outputs_and_finals_that_come_twice_are_counted() -> None:
    found = judge([image("a", 100, 1), image("a", 101, 1)], count=1, stored=1, finals={"x": 2})
    assert (found.done_twice, found.finals_twice) == (1, 1)
    assert not kept([found])


def test_pictures_are_uneven_and_the_same_in_each_run() -> None:
    megapixels = [width * height / 1e6 for width, height in sizes(200)]
    assert sizes(200) == sizes(200)
    assert min(megapixels) == pytest.approx(0.1, rel=0.05)
    assert max(megapixels) > 8
