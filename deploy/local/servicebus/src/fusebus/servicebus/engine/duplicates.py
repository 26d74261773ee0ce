"""Which message ids an entity saw lately."""

from collections import deque
from typing import TYPE_CHECKING

from fusebus.servicebus.engine.journal import DuplicateImage

if TYPE_CHECKING:
    from fusebus.servicebus.engine.core import Core


class DuplicateWindow:
    """Remembers each key for `seconds` after it was first seen; a repeat doesn't prolong that."""

    def __init__(self, core: "Core", entity_id: int, seconds: float) -> None:
        self.seconds = seconds
        self._core = core
        self._entity_id = entity_id
        self._numbers: dict[str, int] = {}
        self._seen: deque[tuple[float, str]] = deque()

    def number_of(self, key: str, now: float) -> int | None:
        """The sequence number under which it was seen, None if it is new."""
        if self._seen and self._seen[0][0] + self.seconds <= now:
            self._forget(now)
        return self._numbers.get(key)

    def remember(self, key: str, number: int, now: float) -> None:
        self.restore(key, number, now)
        if self._core.journal is not None:
            self._core.journal.duplicate_seen(DuplicateImage(self._entity_id, key, number, now))

    def restore(self, key: str, number: int, seen_at: float) -> None:
        """As `remember`, for what the journal knows."""
        self._numbers[key] = number
        self._seen.append((seen_at, key))

    def _forget(self, now: float) -> None:
        until = now
        while self._seen and self._seen[0][0] + self.seconds <= now:
            until, key = self._seen.popleft()
            del self._numbers[key]
        if self._core.journal is not None:
            self._core.journal.duplicates_forgotten(self._entity_id, until)
