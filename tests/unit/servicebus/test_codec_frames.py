"""Frames, performatives and message sections: round trips, and bytes that are none of them."""

import uuid
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fusebus.servicebus.amqp import sections
from fusebus.servicebus.amqp.codec import CodecError, decode, encode
from fusebus.servicebus.amqp.frames import MAX_FRAME_BYTES, FrameReader, build_frame
from fusebus.servicebus.amqp.performatives import (
    PERFORMATIVES,
    SECOND,
    Accepted,
    Attach,
    Begin,
    Disposition,
    Error,
    Flow,
    Modified,
    Open,
    Rejected,
    Source,
    Target,
    Transfer,
)
from fusebus.servicebus.amqp.types import Described, Encoded, Int, Symbol, Timestamp, UInt, ULong

EXAMPLES = [
    Open(container_id="c", hostname="h", max_frame_size=1 << 20, channel_max=7, properties={Symbol("a"): "b"}),
    Begin(remote_channel=1, next_outgoing_id=0, incoming_window=65536, outgoing_window=65536),
    Attach(name="n", handle=3, role=True, rcv_settle_mode=SECOND, source=Source(address="q"), target=Target()),
    Flow(next_incoming_id=1, incoming_window=2, next_outgoing_id=3, outgoing_window=4, handle=5, link_credit=6),
    Transfer(handle=1, delivery_id=2, delivery_tag=b"tag", message_format=0, settled=False),
    Disposition(role=True, first=4, last=4, settled=True, state=Accepted()),
    Disposition(role=True, first=4, state=Rejected(error=Error("a:b", "d", {Symbol("k"): "v"}))),
    Disposition(role=True, first=4, state=Modified(True, False, {"k": UInt(1)})),
]


@pytest.mark.parametrize("performative", EXAMPLES, ids=lambda value: type(value).__name__)
def test_a_performative_survives_a_round_trip_in_a_frame(performative: Any) -> None:
    reader = FrameReader()
    reader.feed(build_frame(5, performative.encoded(), b"payload"))
    frame = reader.next_frame()
    assert frame is not None
    assert (frame.channel, frame.performative, frame.payload) == (5, performative, b"payload")
    assert reader.next_frame() is None


@given(st.lists(st.sampled_from(EXAMPLES), max_size=6), st.lists(st.integers(1, 60), min_size=1))
def test_frames_are_cut_alike_however_the_bytes_arrive(sent: list[Any], chunks: list[int]) -> None:
    stream = b"".join(build_frame(0, performative.encoded()) for performative in sent)
    reader, received, position = FrameReader(), [], 0
    while position < len(stream):
        size = chunks[position % len(chunks)]
        reader.feed(stream[position : position + size])
        position += size
        while (frame := reader.next_frame()) is not None:
            received.append(frame.performative)
    assert received == sent


@given(st.binary(max_size=200))
def test_a_reader_of_any_bytes_waits_or_raises_a_codec_error(data: bytes) -> None:
    reader = FrameReader()
    reader.feed(data)
    try:
        while reader.next_frame() is not None:
            pass
    except CodecError:
        return


@given(st.sampled_from(sorted(PERFORMATIVES)), st.lists(st.sampled_from([None, True, UInt(1), "s", b"b", [], {}])))
def test_a_performative_of_wrong_fields_is_a_codec_error(code: int, fields: list[Any]) -> None:
    reader = FrameReader()
    reader.feed(build_frame(0, encode(Described(ULong(code), fields))))
    try:
        frame = reader.next_frame()
    except CodecError:
        return
    assert frame is not None
    assert isinstance(frame.performative, PERFORMATIVES[code])


@pytest.mark.parametrize("size", [0, 7, MAX_FRAME_BYTES + 1, 2**32 - 1])
def test_a_frame_of_impossible_size_is_refused_at_its_header(size: int) -> None:
    reader = FrameReader(limit=MAX_FRAME_BYTES)
    reader.feed(size.to_bytes(4, "big") + b"\x02\x00\x00\x00")
    with pytest.raises(CodecError, match="bytes"):
        reader.next_frame()


def test_an_error_always_has_three_fields() -> None:
    value, _ = decode(Error("a:b", "why").encoded())
    assert value.value == ["a:b", "why", {}]


def test_a_missing_mandatory_field_is_a_codec_error() -> None:
    with pytest.raises(CodecError, match="handle"):
        Transfer.from_list([None, UInt(1)])


