"""Takes an encoded message apart without touching its bare part, and puts deliveries together around it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from fusebus.servicebus.amqp.decoding import decode, map_entries, skip
from fusebus.servicebus.amqp.encoding import encode, encode_list, encode_map, encode_map_body, encode_uint
from fusebus.servicebus.amqp.types import CodecError, Encoded, Symbol, Timestamp, UByte, UInt, ULong

HEADER, DELIVERY_ANNOTATIONS, MESSAGE_ANNOTATIONS = 0x70, 0x71, 0x72
PROPERTIES, APPLICATION_PROPERTIES, DATA, SEQUENCE, VALUE, FOOTER = 0x73, 0x74, 0x75, 0x76, 0x77, 0x78
BATCH_FORMAT = 0x80013700  # message-format of an envelope whose data sections are messages
# Names of the properties list's fields, in order.
PROPERTY_NAMES = (
    "message_id",
    "user_id",
    "to",
    "subject",
    "reply_to",
    "correlation_id",
    "content_type",
    "content_encoding",
    "absolute_expiry_time",
    "creation_time",
    "group_id",
    "group_sequence",
    "reply_to_group_id",
)
MAX_TTL_MILLISECONDS: Final = 0xFFFFFFFF  # what the header has room for
MAX_PRIORITY: Final = 255


NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Outer:
    """What few senders put around the bare message: the rest of the header, and delivery annotations."""

    durable: bool | None = None
    priority: int | None = None
    """0 to 255; receivers take None for 4."""
    first_acquirer: bool | None = None
    annotations: Mapping[Any, Encoded] = field(default_factory=lambda: NOTHING)


@dataclass(slots=True)
class Sections:
    """A decoded message; its body stays encoded in `bare`, which runs from properties to footer."""

    bare: bytes
    ttl_milliseconds: int | None = None
    annotations: Mapping[Any, Encoded] = field(default_factory=lambda: NOTHING)
    """Values stay encoded, so that they can be passed on as they came."""
    fields: list[Any] = field(default_factory=list)
    """The properties in the order of PROPERTY_NAMES, as many as were sent."""
    application_properties: Mapping[Any, Any] = field(default_factory=lambda: NOTHING)
    outer: Outer | None = None
    """None where nothing of it was sent: nearly always."""

    @property
    def properties(self) -> dict[str, Any]:
        """The properties by name."""
        return dict(zip(PROPERTY_NAMES, self.fields, strict=False))


def _start(code: int) -> bytes:
    """A section's descriptor: a smallulong, because the Python SDK skips exactly three bytes."""
    return bytes((0x00, 0x53, code))


_STARTS: Final = {code: _start(code) for code in range(HEADER, FOOTER + 1)}


