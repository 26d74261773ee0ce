"""The two directions of a link, without knowing what is behind them."""

# ruff: noqa: B027 - most links leave most of the hooks empty
from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from fusebus.servicebus.amqp.performatives import (
    MANY,
    RECEIVER,
    SENDER,
    Attach,
    Detach,
    Error,
    Flow,
    Source,
    Target,
    Transfer,
)
from fusebus.servicebus.amqp.types import Symbol, UInt
from fusebus.servicebus.conditions import INVALID_FIELD, Refusal
from fusebus.servicebus.engine.rights import Right

if TYPE_CHECKING:
    from fusebus.servicebus.session import Session

PART_OVERHEAD_BYTES = 64  # what Python needs for a piece of a message besides its bytes
INCOMING_CREDIT = 1000  # messages a client may send ahead; topped up when half is used
BATCH_SIZE_PROPERTY = Symbol("com.microsoft:max-message-batch-size")


class Link(ABC):
    """One end of a link on a session; `entity` is the engine's path, empty for the broker's own nodes."""

    rights: tuple[Right, ...] = ()
    """Any of them, to `guarded`, must be claimed as long as the link is attached; none are needed if it is empty."""

    def __init__(self, session: Session, attach: Attach, entity: str = "") -> None:
        self.session = session
        self.attach = attach
        self.name = attach.name
        self.handle = attach.handle  # both sides use the client's number: it is unique in the session
        self.entity = self.guarded = entity
        self.attached = False  # our attach was sent
        self.delivery_count = 0
        self.credit = 0

    def start(self) -> None:
        """Accepts the attach, now or later; raises Refusal or EngineError to refuse it."""
        self.session.accept(self)

    @abstractmethod
    def reply(self) -> Attach:
        """The attach that accepts the client's."""

    @property
    def authorized(self) -> bool:
        """Whether the client still has a claim to what the link is for."""
        connection = self.session.connection
        return not self.rights or any(connection.claims.allow(self.guarded, right) for right in self.rights)

    def opened(self) -> None:
        """Called once, after the attach was answered."""

    def closed(self) -> None:
        """Called once, however the link ended."""

    def on_flow(self, flow: Flow) -> None:
        """A flow for this link arrived."""

    def paused_changed(self) -> None:
        """The connection's output filled up, or went down again."""

    def on_transfer(self, transfer: Transfer, payload: bytes) -> None:
        """A transfer for this link arrived; only Inbound links expect one."""
        raise Refusal("amqp:not-allowed", "transfers go from senders to receivers")

    def detach(self, error: Error | None) -> None:
        """Ends the link from this side."""
        self.session.send(Detach(handle=self.handle, closed=True, error=error))
        self.session.drop(self)


