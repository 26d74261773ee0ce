"""Links over which clients receive the messages of one session."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fusebus.servicebus.amqp.performatives import Attach
from fusebus.servicebus.amqp.types import Described, Long, Symbol
from fusebus.servicebus.conditions import INVALID_FIELD, Refusal
from fusebus.servicebus.engine.errors import EngineError
from fusebus.servicebus.engine.sessions import DEFAULT_ACCEPT_SECONDS, SessionConsumer, SessionWait
from fusebus.servicebus.gateway import Gateway
from fusebus.servicebus.receivers import EntityReceiver
from fusebus.servicebus.session import Session

SESSION_FILTER = Symbol("com.microsoft:session-filter")
LOCKED_UNTIL = Symbol("com.microsoft:locked-until-utc")
TIMEOUT = "com.microsoft:timeout"
TICKS_PER_SECOND = 10_000_000  # .NET's
TICKS_AT_UNIX_EPOCH = 621_355_968_000_000_000


def asks_for_session(attach: Attach) -> bool:
    """Whether an attach names a session, or wants any."""
    return SESSION_FILTER in (attach.source.filter or {})


class SessionReceiver(EntityReceiver):
    """Accepts the session that the filter names, or with null the next one that is free: then the answer may wait."""

    def __init__(self, gateway: Gateway, session: Session, attach: Attach, path: str) -> None:
        super().__init__(gateway, session, attach, path)
        self._wanted = _session_id(attach.source.filter[SESSION_FILTER])
        self._timeout_seconds = _timeout_seconds(attach.properties or {})
        self._wait: SessionWait | None = None
        self.holder: SessionConsumer | None = None

    def start(self) -> None:
        if self._wanted is not None:
            self._accepted(
                self._engine.accept_session(self.entity, self._wanted, self._deliver, self._mode, self._entity_gone)
            )
            return
        self._wait = self._engine.accept_next_session(
            self.entity,
            self._accepted,
            self._refused,
            self._deliver,
            self._mode,
            self._entity_gone,
            self._timeout_seconds,
        )

    def _accepted(self, consumer: SessionConsumer) -> None:
        if not self.session.has(self):
            consumer.detach()
            return
        self.holder = self._consumer = consumer
        self.session.accept(self)
        self.credit_changed()  # the client may have granted some while it waited
        self.end_drain()

    def _refused(self, error: EngineError) -> None:
        if self.session.has(self):
            self.session.refuse(self, error)

    def reply(self) -> Attach:
        assert self.holder is not None
        reply = super().reply()
        reply.source = replace(self.attach.source, filter={SESSION_FILTER: self.holder.session_id})
        reply.properties = {LOCKED_UNTIL: ticks(self.holder.locked_until)}
        return reply

    def lose_locks(self) -> int:
        """Takes the session away, with its messages, as if its lock had expired; that is one lock."""
        if self.holder is None or not self.holder.attached:
            return 0
        self._engine.lose_session_lock(self.entity, self.holder.session_id)
        return 1

    def closed(self) -> None:
        if self._wait is not None:
            self._wait.cancel()
        super().closed()


def ticks(seconds: float) -> Long:
    """.NET's ticks from seconds since the Unix epoch."""
    return Long(round(seconds * TICKS_PER_SECOND) + TICKS_AT_UNIX_EPOCH)


def _session_id(value: Any) -> str | None:
    if isinstance(value, Described):
        value = value.value
    if value is None or isinstance(value, str):
        return value
    raise Refusal(INVALID_FIELD, "a session filter is a string, or null for the next session")


def _timeout_seconds(properties: dict[Any, Any]) -> float:
    milliseconds = properties.get(TIMEOUT)
    if isinstance(milliseconds, int) and not isinstance(milliseconds, bool):
        return max(0, milliseconds) / 1000
    return DEFAULT_ACCEPT_SECONDS