def sections_of(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(code, position of the value, end) of each section in turn; raises CodecError."""
    position, size = 0, len(data)
    while position < size:
        if position + 2 < size and data[position + 1] == 0x53 and data[position] == 0 and data[position + 2] in _STARTS:
            code, value_at = data[position + 2], position + 3
        else:
            code, value_at = _descriptor(data, position)
        constructor = data[value_at] if value_at + 5 < size else 0
        if constructor in (0xA0, 0xC0, 0xC1):
            end = value_at + 2 + data[value_at + 1]
        elif constructor in (0xB0, 0xD0, 0xD1):
            end = value_at + 5 + int.from_bytes(data[value_at + 1 : value_at + 5], "big")
        else:
            end = skip(data, value_at)
        if end > size:
            raise CodecError("value reaches past the end")
        yield code, value_at, end
        position = end


def _descriptor(data: bytes, position: int) -> tuple[int, int]:
    if data[position : position + 2] == b"\x00\x53" and position + 2 < len(data):
        code, position = data[position + 2], position + 3
    else:
        if data[position] != 0:
            raise CodecError("a message is made of described sections")
        descriptor, position = decode(data, position + 1)
        if not isinstance(descriptor, ULong):
            raise CodecError("section descriptors must be numeric")
        code = int(descriptor)
    if not HEADER <= code <= FOOTER:
        raise CodecError(f"unknown section 0x{code:x}")
    return code, position


def parse_message(data: bytes) -> Sections:
    """The message's parts; the body is only skipped over. Raises CodecError."""
    found = Sections(b"")
    bare_at, usual = -1, True
    for code, start, end in sections_of(data):
        if code >= PROPERTIES:
            usual = usual and data[start - 3 : start] == _STARTS[code]
            if bare_at < 0:
                bare_at = start - 3
        else:
            usual = usual and bare_at < 0
        if code == HEADER:
            _read_header(found, _expect(list, data, start))
        elif code == DELIVERY_ANNOTATIONS:  # the Python SDK sends them behind the body
            found.outer = replace(found.outer or Outer(), annotations=_encoded_entries(data, start))
        elif code == MESSAGE_ANNOTATIONS:
            found.annotations = _encoded_entries(data, start)
        elif code == PROPERTIES:
            found.fields = _usual_fields(data, start, end) or _expect(list, data, start)
        elif code == APPLICATION_PROPERTIES:
            found.application_properties = _expect(dict, data, start)
    if bare_at >= 0:
        found.bare = data[bare_at:] if usual else _bare(data)
    return found


def _bare(data: bytes) -> bytes:
    """The bare message with the descriptors that the Python SDK expects, from one with others."""
    parts = [_STARTS[code] + data[start:end] for code, start, end in sections_of(data) if code >= PROPERTIES]
    return b"".join(parts)


def _usual_fields(data: bytes, position: int, end: int) -> list[Any] | None:
    """The fields of a properties list that has only short strings, binaries and nulls; None if it has others."""
    if data[position] != 0xC0:
        return None
    fields: list[Any] = []
    position += 3
    try:
        while position < end:
            constructor = data[position]
            if constructor == 0x40:
                if data.count(b"\x40", position, end) == end - position:  # nothing but nulls follows
                    return fields
                fields.append(None)
                position += 1
                continue
            stop = position + 2 + data[position + 1]
            if constructor == 0xA1:
                fields.append(data[position + 2 : stop].decode())
            elif constructor == 0xA3:
                fields.append(Symbol(data[position + 2 : stop].decode("ascii")))
            elif constructor == 0xA0:
                fields.append(data[position + 2 : stop])
            else:
                return None
            position = stop
    except (IndexError, UnicodeDecodeError):
        return None
    return fields if position == end else None


def _encoded_entries(data: bytes, position: int) -> dict[Any, Encoded]:
    return {key: Encoded(data[at:after]) for key, at, after in map_entries(data, position)}


def _read_header(found: Sections, header: list[Any]) -> None:
    durable, priority, ttl, first_acquirer = (*header, None, None, None, None)[:4]
    if ttl is not None and not isinstance(ttl, int):
        raise CodecError("a time to live is a number of milliseconds")
    found.ttl_milliseconds = ttl
    if durable is None and priority is None and first_acquirer is None:
        return
    if not isinstance(durable, bool | None) or not isinstance(first_acquirer, bool | None):
        raise CodecError("durable and first-acquirer are true or false")
    if not (priority is None or (isinstance(priority, int) and 0 <= priority <= MAX_PRIORITY)):
        raise CodecError(f"a priority is a number from 0 to {MAX_PRIORITY}")
    annotations = NOTHING if found.outer is None else found.outer.annotations
    found.outer = Outer(durable, priority, first_acquirer, annotations)


def _expect(kind: type, data: bytes, position: int) -> Any:
    value, _ = decode(data, position)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise CodecError(f"a section that should be a {kind.__name__} is not")
    return value


def unpack_batch(envelope: bytes) -> list[bytes]:
    """The encoded messages in a batch's data sections; raises CodecError."""
    return [_expect(bytes, envelope, start) for code, start, _ in sections_of(envelope) if code == DATA]


def body_value(data: bytes) -> Any:
    """The amqp-value body of a request, None if it has none; raises CodecError."""
    for code, start, _ in sections_of(data):
        if code == VALUE:
            return decode(data, start)[0]
    return None


def with_message_id(bare: bytes, message_id: str) -> bytes:
    """The bare message with its message-id set."""
    return rewritten(bare, PROPERTIES, list, lambda fields: [message_id, *fields[1:]])


def with_application_properties(bare: bytes, changes: Mapping[str, Any]) -> bytes:
    """The bare message with some application properties added or replaced."""
    return rewritten(bare, APPLICATION_PROPERTIES, dict, lambda found: {**found, **changes})


def rewritten(bare: bytes, wanted: int, kind: type, change: Any) -> bytes:
    """The bare message with `change` made to the value of one section, which is added if it is missing.

    Sections come in the order of their codes. Raises CodecError.
    """
    parts: list[bytes] = []
    done = False
    for code, start, end in sections_of(bare):
        if not done and code >= wanted:
            current = _expect(kind, bare, start) if code == wanted else kind()
            parts += (_start(wanted), encode(change(current)))
            done = True
        if code != wanted:
            parts += (_start(code), bare[start:end])
    if not done:
        parts += (_start(wanted), encode(change(kind())))
    return b"".join(parts)


def message(properties: list[Any], application_properties: dict[str, Any], body: Any) -> bytes:
    """A message with an amqp-value body, as requests and responses are."""
    return b"".join(
        (
            _start(PROPERTIES),
            encode(properties),
            _start(APPLICATION_PROPERTIES),
            encode(application_properties),
            _start(VALUE),
            encode(body),
        )
    )


# --- what a receiver gets in front of the bare message

_SEQUENCE_NUMBER = encode(Symbol("x-opt-sequence-number")) + b"\x81"
_ENQUEUED_TIME = encode(Symbol("x-opt-enqueued-time")) + b"\x83"
_LOCKED_UNTIL = encode(Symbol("x-opt-locked-until")) + b"\x83"
_LOCK_TOKEN = encode(Symbol("x-opt-lock-token")) + b"\x98"
_NO_DELIVERY_ANNOTATIONS = _start(DELIVERY_ANNOTATIONS) + encode({})
_LOCK_ANNOTATIONS_SIZE = len(_LOCK_TOKEN) + 16 + 1
_LOCK_ANNOTATIONS = _start(DELIVERY_ANNOTATIONS) + bytes((0xC1, _LOCK_ANNOTATIONS_SIZE, 2)) + _LOCK_TOKEN
_I64 = struct.Struct(">q").pack
_LOCKED_SIZE = sum(len(key) + 8 for key in (_SEQUENCE_NUMBER, _ENQUEUED_TIME, _LOCKED_UNTIL)) + 1
_ANNOTATIONS_AND_NUMBER = _start(MESSAGE_ANNOTATIONS) + bytes((0xC1, _LOCKED_SIZE, 6)) + _SEQUENCE_NUMBER
_put_annotations = struct.Struct(f">{len(_ANNOTATIONS_AND_NUMBER)}sq{len(_ENQUEUED_TIME)}sq{len(_LOCKED_UNTIL)}sq").pack
_HEADERS = tuple(
    b"\x00\x53\x70\xc0" + bytes((len(fields) + 1, 5)) + fields
    for fields in (b"\x40" * 4 + encode_uint(count) for count in range(256))
)  # without a time to live, by delivery count


def delivery_sections(delivery_count: int, ttl_milliseconds: int | None, lock_token: UUID | None) -> bytes:
    """Header and delivery annotations."""
    if ttl_milliseconds is None and delivery_count < len(_HEADERS):
        header = _HEADERS[delivery_count]
    else:
        ttl = b"\x40" if ttl_milliseconds is None else encode_uint(min(ttl_milliseconds, MAX_TTL_MILLISECONDS))
        fields = b"\x40\x40" + ttl + b"\x40" + encode_uint(delivery_count)
        header = b"\x00\x53\x70\xc0" + bytes((len(fields) + 1, 5)) + fields
    if lock_token is None:
        return header + _NO_DELIVERY_ANNOTATIONS
    return header + _LOCK_ANNOTATIONS + lock_token.bytes


def outer_sections(outer: Outer, delivery_count: int, ttl_milliseconds: int | None, lock_token: UUID | None) -> bytes:
    """As `delivery_sections`, with what the sender gave; nobody is the first acquirer after a failed delivery."""
    first_acquirer = outer.first_acquirer and delivery_count == 0
    fields = _header_fields(outer.durable, outer.priority, ttl_milliseconds, first_acquirer)
    header = _start(HEADER) + encode_list([*fields, encode_uint(delivery_count)])
    parts = _entries(outer)
    if lock_token is not None:
        parts += (_LOCK_TOKEN[:-1], _LOCK_TOKEN[-1:] + lock_token.bytes)
    return header + _start(DELIVERY_ANNOTATIONS) + encode_map(parts)


def sent_sections(outer: Outer | None, ttl_milliseconds: int | None) -> bytes:
    """Header and delivery annotations as the sender gave them, for `parse_message`."""
    given = outer or Outer()
    fields = _header_fields(given.durable, given.priority, ttl_milliseconds, given.first_acquirer)
    header = _start(HEADER) + encode_list(fields)
    return header + _start(DELIVERY_ANNOTATIONS) + encode_map(_entries(given)) if given.annotations else header


def _entries(outer: Outer) -> list[bytes]:
    return [part for key, value in outer.annotations.items() for part in (encode(key), value)]


def _header_fields(
    durable: bool | None, priority: int | None, ttl_milliseconds: int | None, first_acquirer: bool | None
) -> list[bytes]:
    """The header's fields but the last, the delivery count."""
    ttl = None if ttl_milliseconds is None else UInt(min(ttl_milliseconds, MAX_TTL_MILLISECONDS))
    return [encode(value) for value in (durable, None if priority is None else UByte(priority), ttl, first_acquirer)]


def annotations_section(
    own: Mapping[str, Any],
    sequence_number: int,
    enqueued_milliseconds: int,
    locked_until_milliseconds: int | None,
    extra: Mapping[str, Any],
) -> bytes:
    """Message annotations: the sender's `own` and the broker's; times since the Unix epoch."""
    if locked_until_milliseconds is not None and not own and not extra:  # nearly always
        return _put_annotations(
            _ANNOTATIONS_AND_NUMBER,
            sequence_number,
            _ENQUEUED_TIME,
            enqueued_milliseconds,
            _LOCKED_UNTIL,
            locked_until_milliseconds,
        )
    parts = [_SEQUENCE_NUMBER, _I64(sequence_number), _ENQUEUED_TIME, _I64(enqueued_milliseconds)]
    count = 4
    if locked_until_milliseconds is not None:
        parts += (_LOCKED_UNTIL, _I64(locked_until_milliseconds))
        count += 2
    for group in (own, extra):
        for key, value in group.items():
            parts += (encode(Symbol(key) if type(key) is str else key), encode(value))
            count += 2
    return _start(MESSAGE_ANNOTATIONS) + encode_map_body(count, b"".join(parts))


def timestamp(seconds: float) -> Timestamp:
    """An AMQP timestamp from seconds since the Unix epoch, within what .NET and Python can show."""
    return Timestamp(min(int(seconds * 1000), MAX_TIMESTAMP_MILLISECONDS))


MAX_TIMESTAMP_MILLISECONDS = 253402300799999  # the end of the year 9999