class Inbound(Link):
    """The client sends, we receive: grants credit and puts messages together from their transfers."""

    max_message_bytes = 0  # 0: no limit but memory; see subclasses
    head_bytes = 0  # kept of a message over the limit, for links that must know whom to tell; less than the limit
    max_batch_bytes = 0  # 0: nothing is said about batches

    def __init__(self, session: Session, attach: Attach, entity: str = "") -> None:
        super().__init__(session, attach, entity)
        self.delivery_count = attach.initial_delivery_count or 0
        self._first: Transfer | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._held = 0  # bytes of it that were told to the connection

    def reply(self) -> Attach:
        properties: dict[Any, Any] = {}
        if self.max_batch_bytes:
            properties[BATCH_SIZE_PROPERTY] = UInt(self.max_batch_bytes)
        return Attach(
            name=self.name,
            handle=self.handle,
            role=RECEIVER,
            snd_settle_mode=self.attach.snd_settle_mode,
            rcv_settle_mode=self.attach.rcv_settle_mode,
            source=self.attach.source or Source(),
            target=self.attach.target or Target(),
            max_message_size=self.max_message_bytes,
            properties=properties or None,
        )

    def opened(self) -> None:
        self._grant()

    def _grant(self) -> None:
        self.credit = INCOMING_CREDIT
        self.session.send_flow(self, self.delivery_count, self.credit)

    def on_transfer(self, transfer: Transfer, payload: bytes) -> None:
        first = self._first
        if first is None:
            if transfer.delivery_id is None:
                raise Refusal(INVALID_FIELD, "the first transfer of a delivery has no delivery-id")
            if not transfer.more and len(payload) <= (self.max_message_bytes or len(payload)):  # whole: the usual case
                self._count(None if transfer.aborted else transfer, payload, len(payload))
                return
            first = self._first = transfer
        if transfer.settled:
            first.settled = True
        self._size += len(payload)
        self._parts.append(payload)
        if self._is_too_large:
            self._keep_head()
        if transfer.more and not transfer.aborted:
            self._hold()
            return
        self._complete(first, transfer.aborted)

    def _hold(self) -> None:
        """Says how much of an unfinished message is kept by now."""
        size = self.head_bytes if self._is_too_large else self._size
        kept = size + len(self._parts) * PART_OVERHEAD_BYTES if self._parts else 0
        if kept != self._held:
            self.session.connection.hold(kept - self._held)
            self._held = kept

    def closed(self) -> None:
        self._parts.clear()
        self._hold()

    @property
    def _is_too_large(self) -> bool:
        return 0 < self.max_message_bytes < self._size

    def _keep_head(self) -> None:
        """Lets go of all but the beginning of a message: it will be refused."""
        head = b""
        for part in self._parts:
            if len(head) >= self.head_bytes:
                break
            head += part[: self.head_bytes - len(head)]
        self._parts[:] = [head] if head else []

    def _complete(self, first: Transfer, aborted: bool) -> None:
        payload, size = b"".join(self._parts), self._size
        self._first, self._parts, self._size = None, [], 0
        if self._held:
            self._hold()
        self._count(None if aborted else first, payload, size)

    def _count(self, first: Transfer | None, payload: bytes, size: int) -> None:
        """A message, or None for one that its sender gave up, takes one credit."""
        self.delivery_count = (self.delivery_count + 1) & MANY
        self.credit -= 1
        if first is not None:
            self.arrived(first, payload, size)
        if self.credit * 2 < INCOMING_CREDIT and self.session.has(self):
            self._grant()

    @abstractmethod
    def arrived(self, first: Transfer, payload: bytes, size: int) -> None:
        """A whole message is here; `payload` is its first `head_bytes` if `size` (bytes) is over the limit."""

    def on_flow(self, flow: Flow) -> None:
        if flow.echo:
            self.session.send_flow(self, self.delivery_count, self.credit)


class Outbound(Link):
    """The client receives, we send: counts credit and cuts messages into transfers."""

    draining = False

    def reply(self) -> Attach:
        return Attach(
            name=self.name,
            handle=self.handle,
            role=SENDER,
            snd_settle_mode=self.attach.snd_settle_mode,
            rcv_settle_mode=self.attach.rcv_settle_mode,
            source=self.attach.source or Source(),  # as it came: some clients compare
            target=self.attach.target or Target(),
            initial_delivery_count=0,
            max_message_size=self.attach.max_message_size,
        )

    def transfer(self, tag: bytes | None, payload: bytes, settled: bool) -> int:
        """Sends one message, using up one credit; returns its delivery-id."""
        self.delivery_count = (self.delivery_count + 1) & MANY
        self.credit -= 1
        return self.session.send_message(self.handle, tag, payload, settled)

    def on_flow(self, flow: Flow) -> None:
        if flow.link_credit is not None:
            granted = (flow.delivery_count or 0) + flow.link_credit - self.delivery_count
            self.credit = max(0, granted if granted <= MANY else granted - MANY - 1)
        self.draining = flow.drain
        if not self.attached:
            return  # our attach comes first; what is granted meanwhile counts from then on
        if flow.link_credit is not None:
            self.credit_changed()
        self.end_drain()
        if flow.echo and not flow.drain:
            self.session.send_flow(self, self.delivery_count, self.credit)

    def end_drain(self) -> None:
        """Returns the credit that is left to a client that drains, once everything there is was sent."""
        if not self.draining or self.more_to_come():
            return
        self.draining = False
        self.delivery_count = (self.delivery_count + self.credit) & MANY
        self.credit = 0
        self.credit_changed()
        self.session.send_flow(self, self.delivery_count, self.credit, drain=True)

    def credit_changed(self) -> None:
        """`credit` was replaced: start to deliver what that allows."""

    def more_to_come(self) -> bool:
        """Whether there is credit for messages that are ready but were kept back for a moment."""
        return False


def refusing_attach(attach: Attach) -> Attach:
    """The answer to an attach that is about to be refused: the terminus on our side is null."""
    reply = Attach(
        name=attach.name,
        handle=attach.handle,
        role=not attach.role,
        snd_settle_mode=attach.snd_settle_mode,
        rcv_settle_mode=attach.rcv_settle_mode,
    )
    if attach.role == RECEIVER:
        reply.initial_delivery_count, reply.target = 0, attach.target
    else:
        reply.source = attach.source
    return reply
