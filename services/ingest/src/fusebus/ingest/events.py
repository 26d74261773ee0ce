"""What becomes of an event before an upload is entered: taken apart, put off, told anew, or refused."""

from __future__ import annotations

from collections.abc import Callable

from fusebus.arrivals import event_of
from fusebus.blobs import BlobProperties
from fusebus.contracts.messages import StorageEvents
from fusebus.contracts.outcomes import Done, Outcome, Outgoing, Reject, done, retry

COPY_DONE = "success"
COPY_API = "CopyBlob"
BEGINNINGS = frozenset({"CreateFile", "SftpCreate"})
"""Requests with which a file begins, in accounts with a hierarchical namespace; its end has an event of its own."""


class NotNow(Exception):
    """The event's blob is not entered now: `outcome` says what becomes of the event."""

    def __init__(self, text: str, outcome: Callable[[str, int, float], Outcome]) -> None:
        super().__init__(text)
        self._outcome = outcome

    def outcome(self, attempt: int, first_seconds: float) -> Outcome:
        """`attempt` as the message counts it; a first delay in seconds."""
        return self._outcome(str(self), attempt, first_seconds)


def copy_in_progress(text: str) -> NotNow:
    """Its bytes are still on their way: later."""

    def later(text: str, attempt: int, first_seconds: float) -> Outcome:
        return retry("copy_in_progress", text, attempt=attempt, first_seconds=first_seconds)

    return NotNow(text, later)


def copy_has_ended(container: str, found: BlobProperties) -> NotNow:
    """The event told of a copy's begin; its content has another ETag, and no event of its own: announce it."""
    event = event_of(container, found)
    return NotNow(f"{container}/{found.name!r}: copied since its event", lambda text, attempt, seconds: done(event))


def no_container(container: str) -> NotNow:
    """Nobody delivers there: no run is opened for a supplier that is none."""
    return NotNow(
        f"there is no container {container}",
        lambda text, attempt, seconds: Reject(reason="no_container", description=text),
    )


def taken_apart(events: StorageEvents) -> Outcome:
    """Each event of an array for itself, so that one that fails is repeated alone; what can't be read stays visible."""
    publish = tuple(Outgoing(message=event) for event in events.created)
    if events.unreadable:
        description = f"{len(events.unreadable)} events can't be read: {'; '.join(events.unreadable)}"
        return Reject(reason="unreadable_events", description=description, publish=publish)
    return Done(publish)
