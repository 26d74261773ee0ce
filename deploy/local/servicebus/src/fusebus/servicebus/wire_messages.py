"""Between encoded messages and the engine's: decoded once on the way in, put around the raw bytes on the way out."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fusebus.servicebus.amqp import sections
from fusebus.servicebus.amqp.decoding import decode_exactly
from fusebus.servicebus.amqp.types import CodecError, Encoded, Int, Long, Timestamp
from fusebus.servicebus.engine.messages import EMPTY, Delivery, Message, MessageState

PARTITION_KEY = "x-opt-partition-key"
SCHEDULED_TIME = "x-opt-scheduled-enqueue-time"
# Annotations that only the broker may set; a message that is sent on still carries those of its last delivery.
_BROKER_ANNOTATIONS = frozenset(
    {
        "x-opt-sequence-number",
        "x-opt-enqueue-sequence-number",
        "x-opt-enqueued-time",
        "x-opt-locked-until",
        "x-opt-lock-token",
        "x-opt-message-state",
        "x-opt-deadletter-source",
    }
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


_NOTHING_OUTER: Final = sections.Outer()
_ABSENT: Final = (None,) * len(sections.PROPERTY_NAMES)


def engine_message(data: bytes) -> Message:
    """The engine's message from an encoded one; a missing message-id is made up. Raises CodecError."""
    parsed = sections.parse_message(data)
    texts = [value if value is None or type(value) is str else _text(value) for value in parsed.fields]
    texts += _ABSENT[len(texts) :]
    message_id, _, to, subject, reply_to, correlation_id, content_type, _, _, _, session_id, _, answers = texts[:13]
    bare, annotations, ttl = parsed.bare, parsed.annotations, parsed.ttl_milliseconds
    if message_id is None:  # the JavaScript client cannot settle a message without one
        message_id = uuid.uuid4().hex
        bare = sections.with_message_id(bare, message_id)
    return Message(
        raw=bare,
        message_id=message_id,
        correlation_id=correlation_id,
        subject=subject,
        to=to,
        reply_to=reply_to,
        reply_to_session_id=answers,
        session_id=session_id,
        content_type=content_type,
        partition_key=_text(_annotation(parsed, PARTITION_KEY)) if annotations else None,
        ttl_seconds=None if ttl is None else ttl / 1000,
        scheduled_enqueue_time=_seconds(_annotation(parsed, SCHEDULED_TIME)) if annotations else None,
        application_properties=plain_properties(parsed.application_properties),
        annotations=_own_annotations(annotations) if annotations else EMPTY,
        outer=None if parsed.outer is None else _own_outer(parsed.outer),
    )


def _annotation(parsed: sections.Sections, name: str) -> Any:
    encoded = parsed.annotations.get(name)
    return None if encoded is None else decode_exactly(encoded)


def _own_annotations(annotations: Mapping[Any, Encoded]) -> Mapping[str, Any]:
    return {key: value for key, value in annotations.items() if key not in _BROKER_ANNOTATIONS} or EMPTY


def _own_outer(outer: sections.Outer) -> sections.Outer | None:
    own = replace(outer, annotations=_own_annotations(outer.annotations))
    return None if own == _NOTHING_OUTER else own


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return value.hex() if isinstance(value, bytes) else str(value)


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int):
        raise CodecError(f"{SCHEDULED_TIME} is not a timestamp")
    return value / 1000


def plain_properties(properties: Mapping[Any, Any]) -> Mapping[str, Any]:
    """Application properties as filters compare them."""
    if not properties:
        return EMPTY
    return {str(key): _datetime(value) if type(value) is Timestamp else value for key, value in properties.items()}


def _datetime(value: Timestamp) -> Any:
    try:
        return _EPOCH + timedelta(milliseconds=value)
    except OverflowError:
        return value


def encoded_delivery(delivery: Delivery) -> bytes:
    """The message as its receiver gets it."""
    message = delivery.message
    bare = message.raw
    if delivery.modified_properties:
        bare = sections.with_application_properties(bare, delivery.modified_properties)
    locked_until = None if delivery.locked_until is None else sections.timestamp(delivery.locked_until)
    ttl = None if delivery.expires_at == math.inf and message.ttl_seconds is None else _ttl_milliseconds(delivery)
    return b"".join(
        (
            sections.delivery_sections(delivery.delivery_count, ttl, delivery.lock_token)
            if message.outer is None
            else sections.outer_sections(message.outer, delivery.delivery_count, ttl, delivery.lock_token),
            sections.annotations_section(
                message.annotations,
                delivery.sequence_number,
                sections.timestamp(delivery.enqueued_at),
                locked_until,
                _extra_annotations(delivery),
            ),
            bare,
        )
    )


def _ttl_milliseconds(delivery: Delivery) -> int | None:
    """As its entity limits it; the sender's own where nothing expires any more, which is when it is dead."""
    if delivery.expires_at != math.inf:
        return round((delivery.expires_at - delivery.enqueued_at) * 1000)
    own = delivery.message.ttl_seconds
    return None if own is None else round(own * 1000)


def _extra_annotations(delivery: Delivery) -> Mapping[str, Any]:
    """Those that have a meaning only for some messages."""
    extra: dict[str, Any] = {}
    if delivery.enqueued_sequence_number:
        extra["x-opt-enqueue-sequence-number"] = Long(delivery.enqueued_sequence_number)
    if delivery.state is not MessageState.ACTIVE:
        extra["x-opt-message-state"] = Int(int(delivery.state))
    if delivery.dead_letter_source is not None:
        extra["x-opt-deadletter-source"] = delivery.dead_letter_source
    return extra
