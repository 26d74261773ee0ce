"""Pure decisions: when a run closes, when it is looked at again, when a mail may be sent."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import Enum

from msgspec import Struct

REPEAT_WITHIN = timedelta(minutes=5)
"""A send of unknown outcome may be repeated with the same Message-ID for this long: mail servers that drop repeats keep
ids at least so long, and nobody has acted on the mail yet. Later a person decides."""


class Phase(Enum):
    """A run's state, as its header says."""

    OPEN = "open"
    CLOSED = "closed"
    COMPLETE = "complete"


class Look(Enum):
    """What to do with a run that is looked at."""

    CLOSE = "close it, then look whether it is complete"
    FINISH = "complete it if every upload is final"
    WAIT = "look again later"
    NOTHING = "nothing, ever"


class Step(Struct, frozen=True):
    """What to do with a run, when to look again if that does not complete it, and why."""

    look: Look
    again_at: datetime | None
    because: str


class Send(Enum):
    """What to do about a mail."""

    FIRST = "send"
    REPEAT = "send again with the same Message-ID"
    WAIT = "leave it: another process may be sending it now"
    UNKNOWN = "ask the operator: it may or may not have gone out"
    SETTLED = "nothing: its outcome is known"


class Mark(Struct, frozen=True, kw_only=True):
    """What a mail's marker says."""

    tried_at: datetime
    """When the last try began."""
    unsure_since: datetime
    """When the first try began that may have gone out."""
    not_sent: bool
    """The last try certainly failed."""
    settled: bool
    """Sent, refused for good, or shown to the operator."""


class SendStep(Struct, frozen=True):
    """What to do about a mail and why."""

    send: Send
    because: str


def next_step(phase: Phase, last_upload_at: datetime, now: datetime, *, run_quiet: float, recheck: float) -> Step:
    """What a look at a run leads to. `run_quiet` and `recheck` in seconds.

    A run of the future (another machine's clock is ahead) is simply not quiet yet.
    """
    recheck_at = now + timedelta(seconds=recheck)
    if phase is Phase.COMPLETE:
        return Step(Look.NOTHING, None, "complete already")
    if phase is Phase.CLOSED:
        return Step(Look.FINISH, recheck_at, "closed")
    quiet_at = last_upload_at + timedelta(seconds=run_quiet)
    if now >= quiet_at:
        return Step(Look.CLOSE, recheck_at, f"no upload for {(now - last_upload_at).total_seconds():.0f} s")
    return Step(Look.WAIT, quiet_at, f"the last upload came {(now - last_upload_at).total_seconds():.0f} s ago")


def pending(finals: Iterable[object | None]) -> int:
    """How many uploads have no final yet."""
    return sum(final is None for final in finals)


def is_complete(phase: Phase, outstanding: int) -> bool:
    """Whether a run is over: it takes no more uploads, and each of its uploads is final."""
    return phase is not Phase.OPEN and outstanding == 0


def mail_step(mark: Mark | None, now: datetime, *, mail_timeout: float) -> SendStep:
    """What to do about a mail, from its marker. `mail_timeout`: seconds that a live sender may take."""
    if mark is None:
        return SendStep(Send.FIRST, "never tried")
    if mark.settled:
        return SendStep(Send.SETTLED, "its outcome is known")
    if mark.not_sent:
        return SendStep(Send.REPEAT, "the last try certainly failed")
    ago = f"a try {(now - mark.tried_at).total_seconds():.0f} s ago has no known outcome"
    if now - mark.tried_at < timedelta(seconds=mail_timeout):
        return SendStep(Send.WAIT, f"{ago}, a send may take {mail_timeout:.0f} s")
    if now - mark.unsure_since < REPEAT_WITHIN:
        return SendStep(Send.REPEAT, ago)
    return SendStep(Send.UNKNOWN, f"{ago}, too late to repeat it")