MESSAGE = b"".join(
    (
        b"\x00\x53\x70" + encode([True, None, UInt(5000)]),
        b"\x00\x53\x71" + encode({Symbol("x-opt-lock-token"): uuid.UUID(int=1)}),
        b"\x00\x53\x72" + encode({Symbol("x-opt-partition-key"): "p", Symbol("own"): Int(7)}),
    )
)
BARE = b"".join(
    (
        b"\x00\x53\x73" + encode(["id", None, "to", "label"]),
        b"\x00\x53\x74" + encode({"n": Int(1), "t": Timestamp(3)}),
        b"\x00\x53\x75" + encode(b"body"),
    )
)


def test_a_message_is_taken_apart_and_its_bare_part_stays_as_it_came() -> None:
    found = sections.parse_message(MESSAGE + BARE)
    assert found.bare == BARE
    assert found.ttl_milliseconds == 5000
    assert found.annotations == {"x-opt-partition-key": encode("p"), "own": encode(Int(7))}  # as they came
    assert found.properties["message_id"] == "id"
    assert found.properties["subject"] == "label"
    assert found.application_properties == {"n": 1, "t": 3}


def test_the_rest_of_the_header_and_delivery_annotations_are_kept_only_where_they_were_sent() -> None:
    token = Encoded(encode(uuid.UUID(int=1)))
    assert sections.parse_message(MESSAGE + BARE).outer == sections.Outer(True, annotations={"x-opt-lock-token": token})
    usual = b"\x00\x53\x70" + encode([None, None, UInt(5000), None, UInt(2)])
    assert sections.parse_message(usual + BARE).outer is None


@given(
    st.none() | st.booleans(),
    st.none() | st.integers(0, sections.MAX_PRIORITY),
    st.none() | st.booleans(),
    st.dictionaries(st.text("ab", min_size=1, max_size=3).map(Symbol), st.binary(max_size=200), max_size=3),
    st.none() | st.integers(0, sections.MAX_TTL_MILLISECONDS),
)
def test_what_a_sender_put_around_a_message_is_read_again_wherever_it_stands(
    durable: bool | None, priority: int | None, first: bool | None, annotations: dict[Any, bytes], ttl: int | None
) -> None:
    encoded = {key: Encoded(encode(value)) for key, value in annotations.items()}
    outer = sections.Outer(durable, priority, first, encoded)
    around = sections.sent_sections(outer, ttl)
    for data in (around + BARE, BARE + around):
        found = sections.parse_message(data)
        assert (found.outer or sections.Outer(), found.ttl_milliseconds, found.bare) == (outer, ttl, BARE)


@pytest.mark.parametrize("header", [[5], [None, "high"], [None, 256], [None, None, None, "yes"]])
def test_a_header_of_other_types_is_a_codec_error(header: list[Any]) -> None:
    with pytest.raises(CodecError):
        sections.parse_message(b"\x00\x53\x70" + encode(header) + BARE)


def test_long_section_descriptors_are_made_short() -> None:
    long = b"\x00\x80" + (0x75).to_bytes(8, "big") + encode(b"body")
    assert sections.parse_message(long).bare == b"\x00\x53\x75" + encode(b"body")


@pytest.mark.parametrize("bare", [BARE, b"\x00\x53\x75\xa0\x01x", b"\x00\x53\x73\xc0\x03\x01\xa0\x00\x00\x53\x77\x40"])
def test_application_properties_are_added_in_their_place(bare: bytes) -> None:
    changed = sections.with_application_properties(bare, {"DeadLetterReason": "because"})
    before, after = sections.parse_message(bare), sections.parse_message(changed)
    assert after.application_properties == {**before.application_properties, "DeadLetterReason": "because"}
    assert after.properties == before.properties
    assert [code for code, _, _ in sections.sections_of(changed)] == sorted(
        {0x74, *(code for code, _, _ in sections.sections_of(bare))}
    )


def test_a_message_without_an_id_gets_one() -> None:
    bare = sections.with_message_id(b"\x00\x53\x75\xa0\x01x", "new")
    assert sections.parse_message(bare).properties == {"message_id": "new"}


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_codec_error(data: bytes) -> None:
    for attempt in (sections.parse_message, sections.unpack_batch, sections.body_value):
        try:
            attempt(data)
        except CodecError:
            continue


@example(59, 6)  # a key of the annotations becomes one that no map can have
@given(st.integers(0, len(MESSAGE + BARE) - 1), st.integers(0, 255))
def test_a_damaged_message_is_a_message_or_a_codec_error(position: int, byte: int) -> None:
    data = bytearray(MESSAGE + BARE)
    data[position] = byte
    try:
        sections.parse_message(bytes(data))
    except CodecError:
        return
