"""Properties of the AMQP codec: values survive a round trip, hostile bytes do no harm."""

import math
import struct
import time
import tracemalloc
import uuid
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fusebus.servicebus.amqp.codec import MAX_DEPTH, CodecError, decode, decode_exactly, encode, skip
from fusebus.servicebus.amqp.types import (
    Array,
    Byte,
    Char,
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
)


def signed(kind: type, bits: int) -> st.SearchStrategy[Any]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).map(kind)


def unsigned(kind: type, bits: int) -> st.SearchStrategy[Any]:
    return st.integers(0, 2**bits - 1).map(kind)


ELEMENTS = [
    st.none(),
    st.booleans(),
    unsigned(UByte, 8),
    unsigned(UShort, 16),
    unsigned(UInt, 32),
    unsigned(ULong, 64),
    signed(Byte, 8),
    signed(Short, 16),
    signed(Int, 32),
    signed(Long, 64),
    signed(Timestamp, 64),
    st.floats(width=32, allow_nan=False).map(Float),
    st.floats(allow_nan=False),
    st.characters(codec="utf-8").map(Char),
    st.uuids(),
    st.binary(max_size=300),
    st.text(max_size=300),
    st.text(st.characters(max_codepoint=127), max_size=20).map(Symbol),
]
DECIMALS = st.sampled_from([4, 8, 16]).flatmap(lambda n: st.binary(min_size=n, max_size=n)).map(Decimal)
SCALARS = st.one_of(*ELEMENTS, DECIMALS)
ARRAYS = st.one_of([st.lists(element, max_size=12).map(Array) for element in ELEMENTS])
KEYS = st.one_of(st.text(max_size=8), st.text("abc", max_size=8).map(Symbol), st.uuids())
VALUES = st.recursive(
    st.one_of(SCALARS, ARRAYS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(KEYS, inner, max_size=5),
        st.tuples(st.one_of(unsigned(ULong, 64), st.text("abc").map(Symbol)), inner).map(lambda p: Described(*p)),
        st.lists(st.lists(inner, max_size=3), min_size=1, max_size=3).map(Array),
        st.lists(st.dictionaries(KEYS, inner, max_size=2), min_size=1, max_size=3).map(Array),
        st.lists(st.lists(unsigned(UInt, 32), max_size=3).map(Array), min_size=1, max_size=3).map(Array),
    ),
    max_leaves=20,
)


