"""Splits a byte stream into AMQP frames and builds frames; bounded by a maximum frame size."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from fusebus.servicebus.amqp.fields import Composite, decode_composite
from fusebus.servicebus.amqp.performatives import PERFORMATIVES, SASL
from fusebus.servicebus.amqp.quick import quick_performative
from fusebus.servicebus.amqp.types import CodecError

AMQP_HEADER = b"AMQP\x00\x01\x00\x00"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"
HEADER_BYTES = 8
AMQP_FRAME, SASL_FRAME = 0, 1
# What this broker announces and accepts, in bytes; the service announces the same.
MAX_FRAME_BYTES = 1 << 20
# Before open, only small frames are legal (AMQP 1.0, 2.4.1: 512); open itself may carry long properties.
MAX_FIRST_FRAME_BYTES = 1 << 16
_HEADER = struct.Struct(">IBBH")


@dataclass(slots=True)
class Frame:
    """One frame; `performative` is None for an empty frame, which is a heartbeat."""

    kind: int
    channel: int
    performative: Composite | None
    payload: bytes


def build_frame(channel: int, performative: bytes, payload: bytes = b"", kind: int = AMQP_FRAME) -> bytes:
    """A frame from an encoded performative."""
    return b"".join((_HEADER.pack(8 + len(performative) + len(payload), 2, kind, channel), performative, payload))


EMPTY_FRAME = build_frame(0, b"")


class FrameReader:
    """Cuts whatever arrives into protocol headers and frames.

    Bytes are kept only up to the maximum frame size, which `limit` sets (bytes). What arrives is read where it lies;
    only the beginning of what has not arrived completely is copied.
    """

    def __init__(self, limit: int = MAX_FIRST_FRAME_BYTES) -> None:
        self.limit = limit
        self.more = False
        """Whether something is left that `next_frame` has not looked at; it may still be only a part of a frame."""
        self._data = b""
        self._position = 0
        self._beginning = bytearray()
        self._needed = 0  # bytes, with those of the beginning

    def feed(self, data: bytes) -> None:
        """Adds received bytes."""
        if self._beginning:
            self._beginning += data
            if len(self._beginning) < self._needed:
                return
            data = bytes(self._beginning)
            self._beginning = bytearray()
        elif self._position < len(self._data):
            data = self._data[self._position :] + data
        self._data, self._position, self.more = data, 0, True

    def _wait_for(self, size: int) -> None:
        """Nothing more can be done before that many bytes are there."""
        self.more = False
        if not self._beginning:  # else that is known already
            self._beginning += self._data[self._position :]
            self._data, self._position, self._needed = b"", 0, size

    def next_protocol_header(self) -> bytes | None:
        """The next 8 bytes, or None until they have arrived."""
        start = self._position
        header = self._data[start : start + HEADER_BYTES]
        if len(header) < HEADER_BYTES:
            self._wait_for(HEADER_BYTES)
            return None
        self._position = start + HEADER_BYTES
        return header

    def next_frame(self) -> Frame | None:
        """The next frame, or None until it has arrived; raises CodecError."""
        data, start = self._data, self._position
        if len(data) - start < HEADER_BYTES:
            self._wait_for(HEADER_BYTES)
            return None
        size, offset, kind, channel = _HEADER.unpack_from(data, start)
        if not HEADER_BYTES <= size <= self.limit:
            raise CodecError(f"frame of {size} bytes; between {HEADER_BYTES} and {self.limit} are allowed")
        end = start + size
        if len(data) < end:
            self._wait_for(size)
            return None
        self._position, self.more = end, end < len(data)
        if offset == 2 and kind == AMQP_FRAME and (found := quick_performative(data, start + 8, end)) is not None:
            return Frame(kind, channel, found[0], data[found[1] : end])
        return parse_frame(data[start:end], offset * 4, kind, channel)


def parse_frame(body: bytes, start: int, kind: int, channel: int) -> Frame:
    """The frame whose performative begins at `start`; raises CodecError."""
    if start < HEADER_BYTES or start > len(body) or kind not in (AMQP_FRAME, SASL_FRAME):
        raise CodecError("malformed frame header")
    if start == len(body):
        return Frame(kind, channel, None, b"")
    kinds = SASL if kind == SASL_FRAME else PERFORMATIVES
    performative, end = decode_composite(body, start, kinds)
    return Frame(kind, channel, performative, body[end:])
