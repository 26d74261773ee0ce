"""What a consumer has done so far, for tests, health pages and metrics."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from opentelemetry import metrics

What = Literal[
    "received",
    "completed",
    "retried",
    "dead_lettered",
    "given_back",
    "lock_lost",
    "renewed",
    "renewal_failed",
    "settle_failed",
    "rebuilt",
    "redelivered_after_confirmed_complete",
]
"""`redelivered_after_confirmed_complete` must stay 0: the broker said that it is done and sent it again."""

_messages = metrics.get_meter("fusebus.bus").create_counter(
    "fusebus.bus.messages", description="What consumers did, by outcome and subscription."
)


class Counts:
    """Counts since the start, by name; each is also a metric."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._found: Counter[str] = Counter()

    def add(self, what: What) -> None:
        """One more."""
        self._found[what] += 1
        _messages.add(1, {"outcome": what, "source": self._source})

    def __getitem__(self, what: What) -> int:
        return self._found[what]

    def __repr__(self) -> str:
        return f"Counts({dict(self._found)})"
