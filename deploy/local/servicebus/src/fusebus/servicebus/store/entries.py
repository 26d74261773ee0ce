"""The bytes of the log: what happened to messages, one entry after the other in a block."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from fusebus.servicebus.amqp.decoding import decode
from fusebus.servicebus.amqp.encoding import encode
from fusebus.servicebus.amqp.sections import MESSAGE_ANNOTATIONS, sent_sections
from fusebus.servicebus.amqp.types import Symbol
from fusebus.servicebus.engine.messages import Message, MessageState
from fusebus.servicebus.engine.records import Record
from fusebus.servicebus.wire_messages import engine_message

STORED, REMOVED, NUMBERED = 1, 2, 3
HAS_EXTRAS, SAME_MESSAGE = 1, 2  # flags of STORED; the second: the message of the STORED before in this block

# kind, mailbox, number, original number, enqueued at, expires at, delivery count, state, hops, flags, message bytes
_STORED = struct.Struct("<BIqqddIBBBI")
_SHORT = struct.Struct("<BIq")  # REMOVED and NUMBERED: kind, mailbox, number
_SIZE = struct.Struct("<I")
_ANNOTATIONS = bytes((0x00, 0x53, MESSAGE_ANNOTATIONS))
MAX_HOPS: Final = 255  # more than the engine ever allows

stored_head = _STORED.pack
"""The usual STORED entry without its message, which follows: (STORED, mailbox, number, original number, enqueued at,
expires at, delivery count, state, hops, flags 0, bytes of the message)"""
short = _SHORT.pack
"""(REMOVED or NUMBERED, mailbox, number) -> entry"""


class DamagedBlock(ValueError):
    """A block ends in the middle of an entry or holds something else."""


@dataclass(slots=True)
class Stored:
    """A message as it lies in a mailbox, replacing what the log said of this number before."""

    mailbox: int
    number: int
    original_number: int
    enqueued_at: float
    expires_at: float
    delivery_count: int
    state: int
    hops: int
    message: bytes
    """Header, delivery annotations and annotations where the sender gave them, then the bare message."""
    extras: bytes
    """The encoded list of modified properties and dead-letter source; empty if there are none."""

    def record(self) -> Record:
        """What the engine makes of it; raises CodecError."""
        modified, source = decode(self.extras)[0] if self.extras else ({}, None)
        made = Record(
            engine_message(self.message),
            self.enqueued_at,
            self.expires_at,
            self.number,
            self.original_number,
            self.delivery_count,
            MessageState(self.state),
            dead_letter_source=source,
            hops=self.hops,
        )
        if modified:
            made.modified = modified
        return made

    def encoded(self) -> bytes:
        """The entry again, whole by itself."""
        return _stored(
            self.mailbox,
            self.number,
            self.original_number,
            self.enqueued_at,
            self.expires_at,
            self.delivery_count,
            self.state,
            self.hops,
            self.extras,
            self.message,
        )


@dataclass(slots=True)
class Removed:
    """The message is gone."""

    mailbox: int
    number: int


@dataclass(slots=True)
class Numbered:
    """All numbers up to `number` have been given out."""

    mailbox: int
    number: int


Entry: TypeAlias = Stored | Removed | Numbered


def stored(mailbox: int, record: Record, message: bytes | None) -> bytes:
    """A STORED entry; `message` None means that of the STORED before in the same block."""
    extras = b""
    if record.modified or record.dead_letter_source is not None:
        extras = encode([dict(record.modified), record.dead_letter_source])
    return _stored(
        mailbox,
        record.sequence_number,
        record.enqueued_sequence_number,
        record.enqueued_at,
        record.expires_at,
        record.delivery_count,
        record.state,
        record.hops,
        extras,
        message,
    )


def _stored(
    mailbox: int,
    number: int,
    original_number: int,
    enqueued_at: float,
    expires_at: float,
    delivery_count: int,
    state: int,
    hops: int,
    extras: bytes,
    message: bytes | None,
) -> bytes:
    flags, body = 0, message
    if message is None:
        flags, body = SAME_MESSAGE, b""
    assert body is not None
    if extras:
        flags |= HAS_EXTRAS
    head = _STORED.pack(
        STORED,
        mailbox,
        number,
        original_number,
        enqueued_at,
        expires_at,
        delivery_count,
        state,
        min(hops, MAX_HOPS),
        flags,
        len(body),
    )
    if extras:
        return b"".join((head, _SIZE.pack(len(extras)), extras, body))
    return head + body


def message_bytes(message: Message) -> bytes:
    """What `engine_message` makes the same message of again."""
    head = b""
    if message.ttl_seconds is not None or message.outer is not None:
        ttl = None if message.ttl_seconds is None else round(message.ttl_seconds * 1000)
        head = sent_sections(message.outer, ttl)
    if message.annotations:
        head += _ANNOTATIONS + encode({Symbol(key): value for key, value in message.annotations.items()})
    return head + message.raw if head else message.raw


def read(block: bytes) -> Iterator[Entry]:
    """The entries of a block in order; raises DamagedBlock at the first that is not whole."""
    position, message = 0, b""
    try:
        while position < len(block):
            kind = block[position]
            if kind == STORED:
                entry, position = _read_stored(block, position, message)
                message = entry.message
                yield entry
            elif kind in (REMOVED, NUMBERED):
                _, mailbox, number = _SHORT.unpack_from(block, position)
                position += _SHORT.size
                yield Removed(mailbox, number) if kind == REMOVED else Numbered(mailbox, number)
            else:
                raise DamagedBlock(f"no entry begins with {kind}")
    except struct.error as error:
        raise DamagedBlock(str(error)) from error


def _read_stored(block: bytes, position: int, before: bytes) -> tuple[Stored, int]:
    fields: list[Any]
    (_, *fields, flags, size) = _STORED.unpack_from(block, position)
    position += _STORED.size
    extras = b""
    if flags & HAS_EXTRAS:
        (length,) = _SIZE.unpack_from(block, position)
        extras = _exactly(block, position + _SIZE.size, length)
        position += _SIZE.size + length
    message = before if flags & SAME_MESSAGE else _exactly(block, position, size)
    return Stored(*fields, message, extras), position + size  # type: ignore[call-arg]


def _exactly(block: bytes, start: int, size: int) -> bytes:
    piece = block[start : start + size]
    if len(piece) != size:
        raise DamagedBlock("the block ends in the middle of an entry")
    return piece
