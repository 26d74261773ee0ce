"""Links over which clients receive from queues, subscriptions and dead-letter queues."""

from __future__ import annotations

import asyncio

from fusebus.servicebus import outcomes
from fusebus.servicebus.amqp.performatives import SENDER, SETTLED, Accepted, Attach, Disposition, Rejected
from fusebus.servicebus.conditions import Refusal, error_of
from fusebus.servicebus.engine.consumer import Consumer
from fusebus.servicebus.engine.errors import EngineError
from fusebus.servicebus.engine.messages import Delivery, ReceiveMode
from fusebus.servicebus.engine.rights import Right
from fusebus.servicebus.gateway import Gateway
from fusebus.servicebus.link import Outbound
from fusebus.servicebus.session import Session
from fusebus.servicebus.wire_messages import encoded_delivery

# What one receiver is sent in one turn of the event loop; the rest waits until the output has gone.
MAX_BURST_DELIVERIES = 256
MAX_BURST_BYTES = 1 << 20
HELD_BACK_SECONDS = 1.0  # until a receiver with too many unsettled deliveries is looked at again


class EntityReceiver(Outbound):
    """Gives the client what the engine delivers, and the engine what the client says about it."""

    rights = (Right.LISTEN,)

    def __init__(self, gateway: Gateway, session: Session, attach: Attach, path: str) -> None:
        super().__init__(session, attach, path)
        self._engine = gateway.engine
        self._gateway = gateway
        self._burst_planned = False
        self._burst_bytes = 0
        self._held_back: asyncio.TimerHandle | None = None
        self._locks: dict[int, Delivery] = {}
        self._settled = attach.snd_settle_mode == SETTLED
        self._mode = ReceiveMode.RECEIVE_AND_DELETE if self._settled else ReceiveMode.PEEK_LOCK
        self._consumer: Consumer | None = None

    def start(self) -> None:
        self._consumer = self._engine.attach_consumer(self.entity, self._deliver, self._mode, self._entity_gone)
        super().start()

    # --- credit

    def credit_changed(self) -> None:
        """Passes credit on to the engine in bursts: a large backlog must not go out in one turn of the loop."""
        if self._consumer is None:
            return
        paused = self.session.connection.output_paused or self.session.stalled
        self._burst_bytes = 0
        self._consumer.set_credit(0 if paused else min(self.credit, MAX_BURST_DELIVERIES, self._room()))

    def _room(self) -> int:
        """How many more deliveries may be unsettled at the same time."""
        limit = self._gateway.bounds.unsettled_deliveries
        if len(self._locks) >= limit:
            self._drop_lost()
        room = limit - len(self._locks)
        if room <= 0 and self.credit and self._held_back is None:
            self._gateway.tallies.unsettled.add()
            self._held_back = asyncio.get_running_loop().call_later(HELD_BACK_SECONDS, self._try_again)
        return max(0, room)

    def _drop_lost(self) -> None:
        """Forgets deliveries whose lock is gone; a late word on one is answered with message-lock-lost."""
        lost = [
            number
            for number, delivery in self._locks.items()
            if delivery.lock_token is None or not self._engine.is_locked(self.entity, delivery.lock_token)
        ]
        for number in lost:
            del self._locks[number]
            self.session.unsettled.pop(number, None)

    def _try_again(self) -> None:
        self._held_back = None
        self._next_burst()

    def more_to_come(self) -> bool:
        return bool(self._consumer and self.credit > 0 and not self._consumer.credit and self._held_back is None)

    def paused_changed(self) -> None:
        self.credit_changed()
        self.end_drain()

    def _next_burst(self) -> None:
        self._burst_planned = False
        if self.session.has(self) and self.more_to_come():
            self.credit_changed()
        if self.session.has(self):
            self.end_drain()

    # --- its end

    def closed(self) -> None:
        if self._consumer is not None:
            self._consumer.detach()
            self._consumer = None  # which has this
        if self._held_back is not None:
            self._held_back.cancel()
        for number in self._locks:  # the locks themselves stay until they expire
            self.session.unsettled.pop(number, None)
        self._locks.clear()

    def _entity_gone(self, error: EngineError) -> None:
        if self.session.has(self):
            self.detach(error_of(error))

    # --- deliveries

    def _deliver(self, delivery: Delivery) -> None:
        consumer = self._consumer  # perhaps the last delivery of one that ends by it
        assert consumer is not None
        token = delivery.lock_token
        encoded = encoded_delivery(delivery)
        number = self.transfer(None if token is None else token.bytes_le, encoded, self._settled)
        if not self._settled:
            self._locks[number] = delivery
            self.session.unsettled[number] = self
        self._burst_bytes += len(encoded)
        if self._burst_bytes > MAX_BURST_BYTES:
            consumer.set_credit(0)
        if self.more_to_come() and not self._burst_planned:
            self._burst_planned = True
            asyncio.get_running_loop().call_soon(self._next_burst)

    def settle(self, delivery_id: int, disposition: Disposition) -> None:
        """Does with the message what the client said, and confirms it unless the client already settled."""
        done = type(disposition.state) is Accepted  # nearly always
        outcome = outcomes.COMPLETE if done else outcomes.outcome_of(disposition.state)
        if outcome is None:
            if not disposition.settled:
                return  # `received` or nothing yet: the client will say more
            outcome = outcomes.RELEASE
        delivery = self._locks.pop(delivery_id)
        self.session.unsettled.pop(delivery_id, None)
        state = outcome.confirmation
        try:
            self._gateway.faults.before_settlement(self.entity)
            assert delivery.lock_token is not None
            outcome.settle(self._engine, self.entity, delivery.lock_token)
        except (Refusal, EngineError) as error:
            state = Rejected(error=error_of(error)).encoded()
        if not disposition.settled and not self._gateway.faults.drops_acknowledgement(self.entity):
            self.session.send_disposition(SENDER, delivery_id, state)
        if self._held_back is not None:
            self._held_back.cancel()
            self._try_again()

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
