"""Decodes AMQP 1.0 values out of untrusted bytes: bounded in depth and memory, with one error type."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from fusebus.servicebus.amqp.encoding import MAX_DEPTH
from fusebus.servicebus.amqp.types import (
    Array,
    Byte,
    Char,
    CodecError,
    Decimal,
    Described,
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

# (bytes, position after the constructor, depth) -> (value, position after the value)
Decoder = Callable[[bytes, int, int], tuple[Any, int]]

_U16 = struct.Struct(">H").unpack_from
_U32 = struct.Struct(">I").unpack_from
_U64 = struct.Struct(">Q").unpack_from
_I8 = struct.Struct(">b").unpack_from
_I16 = struct.Struct(">h").unpack_from
_I32 = struct.Struct(">i").unpack_from
_I64 = struct.Struct(">q").unpack_from
_F32 = struct.Struct(">f").unpack_from
_F64 = struct.Struct(">d").unpack_from
# An array of nulls needs no bytes per element, so its count must have a bound of its own.
MAX_EMPTY_ELEMENTS = 16
_SMALL_UINTS = tuple(UInt(n) for n in range(256))
_SMALL_ULONGS = tuple(ULong(n) for n in range(256))
_MALFORMED = (IndexError, struct.error, UnicodeDecodeError, TypeError, ValueError, OverflowError)


def decode(data: bytes, position: int = 0) -> tuple[Value, int]:
    """The value at `position` and the position after it; raises CodecError."""
    try:
        return _decode(data, position, 0)
    except CodecError:
        raise
    except _MALFORMED as error:
        raise CodecError(f"malformed AMQP value: {error}") from error


def decode_exactly(data: bytes) -> Value:
    """The one value that `data` is; raises CodecError, also if bytes are left over."""
    value, position = decode(data)
    if position != len(data):
        raise CodecError("bytes after the value")
    return value


def skip(data: bytes, position: int) -> int:
    """The position after the value at `position`, without decoding it; raises CodecError."""
    try:
        end = _skip(data, position, 0)
    except (IndexError, struct.error) as error:
        raise CodecError(f"malformed AMQP value: {error}") from error
    if end > len(data):
        raise CodecError("value reaches past the end")
    return end


def map_entries(data: bytes, position: int) -> Iterator[tuple[Value, int, int]]:
    """(key, position of the value, its end) of each entry of the map at `position`; raises CodecError."""
    constructor = data[position] if position < len(data) else -1
    if constructor == 0x40:
        return
    if constructor not in (0xC1, 0xD1):
        raise CodecError("a section that should be a map is not")
    try:
        count, position, end = _bounds(data, position + 1, 0, constructor == 0xD1)
        if count % 2:
            raise CodecError("a map has as many values as keys")
        for _ in range(count // 2):
            key, position = _decode(data, position, 1)
            hash(key)  # a described key may hold a list: malformed, as in any map
            start, position = position, _skip(data, position, 1)
            yield key, start, position
    except _MALFORMED as error:
        raise CodecError(f"malformed AMQP map: {error}") from error
    if position != end:
        raise CodecError("map's size and contents differ")


def _skip(data: bytes, position: int, depth: int) -> int:
    constructor = data[position]
    position += 1
    if constructor == 0:
        if depth >= MAX_DEPTH:
            raise CodecError(f"nested deeper than {MAX_DEPTH} levels")
        return _skip(data, _skip(data, position, depth + 1), depth + 1)
    width = constructor >> 4
    if width in (0xA, 0xC, 0xE):
        return position + 1 + data[position]
    if width in (0xB, 0xD, 0xF):
        return position + 4 + int(_U32(data, position)[0])
    if width not in _FIXED_WIDTHS:
        raise CodecError(f"unknown constructor 0x{constructor:02x}")
    return position + _FIXED_WIDTHS[width]


_FIXED_WIDTHS = {4: 0, 5: 1, 6: 2, 7: 4, 8: 8, 9: 16}


def _decode(data: bytes, position: int, depth: int) -> tuple[Value, int]:
    decoder = _DECODERS[data[position]]
    if decoder is None:
        raise CodecError(f"unknown constructor 0x{data[position]:02x}")
    return decoder(data, position + 1, depth)


def _constant(value: Any) -> Decoder:
    return lambda data, position, depth: (value, position)


def _number(unpack: Callable[[bytes, int], tuple[Any, ...]], kind: Callable[[Any], Any], width: int) -> Decoder:
    return lambda data, position, depth: (kind(unpack(data, position)[0]), position + width)


def _boolean(data: bytes, position: int, depth: int) -> tuple[bool, int]:
    byte = data[position]
    if byte > 1:
        raise CodecError("a boolean is 0 or 1")
    return byte == 1, position + 1


def _small_uint(data: bytes, position: int, depth: int) -> tuple[UInt, int]:
    return _SMALL_UINTS[data[position]], position + 1


def _small_ulong(data: bytes, position: int, depth: int) -> tuple[ULong, int]:
    return _SMALL_ULONGS[data[position]], position + 1


def _fixed(kind: Callable[[bytes], Any], width: int) -> Decoder:
    def decode_fixed(data: bytes, position: int, depth: int) -> tuple[Any, int]:
        end = position + width
        if end > len(data):
            raise CodecError("value reaches past the end")
        return kind(data[position:end]), end

    return decode_fixed


def _uuid(raw: bytes) -> uuid.UUID:
    return uuid.UUID(bytes=raw)


def _utf8(raw: bytes) -> str:
    return raw.decode("utf-8")


def _symbol(raw: bytes) -> Symbol:
    return Symbol(raw.decode("ascii"))


def _char(code: int) -> Char:
    return Char(chr(code))


def _variable(kind: Callable[[bytes], Any], large: bool) -> Decoder:
    def decode_variable(data: bytes, position: int, depth: int) -> tuple[Any, int]:
        if large:
            size, position = _U32(data, position)[0], position + 4
        else:
            size, position = data[position], position + 1
        end = position + size
        if end > len(data):
            raise CodecError("value reaches past the end")
        return kind(data[position:end]), end

    return decode_variable


def _bounds(data: bytes, position: int, depth: int, large: bool) -> tuple[int, int, int]:
    """(count, position of the first element, end) of a compound, all inside the data."""
    if depth >= MAX_DEPTH:
        raise CodecError(f"nested deeper than {MAX_DEPTH} levels")
    if large:
        size, count = _U32(data, position)[0], _U32(data, position + 4)[0]
        end, position = position + 4 + size, position + 8
    else:
        size, count = data[position], data[position + 1]
        end, position = position + 1 + size, position + 2
    if end > len(data) or end < position:
        raise CodecError("compound reaches past the end")
    return count, position, end


def _items(data: bytes, position: int, depth: int, large: bool) -> tuple[list[Any], int]:
    count, position, end = _bounds(data, position, depth, large)
    if count > end - position:
        raise CodecError(f"{count} elements do not fit into {end - position} bytes")
    items = []
    decoders = _DECODERS
    for _ in range(count):
        decoder = decoders[data[position]]
        if decoder is None:
            raise CodecError(f"unknown constructor 0x{data[position]:02x}")
        value, position = decoder(data, position + 1, depth + 1)
        items.append(value)
    if position != end:
        raise CodecError("compound's size and contents differ")
    return items, end


def _list(large: bool) -> Decoder:
    return lambda data, position, depth: _items(data, position, depth, large)


def _empty_list(data: bytes, position: int, depth: int) -> tuple[list[Any], int]:
    return [], position


def _map(large: bool) -> Decoder:
    def decode_map(data: bytes, position: int, depth: int) -> tuple[dict[Any, Any], int]:
        items, end = _items(data, position, depth, large)
        if len(items) % 2:
            raise CodecError("a map has as many values as keys")
        return dict(zip(items[::2], items[1::2], strict=True)), end

    return decode_map


def _array(large: bool) -> Decoder:
    def decode_array(data: bytes, position: int, depth: int) -> tuple[Array, int]:
        count, position, end = _bounds(data, position, depth, large)
        if count == 0:
            return Array(), end
        descriptor, position = _array_descriptor(data, position, depth)
        decoder = _DECODERS[data[position]]
        position += 1
        if decoder is None or count > max(end - position, MAX_EMPTY_ELEMENTS):
            raise CodecError("malformed array")
        items = Array()
        for _ in range(count):
            value, position = decoder(data, position, depth + 1)
            items.append(value if descriptor is None else Described(descriptor[0], value))
        if position != end:
            raise CodecError("array's size and contents differ")
        return items, end

    return decode_array


def _array_descriptor(data: bytes, position: int, depth: int) -> tuple[tuple[Any] | None, int]:
    if data[position] != 0:
        return None, position
    descriptor, position = _decode(data, position + 1, depth + 1)
    return (descriptor,), position


def _described(data: bytes, position: int, depth: int) -> tuple[Described, int]:
    if depth >= MAX_DEPTH:
        raise CodecError(f"nested deeper than {MAX_DEPTH} levels")
    descriptor, position = _decode(data, position, depth + 1)
    value, position = _decode(data, position, depth + 1)
    return Described(descriptor, value), position


_DECODERS: list[Decoder | None] = [None] * 256
for _constructor, _decoder in {
    0x00: _described,
    0x40: _constant(None),
    0x41: _constant(True),
    0x42: _constant(False),
    0x43: _constant(UInt(0)),
    0x44: _constant(ULong(0)),
    0x45: _empty_list,
    0x50: _number(struct.Struct(">B").unpack_from, UByte, 1),
    0x51: _number(_I8, Byte, 1),
    0x52: _small_uint,
    0x53: _small_ulong,
    0x54: _number(_I8, Int, 1),
    0x55: _number(_I8, Long, 1),
    0x56: _boolean,
    0x60: _number(_U16, UShort, 2),
    0x61: _number(_I16, Short, 2),
    0x70: _number(_U32, UInt, 4),
    0x71: _number(_I32, Int, 4),
    0x72: _number(_F32, Float, 4),
    0x73: _number(_U32, _char, 4),
    0x74: _fixed(Decimal, 4),
    0x80: _number(_U64, ULong, 8),
    0x81: _number(_I64, Long, 8),
    0x82: _number(_F64, float, 8),
    0x83: _number(_I64, Timestamp, 8),
    0x84: _fixed(Decimal, 8),
    0x94: _fixed(Decimal, 16),
    0x98: _fixed(_uuid, 16),
    0xA0: _variable(bytes, large=False),
    0xA1: _variable(_utf8, large=False),
    0xA3: _variable(_symbol, large=False),
    0xB0: _variable(bytes, large=True),
    0xB1: _variable(_utf8, large=True),
    0xB3: _variable(_symbol, large=True),
    0xC0: _list(large=False),
    0xC1: _map(large=False),
    0xD0: _list(large=True),
    0xD1: _map(large=True),
    0xE0: _array(large=False),
    0xF0: _array(large=True),
}.items():
    _DECODERS[_constructor] = _decoder
