"""Which node a link's address means, and the links to entities: sending to them and receiving from them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fusebus.servicebus import outcomes
from fusebus.servicebus.amqp.performatives import (
    RECEIVER,
    SENDER,
    SETTLED,
    Attach,
    Disposition,
    Error,
    Rejected,
    Source,
    Target,
    Transfer,
)
from fusebus.servicebus.amqp.sections import BATCH_FORMAT, unpack_batch
from fusebus.servicebus.amqp.types import CodecError
from fusebus.servicebus.claims import Claims
from fusebus.servicebus.conditions import (
    ARGUMENT_ERROR,
    INVALID_FIELD,
    MESSAGE_SIZE_EXCEEDED,
    NOT_ALLOWED,
    UNAUTHORIZED,
    Refusal,
    error_of,
)
from fusebus.servicebus.engine.errors import EngineError
from fusebus.servicebus.engine.messages import Delivery, ReceiveMode
from fusebus.servicebus.gateway import Gateway
from fusebus.servicebus.link import Inbound, Link, Outbound
from fusebus.servicebus.management import Management
from fusebus.servicebus.requests import CLAIMS_NODE, MANAGEMENT_SUFFIX, Handler, RequestLink, ResponseLink
from fusebus.servicebus.sas import entity_path
from fusebus.servicebus.session import ACCEPTED, Session
from fusebus.servicebus.wire_messages import encoded_delivery, engine_message

if TYPE_CHECKING:
    from fusebus.servicebus.connection import Connection

# What one receiver is sent in one turn of the event loop; the rest waits until the output has gone.
MAX_BURST_DELIVERIES = 256
MAX_BURST_BYTES = 1 << 20
SESSION_FILTER = "com.microsoft:session-filter"


def open_link(gateway: Gateway, connection: Connection, session: Session, attach: Attach) -> Link:
    """The link that an attach asks for; raises Refusal or EngineError."""
    terminus = attach.source if attach.role == RECEIVER else attach.target
    node = _node(terminus)
    handler = _handler(gateway, connection, node)
    if handler is not None:
        if attach.role == RECEIVER:
            return ResponseLink(session, attach, node)
        return RequestLink(session, attach, node, handler)
    path = _allowed(gateway, connection, node)
    if attach.role == RECEIVER:
        return EntityReceiver(gateway, session, attach, path)
    return EntitySender(gateway, session, attach, path)


def _handler(gateway: Gateway, connection: Connection, node: str) -> Handler | None:
    """What answers requests to a node; None if it is an entity."""
    if node.lower() == CLAIMS_NODE:
        return Claims(gateway, connection)
    if node.lower().endswith(MANAGEMENT_SUFFIX):
        return Management(gateway, _allowed(gateway, connection, node[: -len(MANAGEMENT_SUFFIX)]))
    return None


def _allowed(gateway: Gateway, connection: Connection, node: str) -> str:
    """The entity's path, if the client may use it."""
    path = gateway.engine.resolve(node).path
    if not connection.allows(path):
        raise Refusal(UNAUTHORIZED, f"no valid claim for {path}", status=401)
    return path


def _node(terminus: Any) -> str:
    """The path in a terminus' address, with scheme and authority gone."""
    if not isinstance(terminus, Source | Target) or not isinstance(terminus.address, str):
        raise Refusal(INVALID_FIELD, "the link's address must be a string; dynamic nodes are not supported")
    return entity_path(terminus.address)


class EntitySender(Inbound):
    """The client sends to a queue or topic."""

    def __init__(self, gateway: Gateway, session: Session, attach: Attach, path: str) -> None:
        super().__init__(session, attach, path)
        self._engine = gateway.engine
        self.max_message_bytes = gateway.max_message_bytes
        if not self._engine.resolve(path).can_send:
            raise Refusal(NOT_ALLOWED, f"nothing can be sent to {path}")

    def arrived(self, first: Transfer, payload: bytes, size: int) -> None:
        state = ACCEPTED
        try:
            self._enqueue(first, payload, size)
        except CodecError as error:
            state = _rejected(Error(condition=ARGUMENT_ERROR, description=f"malformed message: {error}"))
        except (Refusal, EngineError) as error:
            state = _rejected(error_of(error))
        if not first.settled:
            assert first.delivery_id is not None
            self.session.send_disposition(RECEIVER, first.delivery_id, state)

    def _enqueue(self, first: Transfer, payload: bytes, size: int) -> None:
        if size > self.max_message_bytes:
            raise Refusal(MESSAGE_SIZE_EXCEEDED, f"{size} bytes; at most {self.max_message_bytes} are allowed")
        encoded = unpack_batch(payload) if first.message_format == BATCH_FORMAT else [payload]
        self._engine.send(self.entity, [engine_message(data) for data in encoded])


