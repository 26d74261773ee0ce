"""One AMQP session: its links, its delivery numbers and its transfer windows."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from fusebus.servicebus.amqp.encoding import encode_binary, encode_uint
from fusebus.servicebus.amqp.fields import Composite
from fusebus.servicebus.amqp.frames import build_frame
from fusebus.servicebus.amqp.performatives import (
    MANY,
    RECEIVER,
    SENDER,
    Attach,
    Begin,
    Detach,
    Disposition,
    End,
    Error,
    Flow,
    Rejected,
    Transfer,
)
from fusebus.servicebus.conditions import LOCK_LOST, NOT_ALLOWED, Refusal, error_of
from fusebus.servicebus.engine.errors import EngineError
from fusebus.servicebus.link import Inbound, Link, Outbound, refusing_attach

if TYPE_CHECKING:
    from fusebus.servicebus.connection import Connection

INCOMING_WINDOW = 2**31 - 1  # transfers; so large that a client never has to wait for it
OUTGOING_WINDOW = 2**31 - 1
MAX_LINKS = 1024  # per session; a client of the SDK has five
TRANSFER_OVERHEAD_BYTES = 128  # frame header and performative; more than they ever need
NO_FIELDS_AFTER_MORE = b"\x40" * 5
ACCEPTED = b"\x00\x53\x24\x45"
_SHORT_STATE_BYTES = len(ACCEPTED)
# The frame of a disposition with such a state: header, performative, a list of role, first and so on.
_SETTLED = struct.Struct(">IBBH 4sBB B BI BI B 4s B")
# That of a whole, unsettled transfer with a lock's tag: header, performative, a list of handle, delivery-id and so on.
_WHOLE = struct.Struct(">IBBH 4sBB BI BI BB16s BBB 5s")
_TAG_BYTES = 16
LOST = Rejected(error=Error(condition=LOCK_LOST, description="the lock is not held any longer")).encoded()


class Unsettled(Protocol):
    """Whoever waits for the client's word on a delivery."""

    def settle(self, delivery_id: int, disposition: Disposition) -> None:
        """The client said how the delivery ended."""


