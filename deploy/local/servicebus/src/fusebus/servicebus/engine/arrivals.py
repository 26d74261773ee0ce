"""A message together with its topic's record, for rules that ask when it came, and under which number."""

from dataclasses import dataclass, fields
from typing import Final

from fusebus.servicebus.engine.messages import Message
from fusebus.servicebus.engine.records import Record


@dataclass(slots=True)
class ArrivedMessage(Message):
    """Made only for expressions that ask for what the record says, and never stored."""

    record: Record | None = None


_FIELDS: Final = tuple(field.name for field in fields(Message))


def arrived(message: Message, record: Record | None) -> Message:
    """The message with the record; without one, itself."""
    if record is None:
        return message
    return ArrivedMessage(**{name: getattr(message, name) for name in _FIELDS}, record=record)
