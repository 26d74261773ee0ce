"""Remembers which messages were completed, to notice one that comes back."""

from __future__ import annotations

from array import array


class Confirmed:
    """Completed messages of one subscription, in a memory that never grows: 8 bytes a place.

    Only a hash is kept, at the remainder of the sequence number. A subscription's numbers have no gaps, so who receives
    alone remembers the last ones, as many as there are places. One of several receivers remembers fewer, from further
    back; so does a receiver of partitioned entities, which number each partition by itself.
    """

    def __init__(self, places: int) -> None:
        """With no places it remembers nothing."""
        self._hashes = array("q", [0]) * places

    def add(self, sequence: int, message_id: str) -> None:
        """This message's completion was confirmed."""
        if self._hashes:
            self._hashes[sequence % len(self._hashes)] = hash((sequence, message_id))

    def has(self, sequence: int, message_id: str) -> bool:
        """Whether it is remembered. Both count: a subscription that is made again numbers from 1."""
        return bool(self._hashes) and self._hashes[sequence % len(self._hashes)] == hash((sequence, message_id))
