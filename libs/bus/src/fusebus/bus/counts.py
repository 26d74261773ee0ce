"""What a consumer has done so far, for tests, health pages and metrics."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from opentelemetry import metrics

from fusebus.bus.settlement import Source
from fusebus.bus.tracing import destination

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

_events = metrics.get_meter("fusebus.bus").create_counter(
    "fusebus.consumer.events", unit="{event}", description="What consumers did, by outcome and subscription."
)


class Counts:
    """Counts since the start, by name; each is also a metric."""

    def __init__(self, source: Source) -> None:
        self._attributes = destination(source.topic, source.subscription)
        self._found: Counter[str] = Counter()

    def add(self, what: What) -> None:
        """One more."""
        self._found[what] += 1
        _events.add(1, {**self._attributes, "fusebus.outcome": what})

    def __getitem__(self, what: What) -> int:
        return self._found[what]

    def __repr__(self) -> str:
        return f"Counts({dict(self._found)})"
