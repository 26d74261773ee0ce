"""How much waits in a subscription, as the namespace's administration endpoint says it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Depth:
    """Counts of one subscription; approximate in Azure."""

    active: int
    """Includes messages that somebody has locked."""
    dead_letter: int
    scheduled: int
    """Of the whole topic: a subscription has no such count."""