def same(left: Any, right: Any) -> bool:
    """Equal with equal AMQP types, all the way down (Python's int and UInt are equal to each other)."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, dict):
        return list(map(type, left)) == list(map(type, right)) and same(list(left.values()), list(right.values()))
    if isinstance(left, Described):
        return same(left.descriptor, right.descriptor) and same(left.value, right.value)
    return bool(left == right)


@given(VALUES)
def test_every_value_survives_a_round_trip_with_its_type(value: Any) -> None:
    encoded = encode(value)
    assert same(decode_exactly(encoded), value)
    assert skip(encoded, 0) == len(encoded)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (None, "40"),
        (True, "41"),
        (False, "42"),
        (UInt(0), "43"),
        (UInt(255), "52ff"),
        (UInt(256), "7000000100"),
        (ULong(0x24), "5324"),
        (Int(-1), "54ff"),
        (Long(300), "81000000000000012c"),
        (1, "5501"),
        (Timestamp(1), "830000000000000001"),
        (uuid.UUID(int=1), "9800000000000000000000000000000001"),
        ("é", "a102c3a9"),
        (Symbol("a"), "a30161"),
        (b"", "a000"),
        ([], "45"),
        ([None, True], "c0030240" + "41"),
        ({Symbol("a"): UInt(1)}, "c10602a3016152" + "01"),
        (Array([Symbol("a"), Symbol("b")]), "e00c02b3000000016100000001" + "62"),
        (Described(ULong(0x24), []), "00532445"),
    ],
)
def test_known_values_have_their_known_bytes(value: Any, encoded: str) -> None:
    assert encode(value).hex() == encoded
    assert same(decode_exactly(bytes.fromhex(encoded)), Long(1) if value == 1 and type(value) is int else value)


def test_a_value_with_not_a_number_survives() -> None:
    assert math.isnan(decode_exactly(encode(math.nan)))


@pytest.mark.parametrize(
    "value",
    [UByte(256), UInt(-1), ULong(2**64), Long(2**63), Symbol("é"), object(), Array([UInt(1), Int(1)]), Decimal(b"123")],
)
def test_what_amqp_cannot_carry_is_a_codec_error(value: Any) -> None:
    with pytest.raises(CodecError):
        encode(value)


@given(st.binary(max_size=400))
@example(b"\xd0\x00\x00\x00\x04\xff\xff\xff\xff")
@example(b"\xf0\x00\x00\x00\x06\xff\xff\xff\xff\x40")
@example(b"\xc1\x04\x02\x45\x40\x40")
@example(b"\xa1\x02\xff\xff")
@example(b"\x73\xff\xff\xff\xff")
def test_any_bytes_decode_or_raise_a_codec_error(data: bytes) -> None:
    for attempt in (lambda: decode(data), lambda: skip(data, 0)):
        try:
            attempt()
        except CodecError:
            continue


@given(VALUES, st.data())
def test_a_changed_byte_decodes_or_raises_a_codec_error(value: Any, data: st.DataObject) -> None:
    encoded = bytearray(encode(value))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(encoded))
    except CodecError:
        return


@given(VALUES)
@settings(max_examples=50)
def test_a_truncated_value_is_never_taken_for_a_whole_one(value: Any) -> None:
    encoded = encode(value)
    for end in range(len(encoded)):
        with pytest.raises(CodecError):
            decode_exactly(encoded[:end])


def nested(constructor: str, depth: int) -> bytes:
    value = b"\x40"
    for _ in range(depth):
        if constructor == "described":
            value = b"\x00\x44" + value
        elif constructor == "descriptor":
            value = b"\x00" + value + b"\x40"
        else:
            value = b"\xd0" + struct.pack(">II", len(value) + 4, 1) + value
    return value


@pytest.mark.parametrize("constructor", ["list", "described", "descriptor"])
def test_nesting_is_refused_beyond_its_bound(constructor: str) -> None:
    decode_exactly(nested(constructor, MAX_DEPTH - 1))
    for depth in (MAX_DEPTH + 1, 100_000 if constructor != "list" else 2_000):
        with pytest.raises(CodecError, match="nested"):
            decode(nested(constructor, depth))
        if constructor != "list":
            with pytest.raises(CodecError):
                skip(nested(constructor, depth), 0)


def test_a_value_too_deep_to_decode_is_not_encoded_either() -> None:
    value: Any = None
    for _ in range(MAX_DEPTH + 1):
        value = [value]
    with pytest.raises(CodecError, match="nested"):
        encode(value)


@pytest.mark.parametrize(
    "bomb",
    [
        b"\xd0" + struct.pack(">II", 4, 2**32 - 1),
        b"\xd1" + struct.pack(">II", 4, 2**32 - 2),
        b"\xf0" + struct.pack(">IIB", 5, 2**32 - 1, 0x40),
        b"\xf0" + struct.pack(">IIB", 5, 2**32 - 1, 0x45),
        b"\xb0" + struct.pack(">I", 2**32 - 1),
        # many small arrays of elements without bytes
        b"\xf0" + struct.pack(">IIB", 100_005, 16_666, 0xE0) + b"\x02\xff\x40" * 33_333,
    ],
)
def test_counts_and_sizes_that_lie_cost_neither_time_nor_memory(bomb: bytes) -> None:
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(CodecError):
        decode(bomb)
    elapsed, (_, peak) = time.perf_counter() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert elapsed < 1.0
    assert peak < 5_000_000
