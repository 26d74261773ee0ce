"""The two performatives that come once per message, read without the general decoder when they look as usual."""

from __future__ import annotations

from typing import Final

from fusebus.servicebus.amqp.fields import Composite
from fusebus.servicebus.amqp.performatives import Accepted, Disposition, Transfer

_TRANSFER, _DISPOSITION = b"\x00\x53\x14\xc0", b"\x00\x53\x15\xc0"  # described lists of less than 256 bytes
_ACCEPTED: Final = (b"\x00\x53\x24\x45", b"\x00\x53\x24\xc0\x01\x00")
_NULL, _TRUE, _FALSE, _BOOLEAN = 0x40, 0x41, 0x42, 0x56
_LONG_FALSE: Final = b"\x56\x00"
_LONG_TRUE: Final = b"\x56\x01"
_REST: Final = b"\x40\x56\x00\x00\x53\x24\x45\x40"  # no last, not settled, accepted, batchable not said
_UINT_ZERO, _UINT_SMALL, _UINT = 0x43, 0x52, 0x70
_BINARY = 0xA0
_TRANSFER_FIELDS: Final = 11


def quick_performative(body: bytes, start: int, limit: int | None = None) -> tuple[Composite, int] | None:
    """The performative at `start` and the position after it; None if the general decoder must look at it.

    `limit` is the end of the frame, if that is not the end of `body`.
    """
    size = len(body) if limit is None else limit
    head = body[start : start + 4]
    try:
        if head == _TRANSFER:
            return _transfer(body, start, size)
        if head == _DISPOSITION:
            return _disposition(body, start, size)
    except (IndexError, ValueError):
        return None
    return None


def _transfer(body: bytes, start: int, limit: int) -> tuple[Transfer, int] | None:
    end, count, position = start + 5 + body[start + 4], body[start + 5], start + 6
    if not 3 <= count <= _TRANSFER_FIELDS or end > limit:
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
    settled, more = None, None
    if count > 4:
        settled, position = _flag(body, position)
    if count > 5:
        more, position = _flag(body, position)
    rest = body[position:end].replace(_LONG_FALSE, b"\x42")
    if position > end or len(rest) != max(0, count - 6) or rest.strip(b"\x40\x42"):
        return None  # a state, a settle mode, resume, aborted or batchable: rare
    return Transfer(handle, delivery_id, tag, message_format, settled, more is True), end


def _disposition(body: bytes, start: int, limit: int) -> tuple[Disposition, int] | None:
    end, count, position = start + 5 + body[start + 4], body[start + 5], start + 6
    if not 5 <= count <= 6 or end > limit:
        return None
    if body[position : position + 2] == _LONG_TRUE:  # as the Python SDK writes it
        code, after = body[position + 2], position + 4
        if code == _UINT:
            after = position + 7
        if code in (_UINT_SMALL, _UINT) and body[after:end] == _REST:
            return Disposition(True, int.from_bytes(body[position + 3 : after], "big"), None, False, _DONE), end
    role, position = _flag(body, position)
    first, position = _uint(body, position)
    last, position = _uint_or_none(body, position)
    settled, position = _flag(body, position)
    state = body[position:end].replace(_LONG_FALSE, b"\x42")
    if count == 6 and state[-1:] in (b"\x40", b"\x42"):
        state = state[:-1]
    elif count == 6:
        return None
    if role is None or state not in _ACCEPTED:
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


def _flag(body: bytes, position: int) -> tuple[bool | None, int]:
    code = body[position]
    if code == _BOOLEAN and body[position + 1] < 2:  # as the Python SDK writes it
        return body[position + 1] == 1, position + 2
    if code in (_TRUE, _FALSE, _NULL):
        return (None if code == _NULL else code == _TRUE), position + 1
    raise ValueError(code)


_DONE: Final = Accepted()
