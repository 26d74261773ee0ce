"""Remembers which messages were completed, to notice one that comes back."""

from __future__ import annotations

from array import array

PLACE = array("q").itemsize  # bytes


class Confirmed:
    """Completed messages of one subscription, in a memory that never grows: 8 bytes a place.

    A message's place is the remainder of its sequence number. The broker numbers the messages of a subscription one
    after the other, so its only receiver remembers just the last ones, as many as there are places; one of many
    receivers goes further back, and forgets a message early where a later one falls on its place.
    """

    def __init__(self, places: int) -> None:
        """With no places it remembers nothing."""
        self._hashes = array("q", bytes(PLACE * places))

    def add(self, sequence: int, message_id: str) -> None:
        """This message's completion was confirmed."""
        if self._hashes:
            self._hashes[sequence % len(self._hashes)] = hash((sequence, message_id))

    def __contains__(self, message: tuple[int, str]) -> bool:
        """Whether the message with this sequence number and id is remembered; both, as a subscription that was deleted
        and made again counts from 1 once more."""
        return bool(self._hashes) and self._hashes[message[0] % len(self._hashes)] == hash(message)
