"""`$management` of an entity: the operations that need an answer rather than a link."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID

from fusebus.servicebus import outcomes
from fusebus.servicebus.amqp import sections
from fusebus.servicebus.amqp.types import Array, CodecError, Int, Long
from fusebus.servicebus.conditions import (
    ARGUMENT_ERROR,
    INTERNAL_ERROR,
    NOT_IMPLEMENTED,
    UNAUTHORIZED,
    Refusal,
    refusal_of,
)
from fusebus.servicebus.engine.errors import EngineError, InvalidArgument, MessageTooLarge
from fusebus.servicebus.engine.messages import Delivery, ReceiveMode
from fusebus.servicebus.engine.rights import Right
from fusebus.servicebus.gateway import Gateway
from fusebus.servicebus.management_rules import RuleOperations
from fusebus.servicebus.management_sessions import SessionOperations
from fusebus.servicebus.requests import (
    MAX_REQUEST_BYTES,
    NOTHING,
    Body,
    Request,
    Response,
    item,
    items,
    ok,
    optional,
    refused,
)
from fusebus.servicebus.wire_messages import encoded_delivery, engine_message

if TYPE_CHECKING:
    from fusebus.servicebus.connection import Connection

logger = logging.getLogger(__name__)

PREFIX = "com.microsoft:"
MAX_PEEKED = 250  # messages in one answer, as in the service
MAX_ANSWER_BYTES = 1 << 20
SCHEDULE_MARGIN_BYTES = 64 * 1024  # what a request to schedule one message has around that message, and to spare


class Management:
    """Answers requests about the entity at `path`."""

    def __init__(self, gateway: Gateway, connection: Connection, path: str) -> None:
        self._gateway = gateway
        self._connection = connection
        self._engine = gateway.engine
        self._path = path
        self.max_request_bytes = max(MAX_REQUEST_BYTES, self._engine.message_limit(path) + SCHEDULE_MARGIN_BYTES)
        sessions = SessionOperations(gateway, connection, path)
        self._operations: dict[str, tuple[Right, Callable[[Body], Response]]] = {
            "renew-lock": (Right.LISTEN, self._renew_lock),
            "peek-message": (Right.LISTEN, self._peek),
            "schedule-message": (Right.SEND, self._schedule),
            "cancel-scheduled-message": (Right.SEND, self._cancel_scheduled),
            "receive-by-sequence-number": (Right.LISTEN, self._receive_deferred),
            "update-disposition": (Right.LISTEN, self._update_disposition),
            "batch-delete-messages": (Right.LISTEN, self._batch_delete),
            **{name: (Right.LISTEN, operation) for name, operation in sessions.operations.items()},
            **{name: (Right.LISTEN, operation) for name, operation in RuleOperations(gateway, path).operations.items()},
        }

    def __call__(self, request: Request) -> Response:
        right, operation = self._operations.get(request.operation.removeprefix(PREFIX), (None, None))
        if right is None or operation is None:
            return refused(Refusal(NOT_IMPLEMENTED, f"no operation {request.operation!r}", status=501))
        if not isinstance(request.body, dict):
            return refused(Refusal(ARGUMENT_ERROR, "the body must be a map"))
        if not self._connection.claims.allow(self._path, right):
            text = f"Unauthorized access: a claim to {right.value} on {self._path} is required"
            return refused(Refusal(UNAUTHORIZED, text, status=401))
        try:
            return operation(request.body)
        except Refusal as refusal:
            return refused(refusal)
        except EngineError as error:
            return refused(refusal_of(error))
        except CodecError as error:
            return refused(Refusal(ARGUMENT_ERROR, f"malformed message: {error}"))
        except Exception:
            logger.exception("%s failed", request.operation)
            return refused(Refusal(INTERNAL_ERROR, "the broker failed; its log says how", status=500))

    def refuse(self, refusal: Refusal) -> Response:
        return refused(refusal)

    def _renew_lock(self, body: Body) -> Response:
        self._gateway.faults.before_renewal(self._path)
        expirations = [self._engine.renew_lock(self._path, token) for token in items(body, "lock-tokens", UUID)]
        return ok({"expirations": Array(sections.timestamp(expiration) for expiration in expirations)})

    def _peek(self, body: Body) -> Response:
        count = min(item(body, "message-count", int), MAX_PEEKED)
        session_id = optional(body, "session-id", str)
        found = self._engine.peek(self._path, item(body, "from-sequence-number", int), count, session_id)
        messages: list[Body] = []
        size = 0
        for delivery in found:
            encoded = encoded_delivery(delivery)
            size += len(encoded)
            if messages and size > MAX_ANSWER_BYTES:
                break  # the client asks again, from the next sequence number
            messages.append({"message": encoded})
        return ok({"messages": messages}) if messages else ok({"messages": []}, NOTHING)

    def _schedule(self, body: Body) -> Response:
        encoded = [item(entry, "message", bytes) for entry in items(body, "messages", dict)]
        largest = max((len(data) for data in encoded), default=0)
        limit = self._engine.message_limit(self._path)
        if largest > limit:
            raise MessageTooLarge(f"{largest} bytes; at most {limit} are allowed")
        self._gateway.faults.before_send(self._path, len(encoded))
        messages = [engine_message(data) for data in encoded]
        if any(message.scheduled_enqueue_time is None for message in messages):
            raise InvalidArgument("a message to schedule has no scheduled enqueue time")
        return ok({"sequence-numbers": Array(Long(number) for number in self._engine.send(self._path, messages))})

    def _cancel_scheduled(self, body: Body) -> Response:
        self._engine.cancel_scheduled(self._path, items(body, "sequence-numbers", int))
        return ok({})

    def _receive_deferred(self, body: Body) -> Response:
        deletes = body.get("receiver-settle-mode") == 0
        mode = ReceiveMode.RECEIVE_AND_DELETE if deletes else ReceiveMode.PEEK_LOCK
        numbers = items(body, "sequence-numbers", int)
        found = self._engine.receive_deferred(self._path, numbers, mode, optional(body, "session-id", str))
        return ok({"messages": [_locked(delivery) for delivery in found]})

    def _batch_delete(self, body: Body) -> Response:
        before = item(body, "enqueued-time-utc", int) / 1000
        session_id = optional(body, "session-id", str)
        count = self._engine.batch_delete(self._path, item(body, "message-count", int), before, session_id)
        return ok({"message-count": Int(count)}, 200 if count else NOTHING)

    def _update_disposition(self, body: Body) -> Response:
        outcome = _disposition(body)
        tokens = items(body, "lock-tokens", UUID)
        self._gateway.faults.before_settlement(self._path)
        for token in tokens:
            outcome.settle(self._engine, self._path, token)
        return ok({})


def _locked(delivery: Delivery) -> Body:
    entry: Body = {"message": encoded_delivery(delivery)}
    if delivery.lock_token is not None:
        entry["lock-token"] = delivery.lock_token
    return entry


def _disposition(body: Body) -> outcomes.Outcome:
    """The outcome that update-disposition asks for; "defered" and "suspended" are the service's own words."""
    status = body.get("disposition-status")
    changes = body.get("properties-to-modify")
    properties = {str(key): value for key, value in changes.items()} if isinstance(changes, dict) else None
    if status == "completed":
        return outcomes.COMPLETE
    if status == "abandoned":
        return outcomes.abandon(properties)
    if status in ("defered", "deferred"):
        return outcomes.defer(properties)
    if status == "suspended":
        reason, description = body.get("deadletter-reason"), body.get("deadletter-description")
        return outcomes.dead_letter(
            None if reason is None else str(reason), None if description is None else str(description), properties
        )
    raise InvalidArgument(f"unknown disposition-status {status!r}")
