"""The two performatives that come once per message, read without the general decoder when they look as usual."""

from __future__ import annotations

from typing import Final

from fusebus.servicebus.amqp.fields import Composite
from fusebus.servicebus.amqp.performatives import Accepted, Disposition, Transfer

_TRANSFER, _DISPOSITION = b"\x00\x53\x14\xc0", b"\x00\x53\x15\xc0"  # described lists of less than 256 bytes
_ACCEPTED: Final = (b"\x00\x53\x24\x45", b"\x00\x53\x24\xc0\x01\x00")
_NULL, _TRUE, _FALSE = 0x40, 0x41, 0x42
_UINT_ZERO, _UINT_SMALL, _UINT = 0x43, 0x52, 0x70
_BINARY = 0xA0
_TRANSFER_FIELDS: Final = 11


def quick_performative(body: bytes, start: int) -> tuple[Composite, int] | None:
    """The performative at `start` and the position after it; None if the general decoder must look at it."""
    head = body[start : start + 4]
    try:
        if head == _TRANSFER:
            return _transfer(body, start)
        if head == _DISPOSITION:
            return _disposition(body, start)
    except (IndexError, ValueError):
        return None
    return None


def _transfer(body: bytes, start: int) -> tuple[Transfer, int] | None:
    end, count, position = start + 5 + body[start + 4], body[start + 5], start + 6
    if not 3 <= count <= _TRANSFER_FIELDS or end > len(body):
        return None
    handle, position = _uint(body, position)
    delivery_id, position = _uint_or_none(body, position)
    tag = None
    if body[position] == _BINARY:
        stop = position + 2 + body[position + 1]
        tag, position = body[position + 2 : stop], stop
    elif body[position] == _NULL:
        position += 1
    else:
        return None
    message_format = None
    if count > 3:
        message_format, position = _uint_or_none(body, position)
    flags = body[position:end]
    if len(flags) != max(0, count - 4) or position > end:  # every further field is one byte: true, false or null
        return None
    settled, more = _FLAGS[flags[0]] if flags else None, len(flags) > 1 and _FLAGS[flags[1]] is True
    if flags[2:].strip(b"\x40\x42"):
        return None  # a state, a settle mode, resume, aborted or batchable: rare
    return Transfer(handle, delivery_id, tag, message_format, settled, more), end


def _disposition(body: bytes, start: int) -> tuple[Disposition, int] | None:
    end, count, position = start + 5 + body[start + 4], body[start + 5], start + 6
    if not 5 <= count <= 6 or end > len(body):
        return None
    role = _FLAGS[body[position]]
    first, position = _uint(body, position + 1)
    last, position = _uint_or_none(body, position)
    settled, position = _FLAGS[body[position]], position + 1
    state = body[position : end - (count - 5)]
    if role is None or state not in _ACCEPTED or (count == 6 and body[end - 1] not in (_NULL, _FALSE)):
        return None
    return Disposition(role, first, last, settled is True, _DONE), end


def _uint(body: bytes, position: int) -> tuple[int, int]:
    code = body[position]
    if code == _UINT_SMALL:
        return body[position + 1], position + 2
    if code == _UINT:
        return int.from_bytes(body[position + 1 : position + 5], "big"), position + 5
    if code == _UINT_ZERO:
        return 0, position + 1
    raise ValueError(code)


def _uint_or_none(body: bytes, position: int) -> tuple[int | None, int]:
    if body[position] == _NULL:
        return None, position + 1
    return _uint(body, position)


class _Flags(dict[int, bool | None]):
    def __missing__(self, code: int) -> bool:
        raise ValueError(code)


_FLAGS: Final = _Flags({_TRUE: True, _FALSE: False, _NULL: None})
_DONE: Final = Accepted()
