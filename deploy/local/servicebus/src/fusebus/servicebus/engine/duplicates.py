"""Which message ids an entity saw lately."""

from collections import deque


class DuplicateWindow:
    """Remembers each id for `seconds` after it was first seen; a repeat doesn't prolong that."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._numbers: dict[str, int] = {}
        self._seen: deque[tuple[float, str]] = deque()

    def number_of(self, message_id: str, now: float) -> int | None:
        """The sequence number under which it was seen, None if it is new."""
        while self._seen and self._seen[0][0] + self.seconds <= now:
            del self._numbers[self._seen.popleft()[1]]
        return self._numbers.get(message_id)

    def remember(self, message_id: str, number: int, now: float) -> None:
        self._numbers[message_id] = number
        self._seen.append((now, message_id))
