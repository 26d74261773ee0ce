"""Turns structs into table columns and back; characters that a table might not keep travel escaped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, unquote

import msgspec
from azure.data.tables import EdmType, EntityProperty

MAX_TEXT_UNITS = 32_768
"""UTF-16 code units in one text column; Azure refuses more."""
MAX_KEY_UNITS = 512
"""UTF-16 code units in a key; Azure refuses more."""

_NESTED = "__"  # between the names of a struct's field and of its field's fields
_ESCAPED = re.compile(
    "[%\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)  # controls, surrogates, non-characters
_KEY = re.compile(r"[^/\\#?%\x00-\x1f\x7f-\x9f\ud800-\udfff\"']{1,512}")

Columns = Mapping[str, Any]
S = TypeVar("S", bound=msgspec.Struct)


def to_columns(row: msgspec.Struct, leave_out: frozenset[str] = frozenset({"version"})) -> dict[str, Any]:
    """One column for each field, nested ones as `outer__inner`; None is left out.

    Raises ValueError for text longer than MAX_TEXT_UNITS.
    """
    plain = msgspec.to_builtins(row)
    return {name: _stored(name, value) for name, value in _flat(plain) if name not in leave_out}


def from_columns(columns: Columns, row_type: type[S], **more: str) -> S:
    """The struct that `to_columns` was given, with `more` fields; columns it does not know are passed over."""
    nested: dict[str, Any] = dict(more)
    for name, value in columns.items():
        *outer, last = name.split(_NESTED)
        inside = nested
        for key in outer:
            inside = inside.setdefault(key, {})
        inside[last] = _read(value)
    return msgspec.convert(nested, row_type)


def key(text: str) -> str:
    """`text`, fit to be a partition or row key. Raises ValueError for what a key may not hold."""
    if not _KEY.fullmatch(text):
        raise ValueError(f"{text[:100]!r} can't be a key: 1 to {MAX_KEY_UNITS} characters, no / \\ # ? % ' or controls")
    return text


def _flat(plain: Mapping[str, Any], outer: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in plain.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{outer}{name}{_NESTED}")
        elif value is not None:
            yield outer + name, value


def _stored(name: str, value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return EntityProperty(value, EdmType.INT64)  # the SDK's own choice is 32 bits
    if not isinstance(value, str):
        return value
    escaped = _ESCAPED.sub(lambda found: quote(found[0], safe="", errors="surrogatepass"), value)
    if len(escaped.encode("utf-16-le")) > 2 * MAX_TEXT_UNITS:
        raise ValueError(f"{name} has {len(value)} characters, more than a table column keeps")
    return escaped


def _read(value: Any) -> Any:
    if isinstance(value, EntityProperty):
        return value.value
    return unquote(value, errors="surrogatepass") if isinstance(value, str) else value
