"""A thin AMQP client over a blocking socket: prepared frames, no checks; for load that an SDK cannot make."""

from __future__ import annotations

import socket
import struct
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from fusebus.servicebus.amqp.encoding import encode, encode_binary, encode_uint
from fusebus.servicebus.amqp.frames import AMQP_HEADER, SASL_FRAME, SASL_HEADER, Frame, build_frame, parse_frame
from fusebus.servicebus.amqp.performatives import Attach, Begin, Flow, Open, SaslInit, Source, Target
from fusebus.servicebus.amqp.sections import BATCH_FORMAT

WINDOW = 2**31 - 1
ACCEPTED = b"\x00\x53\x24\x45"
TRANSFER, DISPOSITION, FLOW = 0x14, 0x15, 0x13
_FRAME = struct.Struct(">IBBH")


def message(body: bytes, message_id: str | None = None, **properties: Any) -> bytes:
    """An encoded message with a data body; `properties` are application properties."""
    head = b"\x00\x53\x73" + encode([message_id or uuid.uuid4().hex])
    if properties:
        head += b"\x00\x53\x74" + encode(properties)
    return head + b"\x00\x53\x75" + encode_binary(body)


def envelope(messages: list[bytes]) -> bytes:
    """What a batch carries."""
    return b"".join(b"\x00\x53\x75" + encode_binary(one) for one in messages)