class Session:
    """Both directions of one channel."""

    def __init__(self, connection: Connection, channel: int, begin: Begin) -> None:
        self.connection = connection
        self.channel = channel
        self.unsettled: dict[int, Unsettled] = {}
        self._links: dict[int, Link] = {}
        self._next_delivery_id = 0
        self._next_outgoing_id = 0
        self._next_incoming_id = begin.next_outgoing_id
        self._remote_window = begin.incoming_window
        self._waiting: deque[bytes] = deque()  # transfer frames for which the client's window has no room
        self._handlers: dict[type[Composite], Callable[[Composite, bytes], None]] = {
            Attach: self._on_attach,
            Flow: self._on_flow,
            Transfer: self._on_transfer,
            Disposition: self._on_disposition,
            Detach: self._on_detach,
        }

    def begin(self) -> None:
        """Answers the client's begin."""
        self.send(
            Begin(
                remote_channel=self.channel,
                next_outgoing_id=0,
                incoming_window=INCOMING_WINDOW,
                outgoing_window=OUTGOING_WINDOW,
                handle_max=MAX_LINKS - 1,
            )
        )

    def links(self) -> list[Link]:
        """A copy of the attached links."""
        return list(self._links.values())

    def has(self, link: Link) -> bool:
        """Whether the link is still attached."""
        return self._links.get(link.handle) is link

    def drop(self, link: Link) -> None:
        """Forgets a link that ended."""
        if self.has(link):
            del self._links[link.handle]
            link.closed()

    def close(self) -> None:
        """The session ended, however: so do its links."""
        for link in self.links():
            self.drop(link)
        self.unsettled.clear()
        self.connection.hold(-sum(map(len, self._waiting)))
        self._waiting.clear()
        self._handlers.clear()  # which refer to this session: it shall go now

    def end(self, refusal: Refusal) -> None:
        """Ends the session from this side."""
        self.send(End(error=error_of(refusal)))
        self.connection.forget(self)

    # --- from the client

    def on_frame(self, performative: Composite, payload: bytes) -> None:
        """One frame for this session; raises Refusal if the client must be cut off."""
        self._handlers[type(performative)](performative, payload)

    def _on_attach(self, attach: Composite, payload: bytes) -> None:
        assert isinstance(attach, Attach)
        if attach.handle in self._links or len(self._links) >= MAX_LINKS:
            raise Refusal(NOT_ALLOWED, "that handle is in use, or there are too many links")
        try:
            link = self._links[attach.handle] = self.connection.open_link(self, attach)
            link.start()
        except (Refusal, EngineError) as error:
            self._links.pop(attach.handle, None)
            self._send_refusal(attach, error)

    def accept(self, link: Link) -> None:
        """Answers a link's attach."""
        link.attached = True
        self.send(link.reply())
        link.opened()

    def refuse(self, link: Link, error: Refusal | EngineError) -> None:
        """Answers an attach that waited with a refusal."""
        self.drop(link)
        self._send_refusal(link.attach, error)

    def _send_refusal(self, attach: Attach, error: Refusal | EngineError) -> None:
        self.send(refusing_attach(attach))
        self.send(Detach(handle=attach.handle, closed=True, error=error_of(error)))

    def _on_flow(self, flow: Composite, payload: bytes) -> None:
        assert isinstance(flow, Flow)
        base = flow.next_incoming_id or 0
        self._remote_window = (base + flow.incoming_window - self._next_outgoing_id) & MANY
        if self._remote_window > MANY // 2:  # more in flight than the client now has room for
            self._remote_window = 0
        if self._waiting:
            self._send_waiting()
            if not self._waiting:
                for waiting in self.links():
                    waiting.paused_changed()
        if flow.handle is not None:
            link = self._links.get(flow.handle)
            if link is not None:
                link.on_flow(flow)
        elif flow.echo:
            self.send(self._flow())

    def _on_transfer(self, transfer: Composite, payload: bytes) -> None:
        assert isinstance(transfer, Transfer)
        self._next_incoming_id = (self._next_incoming_id + 1) & MANY
        link = self._links.get(transfer.handle)
        if link is not None:  # a refused or detached link's last transfers may still be on their way
            link.on_transfer(transfer, payload)

    def _on_disposition(self, disposition: Composite, payload: bytes) -> None:
        assert isinstance(disposition, Disposition)
        if disposition.role != RECEIVER:
            return  # about messages that the client sent: they are settled by our own disposition
        first = disposition.first
        last = first if disposition.last is None else disposition.last
        if first == last and (single := self.unsettled.get(first)) is not None:
            single.settle(first, disposition)
            return
        if last - first < len(self.unsettled):
            ids = [number for number in range(first, last + 1) if number in self.unsettled]
        else:
            ids = [number for number in self.unsettled if first <= number <= last]
        for number in ids:
            owner = self.unsettled.get(number)
            if owner is not None:
                owner.settle(number, disposition)
        if not ids and first == last and not disposition.settled and first < self._next_delivery_id:
            self.send_disposition(SENDER, first, LOST)  # one that its receiver could not keep any longer

    def _on_detach(self, detach: Composite, payload: bytes) -> None:
        assert isinstance(detach, Detach)
        link = self._links.get(detach.handle)
        if link is not None:
            self.drop(link)
            if not link.attached:
                self.send(refusing_attach(link.attach))
            self.send(Detach(handle=detach.handle, closed=detach.closed))

    # --- to the client

    def send(self, performative: Composite) -> None:
        """Sends a performative that carries no message."""
        self.connection.write(build_frame(self.channel, performative.encoded()))

    def _flow(self) -> Flow:
        return Flow(
            next_incoming_id=self._next_incoming_id,
            incoming_window=INCOMING_WINDOW,
            next_outgoing_id=self._next_outgoing_id,
            outgoing_window=OUTGOING_WINDOW,
        )

    def send_flow(self, link: Inbound | Outbound, delivery_count: int, credit: int, drain: bool = False) -> None:
        """Sends a link's state."""
        flow = self._flow()
        flow.handle, flow.delivery_count, flow.link_credit, flow.drain = link.handle, delivery_count, credit, drain
        self.send(flow)

    def send_message(self, handle: int, tag: bytes | None, payload: bytes, settled: bool) -> int:
        """Cuts a message into transfers no larger than the client's frames; returns its delivery-id."""
        delivery_id = self._next_delivery_id
        self._next_delivery_id = (delivery_id + 1) & MANY
        room, size = self.connection.remote_max_frame - TRANSFER_OVERHEAD_BYTES, len(payload)
        if size <= room and not settled and tag is not None and len(tag) == _TAG_BYTES:  # nearly always
            self._send_transfer(self._whole_transfer(handle, delivery_id, tag, size) + payload)
            return delivery_id
        start = b"".join(
            (
                encode_uint(handle),
                encode_uint(delivery_id),
                b"\x40" if tag is None else encode_binary(tag),
                b"\x43",  # message-format 0
                b"\x41" if settled else b"\x42",
            )
        )
        for offset in range(0, size, room) or (0,):
            more = offset + room < size
            piece = payload if size <= room else payload[offset : offset + room]
            fields = b"".join((start, b"\x41" if more else b"\x42", NO_FIELDS_AFTER_MORE))
            head = b"\x00\x53\x14\xc0" + bytes((len(fields) + 1, 11)) + fields
            self._send_transfer(build_frame(self.channel, head, piece))
        return delivery_id

    def _whole_transfer(self, handle: int, delivery_id: int, tag: bytes, size: int) -> bytes:
        return _WHOLE.pack(
            _WHOLE.size + size,
            2,
            0,
            self.channel,
            b"\x00\x53\x14\xc0",
            _WHOLE.size - 13,
            11,
            0x70,
            handle,
            0x70,
            delivery_id,
            0xA0,
            _TAG_BYTES,
            tag,
            0x43,  # message-format 0
            0x42,  # not settled
            0x42,  # no more
            NO_FIELDS_AFTER_MORE,
        )

    def _send_transfer(self, frame: bytes) -> None:
        if self._remote_window <= 0 or self._waiting:
            self._waiting.append(frame)
            self.connection.hold(len(frame))
            return
        self._remote_window -= 1
        self._next_outgoing_id = (self._next_outgoing_id + 1) & MANY
        self.connection.write(frame)

    def _send_waiting(self) -> None:
        while self._waiting and self._remote_window > 0:
            self._remote_window -= 1
            self._next_outgoing_id = (self._next_outgoing_id + 1) & MANY
            frame = self._waiting.popleft()
            self.connection.hold(-len(frame))
            self.connection.write(frame)

    @property
    def stalled(self) -> bool:
        """Whether the client's window keeps transfers back."""
        return bool(self._waiting)

    def send_disposition(self, role: bool, delivery_id: int, state: bytes) -> None:
        """Settles one delivery; never a range, over which the Python SDK stumbles for 0.2 s."""
        if len(state) == _SHORT_STATE_BYTES:
            self.connection.write(
                _SETTLED.pack(
                    _SETTLED.size,
                    2,
                    0,
                    self.channel,
                    b"\x00\x53\x15\xc0",
                    _SETTLED.size - 13,
                    6,
                    0x41 if role else 0x42,
                    0x70,
                    delivery_id,
                    0x70,
                    delivery_id,
                    0x41,
                    state,
                    0x40,
                )
            )
            return
        number = encode_uint(delivery_id)
        fields = b"".join((b"\x41" if role else b"\x42", number, number, b"\x41", state, b"\x40"))
        if len(fields) < 255:
            head = b"\x00\x53\x15\xc0" + bytes((len(fields) + 1, 6))
        else:
            head = b"\x00\x53\x15\xd0" + (len(fields) + 4).to_bytes(4, "big") + (6).to_bytes(4, "big")
        self.connection.write(build_frame(self.channel, head + fields))
