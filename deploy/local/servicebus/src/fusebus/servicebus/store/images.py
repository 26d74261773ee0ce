"""Settings and rules as JSON: every dataclass by its name, every other value as JSON or as AMQP has it."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from types import ModuleType
from typing import Any, Final

from fusebus.servicebus.amqp.decoding import decode_exactly
from fusebus.servicebus.amqp.encoding import encode
from fusebus.servicebus.engine import actions, filters, rights, settings

KIND: Final = "$"  # the key that tells what an object stands for


class UnknownImage(ValueError):
    """The JSON is not one of ours, or of a later version."""


def _classes(*modules: ModuleType) -> dict[str, type]:
    found = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    return {kind.__name__: kind for kind in found if is_dataclass(kind) or issubclass(kind, Enum)}


_CLASSES: Final = _classes(actions, filters, rights, settings)


def dumps(value: Any) -> str:
    """The JSON of settings or a rule; raises CodecError or UnknownImage for what `loads` could not make again."""
    return json.dumps(_plain(value), separators=(",", ":"))


def loads(text: str) -> Any:
    """What `dumps` was given; raises UnknownImage."""
    try:
        return json.loads(text, object_hook=_value)
    except (ValueError, TypeError, KeyError) as error:
        raise UnknownImage(str(error)) from error


def _plain(value: Any) -> Any:
    kind = type(value)
    if (isinstance(value, Enum) or is_dataclass(value)) and _CLASSES.get(kind.__name__) is not kind:
        raise UnknownImage(f"{kind.__name__} could not be read again")
    if value is None or kind in (bool, int, str) or (kind is float and math.isfinite(value)):
        return value
    if isinstance(value, Enum):
        return {KIND: kind.__name__, "value": value.value}
    if is_dataclass(value):
        return {KIND: kind.__name__} | {
            each.name: _plain(getattr(value, each.name)) for each in fields(value) if each.init
        }
    if isinstance(value, Mapping):
        return {KIND: "map", "items": [[_plain(key), _plain(item)] for key, item in value.items()]}
    if isinstance(value, list | tuple | frozenset | set):
        name = next(name for name, made in _SEQUENCES.items() if isinstance(value, made))
        return {KIND: name, "items": [_plain(item) for item in value]}
    return _scalar(value)


def _scalar(value: Any) -> dict[str, Any]:
    if isinstance(value, datetime):
        return {KIND: "datetime", "value": value.isoformat()}
    if isinstance(value, timedelta):
        return {KIND: "timedelta", "value": value.total_seconds()}
    if type(value) is float:
        return {KIND: "float", "value": repr(value)}
    return {KIND: "amqp", "value": base64.b64encode(encode(value)).decode()}


_SEQUENCES: Final[dict[str, type]] = {"list": list, "tuple": tuple, "frozenset": frozenset, "set": set}
_SCALARS: Final[dict[str, Callable[[Any], Any]]] = {
    "datetime": datetime.fromisoformat,
    "timedelta": lambda seconds: timedelta(seconds=seconds),
    "float": float,
    "amqp": lambda text: decode_exactly(base64.b64decode(text)),
}


def _value(found: dict[str, Any]) -> Any:
    name = found.pop(KIND)
    if name in _SCALARS:
        return _SCALARS[name](found["value"])
    if name in _SEQUENCES:
        return _SEQUENCES[name](found["items"])
    if name == "map":
        return dict(found["items"])
    if name not in _CLASSES:
        raise UnknownImage(f"no class {name} is kept")
    kind = _CLASSES[name]
    if issubclass(kind, Enum):
        return kind(found["value"])
    known = {each.name for each in fields(kind) if each.init}  # type: ignore[arg-type]
    return kind(**{key: item for key, item in found.items() if key in known})