class RawClient:
    """One connection with one session (channel 1) and one link (handle 0). Needs a broker with --insecure."""

    def __init__(self, port: int, timeout: float = 10.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.next_id = 0
        self.credit = 0
        self._sent_count = 0
        init = build_frame(0, SaslInit(mechanism="ANONYMOUS").encoded(), kind=SASL_FRAME)
        self.socket.sendall(SASL_HEADER + init)
        self._header()
        self._frame(), self._frame()
        opened = Open(container_id="raw", max_frame_size=1 << 20)
        begin = Begin(next_outgoing_id=0, incoming_window=WINDOW, outgoing_window=WINDOW)
        self.socket.sendall(AMQP_HEADER + build_frame(0, opened.encoded()) + build_frame(1, begin.encoded()))
        self._header()
        self._frame(), self._frame()

    def close(self) -> None:
        """Without a goodbye."""
        self.socket.close()

    # --- attaching

    def attach_sender(self, address: str) -> None:
        """Raises ConnectionError if the broker refuses."""
        self._attach(Attach(name="s", handle=0, target=Target(address=address), initial_delivery_count=0))
        self._take_flow(self._frame())

    def attach_receiver(self, address: str, settled: bool = False) -> None:
        """`settled` receives and deletes. Raises ConnectionError if the broker refuses."""
        source, mode = Source(address=address), 1 if settled else 0
        self._attach(
            Attach(name="r", handle=0, role=True, snd_settle_mode=mode, source=source, target=Target(address="here"))
        )

    def grant(self, credit: int, delivery_count: int = 0) -> None:
        """Asks for messages."""
        flow = Flow(
            next_incoming_id=0,
            incoming_window=WINDOW,
            next_outgoing_id=0,
            outgoing_window=WINDOW,
            handle=0,
            delivery_count=delivery_count,
            link_credit=credit,
        )
        self.socket.sendall(build_frame(1, flow.encoded()))

    def _attach(self, attach: Attach) -> None:
        self.socket.sendall(build_frame(1, attach.encoded()))
        answer = self._frame().performative
        if not isinstance(answer, Attach) or (answer.source is None or answer.target is None):
            raise ConnectionError(f"refused: {self._frame().performative}")

    # --- sending

    def transfer(self, payload: bytes, batch: bool = False) -> bytes:
        """The frame of one unsettled transfer, with the next delivery-id."""
        number = encode_uint(self.next_id)
        tag = encode_binary(self.next_id.to_bytes(4, "big"))
        fields = b"\x43" + number + tag + encode_uint(BATCH_FORMAT if batch else 0) + b"\x42"
        head = b"\x00\x53\x14\xc0" + bytes((len(fields) + 1, 5)) + fields
        self.next_id += 1
        return _FRAME.pack(8 + len(head) + len(payload), 2, 0, 1) + head + payload

    def send(self, payload: bytes, batch: bool = False) -> None:
        """Sends one message and waits until it is accepted; raises Refused."""
        self.send_all([payload], batch=batch)

    def send_all(self, payloads: list[bytes], batch: bool = False, ahead: int = 400) -> None:
        """Sends all, up to `ahead` unanswered, and returns when all are answered; raises Refused for a refusal."""
        answered = 0
        for start in range(0, len(payloads), ahead // 2):
            piece = payloads[start : start + ahead // 2]
            while self.credit < len(piece) or start - answered > ahead:
                answered += self._answers()
            self.credit -= len(piece)
            self._sent_count += len(piece)
            self.socket.sendall(b"".join([self.transfer(payload, batch) for payload in piece]))
        while answered < len(payloads):
            answered += self._answers()

    def _answers(self) -> int:
        count = 0
        for code, frame in self.frames():
            if code == DISPOSITION:
                if ACCEPTED not in frame:
                    raise Refused(str(_parsed(frame).performative))
                count += 1
            elif code == FLOW:
                self._take_flow(_parsed(frame))
        return count

    def _take_flow(self, frame: Frame) -> None:
        flow = frame.performative
        assert isinstance(flow, Flow), flow
        if flow.handle is not None:
            self.credit = (flow.delivery_count or 0) + (flow.link_credit or 0) - self._sent_count

    # --- receiving

    def receive_all(self, count: int, on_payload: Callable[[bytes], None] | None = None, complete: bool = False) -> int:
        """Takes `count` messages that were granted; `complete` accepts each, and waits for the confirmations."""
        received = confirmed = 0
        while received < count or (complete and confirmed < count):
            answers: list[bytes] = []
            for code, frame in self.frames():
                if code == TRANSFER:
                    received += 1
                    if on_payload is not None:
                        on_payload(frame)
                    if complete:
                        answers.append(accept(_delivery_id(frame)))
                elif code == DISPOSITION:
                    confirmed += 1
            if answers:
                self.socket.sendall(b"".join(answers))
        return received

    def deliveries(self, count: int) -> Iterator[tuple[int, bytes]]:
        """(delivery-id, encoded message) of the next `count` deliveries; each must fit into one frame."""
        received = 0
        while received < count:
            for code, frame in self.frames():
                if code == TRANSFER:
                    received += 1
                    yield _delivery_id(frame), _parsed(frame).payload

    def accept(self, delivery_id: int) -> bytes:
        """The frame that completes one delivery."""
        return accept(delivery_id)

    def confirmed(self, count: int) -> None:
        """Waits for so many confirmations."""
        while count > 0:
            count -= sum(code == DISPOSITION for code, _ in self.frames())

    # --- frames

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """(performative's code, frame) of what the next read brings, at least one read."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the broker closed the connection")
        self.buffer += data
        buffer, position, end = bytes(self.buffer), 0, len(self.buffer)
        while end - position >= 8:
            size = int.from_bytes(buffer[position : position + 4], "big")
            if end - position < size:
                break
            if size > 8:
                yield buffer[position + 10], buffer[position : position + size]
            position += size
        self.buffer = bytearray(buffer[position:])

    def _header(self) -> None:
        while len(self.buffer) < 8:
            self._read()
        del self.buffer[:8]

    def _frame(self) -> Frame:
        while len(self.buffer) < 8 or len(self.buffer) < int.from_bytes(self.buffer[:4], "big"):
            self._read()
        size = int.from_bytes(self.buffer[:4], "big")
        frame = _parsed(bytes(self.buffer[:size]))
        del self.buffer[:size]
        return frame

    def _read(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the broker closed the connection")
        self.buffer += data


class Refused(Exception):
    """A message was not accepted."""


def _parsed(frame: bytes) -> Frame:
    _, offset, kind, channel = _FRAME.unpack_from(frame)
    return parse_frame(frame, offset * 4, kind, channel)


def _delivery_id(frame: bytes) -> int:
    """Of a transfer frame as the broker makes it: list8, handle, delivery-id, each as a uint of any length."""
    position = 8 + 3 + 3
    position += {0x43: 1, 0x52: 2, 0x70: 5}[frame[position]]
    constructor = frame[position]
    if constructor == 0x43:
        return 0
    if constructor == 0x52:
        return frame[position + 1]
    return int.from_bytes(frame[position + 1 : position + 5], "big")


def accept(delivery_id: int) -> bytes:
    """The frame that completes one delivery."""
    fields = b"\x41" + encode_uint(delivery_id) + b"\x40\x42" + ACCEPTED
    head = b"\x00\x53\x15\xc0" + bytes((len(fields) + 1, 5)) + fields
    return _FRAME.pack(8 + len(head), 2, 0, 1) + head
