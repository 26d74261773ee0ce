"""How lanes share their slots, by table."""

from __future__ import annotations

import pytest

from fusebus.bus.lanes import Share, by_rank, evenly, last_yields


@pytest.mark.parametrize(
    ("share", "in_hand", "rooms"),
    [
        (by_rank, [0, 0, 0], [8, 8, 8]),
        (by_rank, [3, 0, 0], [8, 5, 5]),
        (by_rank, [2, 6, 0], [8, 6, 0]),
        (by_rank, [8, 8, 8], [8, 0, 0]),
        (evenly, [0, 0, 0], [8, 8, 8]),
        (evenly, [8, 0, 0], [8, 4, 4]),
        (evenly, [8, 1, 0], [4, 4, 2]),
        (evenly, [8, 8, 8], [2, 2, 2]),
        (last_yields, [0, 0, 8], [8, 8, 8]),
        (last_yields, [0, 1, 8], [4, 8, 1]),
        (last_yields, [8, 8, 8], [4, 4, 1]),
    ],
)
def test_each_lane_has_its_room(share: Share, in_hand: list[int], rooms: list[int]) -> None:
    assert [share(8, in_hand, lane) for lane in range(3)] == rooms


@pytest.mark.parametrize("share", [evenly, last_yields])
def test_no_lane_of_equals_is_ever_without_room(share: Share) -> None:
    assert min(share(2, [5, 5, 5, 5], lane) for lane in range(4)) == 1
