"""Which image goes first of those in hand: by lane, then by deadline, then in the order of arrival."""

from __future__ import annotations

import itertools
from typing import NamedTuple

from fusebus.contracts.messages import ImageAccepted, Lane

_RANKS = {Lane.URGENT: 0, Lane.NORMAL: 1, Lane.BULK: 2}
_arrivals = itertools.count()


class Urgency(NamedTuple):
    """Sorts by what is to be done first; no two are equal."""

    lane: int
    """0: urgent, 1: normal, 2: bulk."""
    deadline: float
    """Seconds since the epoch."""
    arrival: int


def urgency_of(work: ImageAccepted) -> Urgency:
    """Its place among the others; `work` arrives now."""
    return Urgency(_RANKS[work.lane], work.deadline.timestamp(), next(_arrivals))


def ordinary() -> Urgency:
    """For what nobody has marked: normal lane, no deadline, arrives now."""
    return Urgency(_RANKS[Lane.NORMAL], float("inf"), next(_arrivals))
