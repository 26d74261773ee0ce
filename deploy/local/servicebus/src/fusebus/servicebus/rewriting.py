"""Messages that a rule's action has changed, encoded anew; what it left alone stays as it came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fusebus.servicebus.amqp import sections
from fusebus.servicebus.amqp.types import CodecError, Described, Long, Symbol, Timestamp, ULong
from fusebus.servicebus.engine import Changes, FilterError, Message, apply_changes
from fusebus.servicebus.wire_messages import PARTITION_KEY

_PROPERTY_NAMES: Final = {"session_id": "group_id", "reply_to_session_id": "reply_to_group_id"}
"""Where AMQP calls a field of the message otherwise."""
_MAX_LONG: Final = 2**63 - 1
_TICKS_PER_MICROSECOND: Final = 10


def rewrite(message: Message, changes: Changes) -> Message:
    """The message with the changes in its fields and in its encoding; raises FilterError if AMQP cannot carry them."""
    changed = apply_changes(message, changes)
    fields = {name: value for name, value in changes.system.items() if name != "partition_key"}
    try:
        raw = _with_fields(message.raw, fields) if fields else message.raw
        if changes.properties or changes.removed:
            raw = _with_application_properties(raw, changes)
    except CodecError as error:
        raise FilterError(f"the message cannot be changed so: {error}") from error
    return replace(changed, raw=raw, annotations=_annotations(message, changes))


def _with_fields(raw: bytes, fields: Mapping[str, str | None]) -> bytes:
    places = {sections.PROPERTY_NAMES.index(_PROPERTY_NAMES.get(name, name)): value for name, value in fields.items()}

    def change(current: list[Any]) -> list[Any]:
        found = current + [None] * (max(places) + 1 - len(current))
        for place, value in places.items():
            # AMQP wants the content type as a symbol, which is ASCII; everything else is a string.
            is_symbol = value is not None and sections.PROPERTY_NAMES[place] == "content_type"
            found[place] = Symbol(value) if is_symbol else value
        return found

    return sections.rewritten(raw, sections.PROPERTIES, list, change)


def _with_application_properties(raw: bytes, changes: Changes) -> bytes:
    added = {name: _encodable(value) for name, value in changes.properties.items()}

    def change(current: dict[Any, Any]) -> dict[Any, Any]:
        return {**{key: value for key, value in current.items() if str(key) not in changes.removed}, **added}

    return sections.rewritten(raw, sections.APPLICATION_PROPERTIES, dict, change)


def _encodable(value: Any) -> Any:
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return Timestamp(round(moment.timestamp() * 1000))
    if isinstance(value, timedelta):  # the SDKs' own way: ticks of 100 ns
        ticks = value // timedelta(microseconds=1) * _TICKS_PER_MICROSECOND
        return Described(Symbol("com.microsoft:timespan"), Long(ticks))
    if type(value) is int and value > _MAX_LONG:
        return ULong(value)
    return value


def _annotations(message: Message, changes: Changes) -> Mapping[str, Any]:
    if "partition_key" not in changes.system:
        return message.annotations
    kept = {key: value for key, value in message.annotations.items() if key != PARTITION_KEY}
    key = changes.system["partition_key"]
    return kept if key is None else {**kept, PARTITION_KEY: key}
