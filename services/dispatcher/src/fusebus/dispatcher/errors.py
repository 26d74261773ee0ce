"""What can go wrong with Batch and with leadership, in our words; the adapters translate, nobody else."""

from __future__ import annotations


class FleetError(Exception):
    """Batch could not be read or refused; the next look tries again. The outcome of a write may be unknown."""


class PoolChanged(FleetError):
    """Somebody else wrote to the pool since it was read (412, or 409 on a name that was taken): look again."""


class PoolBusy(FleetError):
    """The pool can't take this now (409): it is being resized."""


class Throttled(FleetError):
    """Too many requests (429, 503): ask for nothing more until then."""

    def __init__(self, text: str, retry_after_seconds: float) -> None:
        super().__init__(text)
        self.retry_after_seconds = retry_after_seconds


class Refused(FleetError):
    """Batch will refuse this again (400, 401, 403, 404): people must change something."""


class LostLeadership(Exception):
    """Another dispatcher leads: whatever was decided here must not be carried out any more."""


class LaterTerm(LostLeadership):
    """It was told by its term."""

    def __init__(self, text: str, term: int) -> None:
        super().__init__(text)
        self.term = term
