"""Python values that keep the AMQP type they were received with, and the codec's one error type."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

# Any: AMQP values are dynamically typed and nest; every use checks what it got.
Value: TypeAlias = Any


class CodecError(ValueError):
    """Bytes that are not AMQP, or a value that AMQP cannot carry. The only error the codec raises."""


class Symbol(str):
    """ASCII string from a constrained domain; equal to the plain string, so that lookups need no type."""

    __slots__ = ()


class Char(str):
    """One Unicode character."""

    __slots__ = ()


class UByte(int):
    """0 to 2^8-1."""


class UShort(int):
    """0 to 2^16-1."""


class UInt(int):
    """0 to 2^32-1."""


class ULong(int):
    """0 to 2^64-1."""


class Byte(int):
    """-2^7 to 2^7-1."""


class Short(int):
    """-2^15 to 2^15-1."""


class Int(int):
    """-2^31 to 2^31-1."""


class Long(int):
    """-2^63 to 2^63-1; a plain Python int is encoded as this."""


class Timestamp(int):
    """Milliseconds since the Unix epoch, UTC."""


class Float(float):
    """32-bit IEEE 754; a plain Python float is encoded as a 64-bit double."""


class Decimal(bytes):
    """IEEE 754 decimal of 4, 8 or 16 bytes, kept as it came: nothing here computes with it."""

    __slots__ = ()


class Encoded(bytes):
    """A value that is passed on as it came: its encoding, constructor and all."""

    __slots__ = ()


class Array(list[Any]):
    """Values of one AMQP type, which is that of the first element."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        super().__init__(items)


@dataclass(frozen=True, slots=True)
class Described:
    """A value with a descriptor that this package gives no meaning to."""

    descriptor: Value
    value: Value


NULL_BYTES = b"\x40"
