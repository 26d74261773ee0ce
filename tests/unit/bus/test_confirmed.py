"""Which completed messages are remembered, and that the memory doesn't grow."""

from __future__ import annotations

import tracemalloc

from fusebus.bus.confirmed import Confirmed


def test_the_last_messages_are_remembered_and_no_others() -> None:
    confirmed = Confirmed(100)
    for sequence in range(1, 1001):
        confirmed.add(sequence, f"image-{sequence}")
    assert [n for n in range(1, 1101) if confirmed.has(n, f"image-{n}")] == list(range(901, 1001))


def test_one_of_several_receivers_remembers_from_further_back() -> None:
    confirmed = Confirmed(100)
    for sequence in range(1, 1000, 3):  # every third is its own
        confirmed.add(sequence, f"image-{sequence}")
    assert [n for n in range(1, 1101) if confirmed.has(n, f"image-{n}")] == list(range(700, 1000, 3))


def test_of_a_subscription_made_again_other_messages_have_the_same_numbers() -> None:
    confirmed = Confirmed(100)
    confirmed.add(7, "image-a")
    assert confirmed.has(7, "image-a")
    assert not confirmed.has(7, "image-b")
    assert not confirmed.has(107, "image-a"), "its place, and not its number"


def test_numbers_of_a_partitioned_subscription_have_their_place_too() -> None:
    confirmed, sequence = Confirmed(100), (15 << 48) + 12
    confirmed.add(sequence, "image-a")
    assert confirmed.has(sequence, "image-a")
    assert not confirmed.has(12, "image-a")


def test_without_places_nothing_is_remembered() -> None:
    confirmed = Confirmed(0)
    confirmed.add(1, "image-a")
    assert not confirmed.has(1, "image-a")


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
    assert grown < 10_000, "a byte a message"
