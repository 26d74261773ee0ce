"""What a handler is given beside its message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fusebus.contracts.envelope import Envelope
from fusebus.contracts.outcomes import Outcome


@dataclass(frozen=True, kw_only=True)
class Context:
    """One delivery of a message; a plain value, so that a handler is tested without a bus."""

    envelope: Envelope
    delivery_count: int = 0
    """Earlier deliveries that were abandoned or whose lock expired; 0 at first. No sign of a fault of the message."""
    enqueued_at: datetime | None = None
    subscription: str = ""
    """Where it was received."""
    lock_lost: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when somebody else may have the message: the handler is cancelled too, a thread may look at this."""

    @property
    def attempt(self) -> int:
        """1 at the first try; counts handler failures only."""
        return self.envelope.attempt

    @property
    def message_id(self) -> str:
        """`work id/attempt/replay`."""
        return self.envelope.message_id


# The message's type is the topic's business: a handler names the one it takes, so Any.
Handler = Callable[[Any, Context], Awaitable[Outcome]]
