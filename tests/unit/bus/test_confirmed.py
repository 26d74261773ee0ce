"""Which completed messages are remembered, and that the memory doesn't grow."""

from __future__ import annotations

import tracemalloc

from fusebus.bus.confirmed import Confirmed


def test_the_last_messages_are_remembered_and_no_others() -> None:
    confirmed = Confirmed(100)
    for sequence in range(1, 1001):
        confirmed.add(sequence, f"image-{sequence}")
    assert [n for n in range(1, 1101) if (n, f"image-{n}") in confirmed] == list(range(901, 1001))


def test_of_a_subscription_made_again_other_messages_have_the_same_numbers() -> None:
    confirmed = Confirmed(100)
    confirmed.add(7, "image-a")
    assert (7, "image-a") in confirmed
    assert (7, "image-b") not in confirmed
    assert (107, "image-a") not in confirmed, "its place, and not its number"


def test_numbers_of_a_partitioned_subscription_have_their_place_too() -> None:
    confirmed, sequence = Confirmed(100), (15 << 48) + 12
    confirmed.add(sequence, "image-a")
    assert (sequence, "image-a") in confirmed
    assert (12, "image-a") not in confirmed


def test_without_places_nothing_is_remembered() -> None:
    confirmed = Confirmed(0)
    confirmed.add(1, "image-a")
    assert (1, "image-a") not in confirmed


def test_ten_thousand_messages_take_no_more_memory_than_one() -> None:
    confirmed = Confirmed(10_000)
    confirmed.add(1, "image-1")
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for sequence in range(2, 10_002):
            confirmed.add(sequence, f"image-{sequence}")
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 1000
