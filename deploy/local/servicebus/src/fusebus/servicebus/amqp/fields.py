"""Composite types as lists of typed fields: one table per type both encodes and validates it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from fusebus.servicebus.amqp.decoding import decode
from fusebus.servicebus.amqp.encoding import (
    encode,
    encode_binary,
    encode_boolean,
    encode_list,
    encode_string,
    encode_symbol,
    encode_uint,
)
from fusebus.servicebus.amqp.types import NULL_BYTES, CodecError, Described, UByte, UInt, ULong, UShort


@dataclass(frozen=True, slots=True)
class Kind:
    """How a field is written, and what Python types it may have when read."""

    encode: Callable[[Any], bytes]
    accepts: type | tuple[type, ...]
    wrap: Callable[[Any], Any] | None = None


UINT = Kind(encode_uint, UInt)
USHORT = Kind(lambda v: encode(UShort(v)), UShort)
UBYTE = Kind(lambda v: encode(UByte(v)), UByte)
ULONG = Kind(lambda v: encode(ULong(v)), ULong)
BOOLEAN = Kind(encode_boolean, bool)
STRING = Kind(encode_string, str)
SYMBOL = Kind(encode_symbol, str)
SYMBOLS = Kind(encode, (str, list))  # `multiple`: one symbol or an array of them
BINARY = Kind(encode_binary, bytes)
MAP = Kind(encode, dict)
ANY = Kind(encode, object)


class Composite:
    """A described list whose dataclass fields, in order, are the fields on the wire.

    Absent trailing fields keep their defaults; unknown trailing fields are ignored.
    """

    __slots__ = ()
    CODE: ClassVar[int]
    KINDS: ClassVar[tuple[Kind, ...]]
    NAMES: ClassVar[tuple[str, ...]]
    MANDATORY: ClassVar[int] = 0  # how many of the first fields must not be null

    @classmethod
    def from_list(cls, values: list[Any]) -> Self:
        """The composite from its decoded list; raises CodecError on a field of another type."""
        if len(values) < cls.MANDATORY:
            raise CodecError(f"{cls.__name__} has {len(values)} fields, needs {cls.MANDATORY}")
        named = {}
        for index, (value, name, kind) in enumerate(zip(values, cls.NAMES, cls.KINDS, strict=False)):
            if value is None:
                if index < cls.MANDATORY:
                    raise CodecError(f"{cls.__name__}.{name} is missing")
                continue
            if not isinstance(value, kind.accepts):
                raise CodecError(f"{cls.__name__}.{name} is not of its type")
            named[name] = value if kind.wrap is None else kind.wrap(value)
        return cls(**named)

    def encoded(self) -> bytes:
        """The described list; every field is written, because some clients index them blindly."""
        parts = []
        for name, kind in zip(self.NAMES, self.KINDS, strict=True):
            value = getattr(self, name)
            parts.append(NULL_BYTES if value is None else kind.encode(value))
        return b"\x00\x53" + bytes((self.CODE,)) + encode_list(parts)


def encode_composite(value: Any) -> bytes:
    """Bytes of a nested composite."""
    if isinstance(value, Composite):
        return value.encoded()
    return encode(value)


def described_list(value: Any) -> tuple[int, list[Any]]:
    """(descriptor code, fields) of a decoded described list; raises CodecError if it is not one."""
    if not isinstance(value, Described) or not isinstance(value.value, list):
        raise CodecError("not a described list")
    if not isinstance(value.descriptor, ULong):
        raise CodecError("descriptors must be numeric")
    return int(value.descriptor), value.value


def wrap_as(*kinds: type[Composite]) -> Callable[[Any], Any]:
    """Turns a Described into the one of `kinds` that has its code; others stay as they are."""
    by_code = {kind.CODE: kind for kind in kinds}

    def wrap(value: Any) -> Any:
        code, fields = described_list(value)
        kind = by_code.get(code)
        return value if kind is None else kind.from_list(fields)

    return wrap


def decode_composite(data: bytes, position: int, kinds: dict[int, type[Composite]]) -> tuple[Composite, int]:
    """The composite at `position` and the position after it; raises CodecError on an unknown code."""
    value, position = decode(data, position)
    code, fields = described_list(value)
    kind = kinds.get(code)
    if kind is None:
        raise CodecError(f"unexpected performative 0x{code:02x}")
    return kind.from_list(fields), position
