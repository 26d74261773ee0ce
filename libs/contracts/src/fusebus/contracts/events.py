"""Reads what Event Grid sends: CloudEvents 1.0 or its own schema, one event or an array of them.

Both schemas become the same BlobCreated. In an array each event is read for itself: one that can't be read does not
take the others with it.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from fusebus.contracts.messages import BlobCreated, BlobCreatedData, Message, StorageEvents

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError)
"""What reading hostile JSON raises."""
BLOB_CREATED = str(BlobCreated.__struct_config__.tag)
CLOUD_EVENTS = "1.0"
MAX_SAID = 200  # characters that are kept of a type, or of why an event can't be read

_FOREIGN = ("Microsoft.Storage.", "Microsoft.EventGrid.")
"""Event types beside BlobCreated that a wider filter lets through: deletions, renames, tiers, Event Grid's own."""


class _Kind(msgspec.Struct, rename="camel"):
    type: str = ""
    """CloudEvents."""
    event_type: str = ""
    """Event Grid's own schema."""


class _EventGridEvent(msgspec.Struct, rename="camel"):
    id: str
    subject: str
    event_time: datetime
    data: BlobCreatedData
    topic: str = ""


def is_array(body: bytes) -> bool:
    """Whether this is JSON of several events."""
    return body[:64].lstrip(b" \t\r\n").startswith(b"[")


def is_foreign(event_type: str) -> bool:
    """Whether this is an event of storage or Event Grid that tells of no upload."""
    return event_type != BLOB_CREATED and event_type.startswith(_FOREIGN)


def one_event(body: bytes) -> BlobCreated | str:
    """The event in either schema, or the type of one that tells of no upload. Raises one of UNREADABLE."""
    kind = msgspec.json.decode(body, type=_Kind)
    found = kind.type or kind.event_type
    if is_foreign(found):
        return found[:MAX_SAID]
    if found != BLOB_CREATED:
        raise ValueError(f"{found[:MAX_SAID]!r} is no event of storage")
    if kind.type:
        event = msgspec.json.decode(body, type=BlobCreated)
        if event.specversion != CLOUD_EVENTS:
            raise ValueError(f"CloudEvents {event.specversion[:20]!r}, this release reads {CLOUD_EVENTS}")
        return event
    own = msgspec.json.decode(body, type=_EventGridEvent)
    return BlobCreated(id=own.id, source=own.topic, subject=own.subject, time=own.event_time, data=own.data)


def several_events(body: bytes) -> Message:
    """What an array holds; its event itself where that is a single one. Raises one of UNREADABLE."""
    created: list[BlobCreated] = []
    others: list[str] = []
    unreadable: list[str] = []
    for position, raw in enumerate(msgspec.json.decode(body, type=list[msgspec.Raw])):
        try:
            found = one_event(bytes(raw))
        except UNREADABLE as error:
            unreadable.append(f"event {position}: {error}"[:MAX_SAID])
            continue
        if isinstance(found, BlobCreated):
            created.append(found)
        else:
            others.append(found)
    if len(created) == 1 and not others and not unreadable:
        return created[0]
    return StorageEvents(created=tuple(created), others=tuple(others), unreadable=tuple(unreadable))
