"""How lanes share their slots, by table."""

from __future__ import annotations

import itertools

import pytest

from fusebus.bus.lanes import Load, Share, by_rank, evenly, newcomers_first

LONG = 60.0  # seconds


def loads(*lanes: int | tuple[int, float]) -> list[Load]:
    return [Load(*lane) if isinstance(lane, tuple) else Load(lane) for lane in lanes]


@pytest.mark.parametrize(
    ("share", "lanes", "rooms"),
    [
        (by_rank, loads(0, 0, 0), [8, 8, 8]),
        (by_rank, loads(3, 0, 0), [8, 5, 5]),
        (by_rank, loads(2, 6, 0), [8, 6, 0]),
        (by_rank, loads(8, 8, 8), [8, 0, 0]),
        (evenly, loads(0, 0, 0), [8, 8, 8]),
        (evenly, loads(8, 0, 0), [8, 4, 4]),
        (evenly, loads(8, 1, 0), [4, 4, 2]),
        (newcomers_first, loads(0, 0, 0), [8, 8, 8]),
        (newcomers_first, loads((8, LONG), 0, 0), [8, 6, 4]),
        (newcomers_first, loads((8, LONG), 1, 0), [2, 6, 1]),
        (newcomers_first, loads((8, LONG), 1, 1), [1, 6, 1]),
        (newcomers_first, loads((8, LONG), (8, LONG), 0), [4, 4, 2]),
        (newcomers_first, loads(4, 4, 0), [4, 4, 2]),
        (newcomers_first, loads(0, 0, 8), [6, 6, 8]),
    ],
)
def test_each_lane_has_its_room(share: Share, lanes: list[Load], rooms: list[int]) -> None:
    assert [share(8, lanes, lane) for lane in range(3)] == rooms


def test_no_lane_of_equals_is_ever_without_room() -> None:
    for held in itertools.product([(0, 0.0), (1, 0.0), (5, LONG)], repeat=4):
        lanes = loads(*held)
        for share, slots, lane in itertools.product((evenly, newcomers_first), (1, 2, 8), range(4)):
            assert 1 <= share(slots, lanes, lane) <= slots
