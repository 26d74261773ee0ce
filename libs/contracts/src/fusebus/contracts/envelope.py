"""A message's wire form: JSON body, message id and application properties; strict both ways."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from fusebus.contracts import events
from fusebus.contracts.identity import ID_LENGTH, digest
from fusebus.contracts.messages import (
    MESSAGE_TYPES,
    SCHEMA_VERSION,
    AnyMessage,
    BlobCreated,
    ImageAccepted,
    Message,
    StorageEvents,
    work_id,
)
from fusebus.contracts.topology import ASIDE, UPLOAD_LANE

MAX_BODY_BYTES = 64 * 1024
MAX_ARRAY_BYTES = 256 * 1024
"""Of several events in one message, which others make: what Service Bus Standard carries."""
MAX_WORK_ID = 100  # characters; Service Bus allows 128 for the whole message id

TRACEPARENT = "traceparent"
DIAGNOSTIC_ID = "Diagnostic-Id"
"""What the Azure SDKs write, and read where there is no `traceparent`; the same text in it."""

_encoder = msgspec.json.Encoder(order="deterministic")
_decoder: msgspec.json.Decoder[AnyMessage] = msgspec.json.Decoder(AnyMessage)
_KNOWN = {message_type.__struct_config__.tag: message_type for message_type in MESSAGE_TYPES}


class Poison(Exception):
    """The message can never be handled; `reason` and `description` go to the dead letter."""

    def __init__(self, reason: str, description: str) -> None:
        super().__init__(f"{reason}: {description}")
        self.reason = reason
        self.description = description


class _Header(msgspec.Struct):
    type: str = ""
    event_type: str = msgspec.field(name="eventType", default="")
    """Event Grid's own schema says it so."""
    schema_version: int = 1


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What the bus carries beside the body."""

    message: Message
    attempt: int = 1
    """Counts handler failures only (1 = first try), not deliveries."""
    failures: int = 0
    """How many of the attempts before this one ended in an exception; at the others something did not answer."""
    replay: int = 0
    """How often people put it back from a dead-letter queue, or the sweep repeated it."""
    only: str | None = None
    """The subscription whose reader sent it as a delayed retry; the rules, which don't overlap, say where it goes."""
    traceparent: str | None = None
    """W3C trace context."""
    upload_lane: str | None = None
    """Of an event: what tells its lane on the topic `uploads` (see topology)."""
    session: str | None = None
    """The session that whoever sent it put it into; a retry or a replay of it goes into the same."""

    @property
    def message_id(self) -> str:
        """`work id/attempt/replay`: the same send has the same id, a retry or a replay another."""
        work = work_id(self.message)
        if len(work) > MAX_WORK_ID:  # the end tells works apart, so none of it may be lost
            work = f"{work[: MAX_WORK_ID - ID_LENGTH - 1]}~{digest(work)}"
        aside = f"/{ASIDE}" if self.upload_lane == ASIDE else ""  # or duplicate detection took it for the one it was
        return f"{work}/{self.attempt}/{self.replay}{aside}"

    def properties(self) -> dict[str, str | int]:
        """Application properties: what rules and people look at without decoding the body."""
        found: dict[str, str | int] = {
            "type": str(self.message.__struct_config__.tag),
            "attempt": self.attempt,
            "replay": self.replay,
        }
        for name, key in (("run", "run_id"), ("upload", "upload_id"), ("image", "image_id"), ("supplier", "supplier")):
            if (value := getattr(self.message, key, None)) is not None:
                found[name] = value
        if isinstance(self.message, ImageAccepted):
            found["job_kind"] = self.message.job_kind.value
            found["lane"] = self.message.lane.value
        if self.upload_lane is not None:
            found[UPLOAD_LANE] = self.upload_lane
        if self.failures:
            found["failures"] = self.failures
        if self.only is not None:
            found["only"] = self.only
        if self.traceparent is not None:
            found[TRACEPARENT] = found[DIAGNOSTIC_ID] = self.traceparent
        return found


def fresh(message: Message, replay: int = 0) -> Envelope:
    """The envelope of a message that nobody has tried to handle yet."""
    return Envelope(message=message, replay=replay)


def encode(message: Message) -> bytes:
    """JSON with deterministic key order. Raises ValueError above MAX_BODY_BYTES."""
    body = _encoder.encode(message)
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"{work_id(message)[:MAX_WORK_ID]} has {len(body)} bytes, a message may have {MAX_BODY_BYTES}")
    return body


def decode(body: bytes) -> Message:
    """The message in `body`. Raises Poison with a reason: too_large, undecodable, unknown_type, unknown_version."""
    most = MAX_ARRAY_BYTES if events.is_array(body) else MAX_BODY_BYTES
    if len(body) > most:
        raise Poison("too_large", f"{len(body)} bytes, allowed are {most}")
    try:
        if events.is_array(body):
            return events.several_events(body)
        header = msgspec.json.decode(body, type=_Header)
    except events.UNREADABLE as error:
        raise Poison("undecodable", str(error)) from error
    if header.type and not events.is_foreign(header.type):
        return _decode_message(body, header)
    return _decode_event(body, header)


def _decode_message(body: bytes, header: _Header) -> Message:
    if header.type not in _KNOWN:
        raise Poison("unknown_type", f"{header.type[:100]!r} is none of {', '.join(sorted(map(str, _KNOWN)))}")
    if header.schema_version > SCHEMA_VERSION:
        raise Poison(
            "unknown_version", f"{header.type} version {header.schema_version}, this release reads {SCHEMA_VERSION}"
        )
    try:
        message = _decoder.decode(body)
    except events.UNREADABLE as error:
        raise Poison("undecodable", f"{header.type}: {error}") from error
    if isinstance(message, BlobCreated) and message.specversion != events.CLOUD_EVENTS:
        version = f"CloudEvents {message.specversion[:20]!r}, this release reads {events.CLOUD_EVENTS}"
        raise Poison("unknown_version", version)
    return message


def _decode_event(body: bytes, header: _Header) -> Message:
    """Event Grid's own schema, or an event that tells of no upload."""
    if not header.type and not header.event_type:
        raise Poison("undecodable", "it says no type")
    try:
        found = events.one_event(body)
    except events.UNREADABLE as error:
        raise Poison("undecodable", f"{header.event_type[:100]!r}: {error}") from error
    return found if isinstance(found, BlobCreated) else StorageEvents(others=(found,))


def envelope(body: bytes, properties: Mapping[str, object], session: str | None = None) -> Envelope:
    """The received message with its counters. Raises Poison as `decode` does; odd counters read as their defaults."""

    def counter(name: str, default: int) -> int:
        value = properties.get(name, default)
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default

    def text(name: str) -> str | None:
        value = properties.get(name)
        return value if isinstance(value, str) else None

    return Envelope(
        message=decode(body),
        attempt=max(1, counter("attempt", 1)),
        failures=counter("failures", 0),
        replay=counter("replay", 0),
        only=text("only"),
        upload_lane=text(UPLOAD_LANE),
        session=session,
        traceparent=traceparent_of(properties),
    )


def traceparent_of(properties: Mapping[str, object]) -> str | None:
    """The trace context that a message brought, from us or from an Azure SDK."""
    found = (properties.get(name) for name in (TRACEPARENT, DIAGNOSTIC_ID))
    return next((value for value in found if isinstance(value, str)), None)
