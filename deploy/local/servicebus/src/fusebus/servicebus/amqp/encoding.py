"""Encodes Python values as AMQP 1.0 values, choosing the shortest constructor."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from typing import Any

from fusebus.servicebus.amqp.types import (
    NULL_BYTES,
    Array,
    Byte,
    Char,
    CodecError,
    Decimal,
    Described,
    Encoded,
    Float,
    Int,
    Long,
    Short,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
    Value,
)

Encoder = Callable[[Any], bytes]

_U16 = struct.Struct(">H").pack
_U32 = struct.Struct(">I").pack
_U64 = struct.Struct(">Q").pack
_I8 = struct.Struct(">b").pack
_I16 = struct.Struct(">h").pack
_I32 = struct.Struct(">i").pack
_I64 = struct.Struct(">q").pack
_F32 = struct.Struct(">f").pack
_F64 = struct.Struct(">d").pack
_SMALL_UINT = tuple(b"\x43" if n == 0 else bytes((0x52, n)) for n in range(256))
_SMALL_ULONG = tuple(b"\x44" if n == 0 else bytes((0x53, n)) for n in range(256))
# Deep enough for any message, shallow enough that nesting never reaches Python's recursion limit.
MAX_DEPTH = 32


def encode(value: Value) -> bytes:
    """The AMQP encoding of `value`; raises CodecError if its type or size has none."""
    try:
        return _encode(value, 0)
    except (struct.error, OverflowError, UnicodeEncodeError) as error:
        raise CodecError(f"value out of range for its AMQP type: {error}") from error


def encode_uint(value: int) -> bytes:
    """An AMQP uint."""
    return _SMALL_UINT[value] if 0 <= value < 256 else b"\x70" + _U32(value)


def encode_ulong(value: int) -> bytes:
    """An AMQP ulong."""
    return _SMALL_ULONG[value] if 0 <= value < 256 else b"\x80" + _U64(value)


def encode_long(value: int) -> bytes:
    """An AMQP long."""
    return b"\x55" + _I8(value) if -128 <= value < 128 else b"\x81" + _I64(value)


def encode_int(value: int) -> bytes:
    """An AMQP int."""
    return b"\x54" + _I8(value) if -128 <= value < 128 else b"\x71" + _I32(value)


def encode_timestamp(value: int) -> bytes:
    """An AMQP timestamp from milliseconds since the Unix epoch."""
    return b"\x83" + _I64(value)


def encode_boolean(value: bool) -> bytes:
    """An AMQP boolean."""
    return b"\x41" if value else b"\x42"


def _variable(small: int, large: int, data: bytes) -> bytes:
    size = len(data)
    return bytes((small, size)) + data if size < 256 else bytes((large,)) + _U32(size) + data


def encode_binary(value: bytes | bytearray | memoryview) -> bytes:
    """An AMQP binary."""
    return _variable(0xA0, 0xB0, bytes(value))


def encode_string(value: str) -> bytes:
    """An AMQP string."""
    return _variable(0xA1, 0xB1, value.encode("utf-8"))


def encode_symbol(value: str) -> bytes:
    """An AMQP symbol."""
    return _variable(0xA3, 0xB3, value.encode("ascii"))


def encode_list(items: list[bytes]) -> bytes:
    """An AMQP list from items that are already encoded."""
    if not items:
        return b"\x45"
    return _compound(0xC0, 0xD0, len(items), b"".join(items))


def encode_map(pairs: list[bytes]) -> bytes:
    """An AMQP map from keys and values, in turn, that are already encoded."""
    return _compound(0xC1, 0xD1, len(pairs), b"".join(pairs))


def encode_map_body(count: int, body: bytes) -> bytes:
    """An AMQP map from its encoded entries, `count` keys and values in all."""
    return _compound(0xC1, 0xD1, count, body)


def _compound(small: int, large: int, count: int, body: bytes) -> bytes:
    size = len(body)
    if size < 255 and count < 256:
        return bytes((small, size + 1, count)) + body
    return bytes((large,)) + _U32(size + 4) + _U32(count) + body


def _deeper(depth: int) -> int:
    if depth >= MAX_DEPTH:
        raise CodecError(f"nested deeper than {MAX_DEPTH} levels")
    return depth + 1


def _encode_sequence(value: Any, depth: int) -> bytes:
    inner = _deeper(depth)
    return encode_list([_encode(item, inner) for item in value])


def _encode_dict(value: dict[Any, Any], depth: int) -> bytes:
    inner = _deeper(depth)
    return encode_map([_encode(part, inner) for pair in value.items() for part in pair])


def _encode_described(value: Described, depth: int) -> bytes:
    inner = _deeper(depth)
    return b"\x00" + _encode(value.descriptor, inner) + _encode(value.value, inner)


def _encode_decimal(value: Decimal) -> bytes:
    constructor = {4: b"\x74", 8: b"\x84", 16: b"\x94"}.get(len(value))
    if constructor is None:
        raise CodecError(f"a decimal has 4, 8 or 16 bytes, not {len(value)}")
    return constructor + value


def _char(value: str) -> bytes:
    if len(value) != 1:
        raise CodecError("a char is one character")
    return _U32(ord(value))


def _sized(data: bytes) -> bytes:
    return _U32(len(data)) + data


def _wide_compound(encoded: bytes) -> bytes:
    """The body of a list or map as its 32-bit constructor wants it, from any encoding of it."""
    if encoded[0] == 0x45:
        return _U32(4) + _U32(0)
    if encoded[0] in (0xC0, 0xC1):
        return _U32(encoded[1] + 3) + _U32(encoded[2]) + encoded[3:]
    return encoded[1:]


# The one wide constructor that all elements of an array share, and the encoder of one element's body.
_ARRAY_ELEMENT: dict[type, tuple[bytes, Encoder]] = {
    type(None): (b"\x40", lambda _: b""),
    bool: (b"\x56", lambda v: b"\x01" if v else b"\x00"),
    UByte: (b"\x50", lambda v: bytes((v,))),
    UShort: (b"\x60", _U16),
    UInt: (b"\x70", _U32),
    ULong: (b"\x80", _U64),
    Byte: (b"\x51", _I8),
    Short: (b"\x61", _I16),
    Int: (b"\x71", _I32),
    Long: (b"\x81", _I64),
    int: (b"\x81", _I64),
    Timestamp: (b"\x83", _I64),
    Float: (b"\x72", _F32),
    float: (b"\x82", _F64),
    Char: (b"\x73", _char),
    uuid.UUID: (b"\x98", lambda v: v.bytes),
    bytes: (b"\xb0", _sized),
    str: (b"\xb1", lambda v: _sized(v.encode("utf-8"))),
    Symbol: (b"\xb3", lambda v: _sized(v.encode("ascii"))),
}


def _encode_array(value: Array, depth: int) -> bytes:
    inner = _deeper(depth)
    kind = type(value[0]) if value else type(None)
    if any(type(item) is not kind for item in value):
        raise CodecError("an array holds values of one type")
    if kind in _ARRAY_ELEMENT:
        constructor, element = _ARRAY_ELEMENT[kind]
        parts = [element(item) for item in value]
    else:
        constructor, parts = _compound_elements(value, kind, inner)
    return _compound(0xE0, 0xF0, len(parts), constructor + b"".join(parts))


def _compound_elements(value: Array, kind: type, depth: int) -> tuple[bytes, list[bytes]]:
    if kind in (list, dict):
        constructor = b"\xd0" if kind is list else b"\xd1"
        return constructor, [_wide_compound(_encode(item, depth)) for item in value]
    if kind is Array:
        return b"\xf0", [_wide_array(_encode(item, depth)) for item in value]
    if kind is Decimal and len({len(item) for item in value}) == 1:
        return _encode(value[0], depth)[:1], [bytes(item) for item in value]
    raise CodecError(f"arrays of {kind.__name__} are not supported")


def _wide_array(encoded: bytes) -> bytes:
    if encoded[0] == 0xF0:
        return encoded[1:]
    return _U32(encoded[1] + 3) + _U32(encoded[2]) + encoded[3:]


_ENCODERS: dict[type, Encoder] = {
    type(None): lambda _: NULL_BYTES,
    bool: encode_boolean,
    UByte: lambda v: b"\x50" + bytes((v,)),
    UShort: lambda v: b"\x60" + _U16(v),
    UInt: encode_uint,
    ULong: encode_ulong,
    Byte: lambda v: b"\x51" + _I8(v),
    Short: lambda v: b"\x61" + _I16(v),
    Int: encode_int,
    Long: encode_long,
    int: encode_long,
    Timestamp: encode_timestamp,
    Float: lambda v: b"\x72" + _F32(v),
    float: lambda v: b"\x82" + _F64(v),
    Char: lambda v: b"\x73" + _char(v),
    uuid.UUID: lambda v: b"\x98" + v.bytes,
    bytes: encode_binary,
    bytearray: encode_binary,
    memoryview: encode_binary,
    str: encode_string,
    Symbol: encode_symbol,
    Decimal: _encode_decimal,
    Encoded: bytes,
}

_NESTED: dict[type, Callable[[Any, int], bytes]] = {
    list: _encode_sequence,
    tuple: _encode_sequence,
    dict: _encode_dict,
    Array: _encode_array,
    Described: _encode_described,
}


def _encode(value: Value, depth: int) -> bytes:
    kind = type(value)
    encoder = _ENCODERS.get(kind)
    if encoder is not None:
        try:
            return encoder(value)
        except ValueError as error:  # bytes((300,)); UnicodeEncodeError is one, too
            raise CodecError(f"{kind.__name__} out of range: {error}") from error
    nested = _NESTED.get(kind)
    if nested is None:
        raise CodecError(f"AMQP has no type for {kind.__name__}")
    return nested(value, depth)
