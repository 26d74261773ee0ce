"""What the notifier tells OpenTelemetry: what became of uploads and mails, how long runs took, dead letters it met."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from opentelemetry import metrics

RUN_SECONDS = (30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 2 * 3600.0, 6 * 3600.0, 24 * 3600.0, 72 * 3600.0)

_meter = metrics.get_meter("fusebus.notifier")
_finals = _meter.create_counter("fusebus.upload.finals", unit="{upload}", description="Uploads that came to their end.")
_runs = _meter.create_histogram(
    "fusebus.run.duration",
    unit="s",
    description="From a run's first upload until it was complete, its report written and its mail dealt with.",
    explicit_bucket_boundaries_advisory=RUN_SECONDS,
)
_mails = _meter.create_counter(
    "fusebus.mails", unit="{mail}", description="Tries to send a mail or a card, by their outcome."
)
_dead = _meter.create_counter(
    "fusebus.dead_letters.handled", unit="{message}", description="Dead letters that the notifier dealt with."
)


def final(kind: str) -> None:
    """An upload has its final."""
    _finals.add(1, {"fusebus.final": kind})


def run_complete(opened_at: datetime, now: datetime) -> None:
    """A run is over."""
    _runs.record(max(0.0, (now - opened_at).total_seconds()))


def mail(what: Literal["mail", "card"], outcome: Literal["sent", "not_sent", "refused", "unknown"]) -> None:
    """One try."""
    _mails.add(1, {"fusebus.kind": what, "fusebus.outcome": outcome})


def dead_letter(topic: str, subscription: str) -> None:
    """One that was new."""
    _dead.add(1, {"messaging.destination.name": topic, "messaging.destination.subscription.name": subscription})
