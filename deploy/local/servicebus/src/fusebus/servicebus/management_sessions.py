"""What `$management` does for sessions: their locks, their states, their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fusebus.servicebus.amqp.sections import MAX_TIMESTAMP_MILLISECONDS, timestamp
from fusebus.servicebus.amqp.types import Int
from fusebus.servicebus.engine.errors import InvalidArgument
from fusebus.servicebus.engine.sessions import SessionConsumer
from fusebus.servicebus.gateway import Gateway
from fusebus.servicebus.requests import NOTHING, Body, Response, item, ok, optional
from fusebus.servicebus.session_receivers import SessionReceiver

if TYPE_CHECKING:
    from fusebus.servicebus.connection import Connection

MAX_LISTED = 100  # sessions in one answer, as in the service


class SessionOperations:
    """Operations by their names without the vendor's prefix."""

    def __init__(self, gateway: Gateway, connection: Connection, path: str) -> None:
        self._gateway = gateway
        self._engine = gateway.engine
        self._connection = connection
        self._path = path
        self.operations: dict[str, Callable[[Body], Response]] = {
            "renew-session-lock": self._renew,
            "get-session-state": self._get_state,
            "set-session-state": self._set_state,
            "get-message-sessions": self._list,
        }

    def _renew(self, body: Body) -> Response:
        self._gateway.faults.before_renewal(self._path)
        session_id = item(body, "session-id", str)
        until = self._engine.renew_session_lock(self._path, session_id, self._holder(session_id))
        return ok({"expiration": timestamp(until)})

    def _get_state(self, body: Body) -> Response:
        session_id = item(body, "session-id", str)
        return ok({"session-state": self._engine.session_state(self._path, session_id, self._holder(session_id))})

    def _set_state(self, body: Body) -> Response:
        session_id, state = item(body, "session-id", str), optional(body, "session-state", bytes)
        if state is not None and len(state) > self._gateway.max_message_bytes:
            raise InvalidArgument(f"session-state: {len(state)} bytes; at most {self._gateway.max_message_bytes}")
        self._engine.set_session_state(self._path, session_id, state, self._holder(session_id))
        return ok({})

    def _list(self, body: Body) -> Response:
        since = item(body, "last-updated-time", int)
        skip, top = item(body, "skip", int), min(item(body, "top", int), MAX_LISTED)
        if skip < 0 or top < 0:
            raise InvalidArgument("skip and top must not be negative")
        everything = since > MAX_TIMESTAMP_MILLISECONDS  # the clients' way of asking for those with messages
        found = self._engine.list_sessions(self._path, None if everything else since / 1000, skip, top)
        return ok({"skip": Int(skip + len(found)), "sessions-ids": found}, 200 if found else NOTHING)

    def _holder(self, session_id: str) -> SessionConsumer | None:
        """The consumer by which this connection holds the session; None if it holds it by none."""
        links = (link for link in self._connection.links() if isinstance(link, SessionReceiver))
        holders = (link.holder for link in links if link.entity == self._path)
        return next((holder for holder in holders if holder is not None and holder.session_id == session_id), None)
