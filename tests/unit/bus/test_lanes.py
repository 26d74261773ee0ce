"""How lanes share their slots, by table."""

from __future__ import annotations

import pytest

from fusebus.bus.lanes import Share, apart, by_rank


@pytest.mark.parametrize(
    ("share", "in_hand", "rooms"),
    [
        (by_rank, (0, 0, 0), [8, 8, 8]),
        (by_rank, (3, 0, 0), [8, 5, 5]),
        (by_rank, (2, 6, 0), [8, 6, 0]),
        (by_rank, (8, 8, 8), [8, 0, 0]),
        (apart, (8, 3, 0), [8, 8, 8]),
    ],
)
def test_each_lane_has_its_room(share: Share, in_hand: tuple[int, ...], rooms: list[int]) -> None:
    assert [share(8, in_hand, lane) for lane in range(3)] == rooms