def _rejected(error: Error) -> bytes:
    return Rejected(error=error).encoded()


class EntityReceiver(Outbound):
    """The client receives from a queue, a subscription or a dead-letter queue."""

    def __init__(self, gateway: Gateway, session: Session, attach: Attach, path: str) -> None:
        super().__init__(session, attach, path)
        self._engine = gateway.engine
        self._burst_planned = False
        self._burst_bytes = 0
        self._locks: dict[int, Delivery] = {}
        self._settled = attach.snd_settle_mode == SETTLED
        if SESSION_FILTER in (attach.source.filter or {}):
            raise Refusal(NOT_ALLOWED, "this broker has no message sessions")
        mode = ReceiveMode.RECEIVE_AND_DELETE if self._settled else ReceiveMode.PEEK_LOCK
        self._consumer = self._engine.attach_consumer(path, self._deliver, mode, self._entity_gone)

    def credit_changed(self) -> None:
        """Passes credit on to the engine in bursts: a large backlog must not go out in one turn of the loop."""
        paused = self.session.connection.output_paused or self.session.stalled
        self._burst_bytes = 0
        self._consumer.set_credit(0 if paused else min(self.credit, MAX_BURST_DELIVERIES))

    def more_to_come(self) -> bool:
        return self.credit > 0 and not self._consumer.credit

    def paused_changed(self) -> None:
        self.credit_changed()
        self.end_drain()

    def _next_burst(self) -> None:
        self._burst_planned = False
        if self.session.has(self) and self.more_to_come():
            self.credit_changed()
        if self.session.has(self):
            self.end_drain()

    def closed(self) -> None:
        self._consumer.detach()
        for number in self._locks:  # the locks themselves stay until they expire
            self.session.unsettled.pop(number, None)
        self._locks.clear()

    def _entity_gone(self, error: EngineError) -> None:
        self.detach(error_of(error))

    def _deliver(self, delivery: Delivery) -> None:
        token = delivery.lock_token
        encoded = encoded_delivery(delivery)
        number = self.transfer(None if token is None else token.bytes_le, encoded, self._settled)
        if not self._settled:
            self._locks[number] = delivery
            self.session.unsettled[number] = self
        self._burst_bytes += len(encoded)
        if self._burst_bytes > MAX_BURST_BYTES:
            self._consumer.set_credit(0)
        if self.more_to_come() and not self._burst_planned:
            self._burst_planned = True
            asyncio.get_running_loop().call_soon(self._next_burst)

    def settle(self, delivery_id: int, disposition: Disposition) -> None:
        """Does with the message what the client said, and confirms it unless the client already settled."""
        outcome = outcomes.outcome_of(disposition.state)
        if outcome is None:
            if not disposition.settled:
                return  # `received` or nothing yet: the client will say more
            outcome = outcomes.RELEASE
        delivery = self._locks.pop(delivery_id)
        self.session.unsettled.pop(delivery_id, None)
        state = outcome.confirmation
        try:
            outcome.apply(self._engine, self.entity, delivery)
        except EngineError as error:
            state = _rejected(error_of(error))
        if not disposition.settled:
            self.session.send_disposition(SENDER, delivery_id, state)

    def lose_locks(self) -> int:
        """Takes all locks away as if they had expired; returns how many there were."""
        lost = 0
        for delivery in list(self._locks.values()):
            assert delivery.lock_token is not None
            try:
                self._engine.abandon(self.entity, delivery.lock_token)
                lost += 1
            except EngineError:  # it was lost before
                continue
        return lost
