"""Reads dead letters without taking them: they stay for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from fusebus.contracts.envelope import Envelope


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """One message in a dead-letter queue, as seen by a peek."""

    sequence: int
    """Its place in the subscription; pass the highest one as `after_sequence` to go on."""
    message_id: str
    reason: str
    description: str
    enqueued_at: datetime | None
    delivery_count: int
    properties: Mapping[str, object]
    body: bytes
    envelope: Envelope | None
    """None where the body can't be decoded; `properties` may still say which upload it was."""
