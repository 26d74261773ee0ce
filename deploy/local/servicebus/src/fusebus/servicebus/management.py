"""`$management` of an entity: the operations that need an answer rather than a link."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID

from fusebus.servicebus import outcomes
from fusebus.servicebus.amqp import sections
from fusebus.servicebus.amqp.types import Array, CodecError, Int, Long
from fusebus.servicebus.conditions import ARGUMENT_ERROR, INTERNAL_ERROR, NOT_IMPLEMENTED, Refusal, refusal_of
from fusebus.servicebus.engine.errors import EngineError, InvalidArgument
from fusebus.servicebus.engine.messages import Delivery, ReceiveMode
from fusebus.servicebus.gateway import Gateway
from fusebus.servicebus.requests import Request, Response, refused
from fusebus.servicebus.wire_messages import encoded_delivery, engine_message

logger = logging.getLogger(__name__)

PREFIX = "com.microsoft:"
MAX_PEEKED = 250  # messages in one answer, as in the service
MAX_ANSWER_BYTES = 1 << 20
NOTHING = 204

Body = dict[str, Any]


class Management:
    """Answers requests about the entity at `path`."""

    def __init__(self, gateway: Gateway, path: str) -> None:
        self._gateway = gateway
        self._engine = gateway.engine
        self._path = path
        self._operations: dict[str, Callable[[Body], Response]] = {
            PREFIX + "renew-lock": self._renew_lock,
            PREFIX + "peek-message": self._peek,
            PREFIX + "schedule-message": self._schedule,
            PREFIX + "cancel-scheduled-message": self._cancel_scheduled,
            PREFIX + "receive-by-sequence-number": self._receive_deferred,
            PREFIX + "update-disposition": self._update_disposition,
        }

    def __call__(self, request: Request) -> Response:
        operation = self._operations.get(request.operation)
        if operation is None:
            return refused(Refusal(NOT_IMPLEMENTED, f"no operation {request.operation!r}", status=501))
        if not isinstance(request.body, dict):
            return refused(Refusal(ARGUMENT_ERROR, "the body must be a map"))
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

    def _renew_lock(self, body: Body) -> Response:
        self._gateway.faults.before_renewal(self._path)
        expirations = [self._engine.renew_lock(self._path, token) for token in _items(body, "lock-tokens", UUID)]
        return _ok({"expirations": Array(sections.timestamp(expiration) for expiration in expirations)})

    def _peek(self, body: Body) -> Response:
        count = min(_item(body, "message-count", int), MAX_PEEKED)
        found = self._engine.peek(self._path, _item(body, "from-sequence-number", int), count)
        messages: list[Body] = []
        size = 0
        for delivery in found:
            encoded = encoded_delivery(delivery)
            size += len(encoded)
            if messages and size > MAX_ANSWER_BYTES:
                break  # the client asks again, from the next sequence number
            messages.append({"message": encoded})
        return _ok({"messages": messages}) if messages else _ok({"messages": []}, NOTHING)

    def _schedule(self, body: Body) -> Response:
        encoded = [_item(entry, "message", bytes) for entry in _items(body, "messages", dict)]
        largest = max((len(data) for data in encoded), default=0)
        if largest > self._gateway.max_message_bytes:
            raise InvalidArgument(f"{largest} bytes; at most {self._gateway.max_message_bytes} are allowed")
        messages = [engine_message(data) for data in encoded]
        if any(message.scheduled_enqueue_time is None for message in messages):
            raise InvalidArgument("a message to schedule has no scheduled enqueue time")
        return _ok({"sequence-numbers": Array(Long(number) for number in self._engine.send(self._path, messages))})

    def _cancel_scheduled(self, body: Body) -> Response:
        self._engine.cancel_scheduled(self._path, _items(body, "sequence-numbers", int))
        return _ok({})

    def _receive_deferred(self, body: Body) -> Response:
        deletes = body.get("receiver-settle-mode") == 0
        mode = ReceiveMode.RECEIVE_AND_DELETE if deletes else ReceiveMode.PEEK_LOCK
        numbers = _items(body, "sequence-numbers", int)
        found = self._engine.receive_deferred(self._path, numbers, mode)
        return _ok({"messages": [_locked(delivery) for delivery in found]})

    def _update_disposition(self, body: Body) -> Response:
        outcome = _disposition(body)
        tokens = _items(body, "lock-tokens", UUID)
        for token in tokens:
            outcome.settle(self._engine, self._path, token)
        return _ok({})


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


def _ok(body: Body, status: int = 200) -> Response:
    return Response({"statusCode": Int(status), "statusDescription": "OK" if status == 200 else "No content"}, body)


def _item(body: Body, name: str, kind: type) -> Any:
    value = body.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InvalidArgument(f"{name} must be a {kind.__name__}")
    return value


def _items(body: Body, name: str, kind: type) -> list[Any]:
    values = body.get(name)
    if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
        raise InvalidArgument(f"{name} must be a list of {kind.__name__}")
    return values
