"""Links over which clients send to queues and topics."""

from __future__ import annotations

from fusebus.servicebus.amqp.performatives import RECEIVER, Attach, Error, Rejected, Transfer
from fusebus.servicebus.amqp.sections import BATCH_FORMAT, unpack_batch
from fusebus.servicebus.amqp.types import CodecError
from fusebus.servicebus.conditions import ARGUMENT_ERROR, MESSAGE_SIZE_EXCEEDED, Refusal, error_of
from fusebus.servicebus.engine.errors import EngineError
from fusebus.servicebus.engine.rights import Right
from fusebus.servicebus.gateway import Gateway
from fusebus.servicebus.link import Inbound
from fusebus.servicebus.session import ACCEPTED, Session
from fusebus.servicebus.wire_messages import engine_message


class EntitySender(Inbound):
    """The client sends to a queue or topic."""

    rights = (Right.SEND,)

    def __init__(self, gateway: Gateway, session: Session, attach: Attach, path: str) -> None:
        super().__init__(session, attach, path)
        self._engine = gateway.engine
        self._faults = gateway.faults
        self.max_message_bytes = self._engine.message_limit(path)
        self.max_batch_bytes = min(self.max_message_bytes, gateway.max_message_bytes)

    def start(self) -> None:
        self._engine.check_sendable(self.entity)
        super().start()

    def arrived(self, first: Transfer, payload: bytes, size: int) -> None:
        state = ACCEPTED
        try:
            self._enqueue(first, payload, size)
        except CodecError as error:
            state = _rejected(Error(condition=ARGUMENT_ERROR, description=f"malformed message: {error}"))
        except (Refusal, EngineError) as error:
            state = _rejected(error_of(error))
        if not first.settled and not self._faults.drops_acknowledgement(self.entity):
            assert first.delivery_id is not None
            self.session.send_disposition(RECEIVER, first.delivery_id, state)

    def _enqueue(self, first: Transfer, payload: bytes, size: int) -> None:
        is_batch = first.message_format == BATCH_FORMAT
        limit = self.max_batch_bytes if is_batch else self.max_message_bytes
        if size > limit:
            raise Refusal(MESSAGE_SIZE_EXCEEDED, f"{size} bytes; at most {limit} are allowed")
        encoded = unpack_batch(payload) if is_batch else [payload]
        self._faults.before_send(self.entity, len(encoded))
        self._engine.send(self.entity, [engine_message(data) for data in encoded])


def _rejected(error: Error) -> bytes:
    return Rejected(error=error).encoded()
