"""Message sessions: who holds which, and whose messages go to whom."""

from typing import Final

from fusebus.servicebus.engine.consumer import Consumer

DEFAULT_ACCEPT_SECONDS: Final = 65.0  # the service's patience with an accept that names none


class SessionConsumer(Consumer):
    """Holds the lock of one session; made by `Engine.accept_session` and `accept_next_session`."""

    session_id: str
    locked_until: float


class Session:
    """One session of an entity."""


class SessionWait:
    """An accept that waits for a session."""

    def cancel(self) -> None:
        """Stop waiting; harmless when it is over."""
        raise NotImplementedError
