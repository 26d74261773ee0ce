"""Reads JSON objects key by key, and complains with the place of what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

from fusebus.servicebus.topology import ConfigError

T = TypeVar("T")

NUMBER: Final = (int, float)
_KINDS: Final = {
    NUMBER: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a string",
    Mapping: "an object",
}


class JsonObject:
    """A JSON object of which every key must be asked for; null counts as absent."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise ConfigError(where, f"must be an object, not {str(value)[:40]!r}")
        self.where = where
        self._left = {str(key): item for key, item in value.items() if item is not None}

    def place(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key

    def take(self, key: str, kind: Any) -> Any:
        """The value of a key, None if it is absent; raises ConfigError if it is of another kind."""
        value = self._left.pop(key, None)
        if value is None:
            return None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(self.place(key), f"must be {_KINDS[kind]}, not {str(value)[:40]!r}")
        return value

    def need(self, key: str, kind: Any = str) -> Any:
        """As `take`, but it must be there and not empty."""
        value = self.take(key, kind)
        if not value:
            raise ConfigError(self.place(key), "is missing")
        return value

    def inner(self, key: str) -> JsonObject | None:
        value = self._left.pop(key, None)
        return None if value is None else JsonObject(value, self.place(key))

    def each(self, key: str, make: Callable[[JsonObject], T]) -> tuple[T, ...] | None:
        """What `make` makes of every object in a list; all of their keys must have been asked for."""
        values = self._left.pop(key, None)
        if values is None:
            return None
        if not isinstance(values, list):
            raise ConfigError(self.place(key), "must be a list")
        return tuple(self._made(values, self.place(key), make))

    def rest(self) -> dict[str, Any]:
        """What was not asked for."""
        left, self._left = self._left, {}
        return left

    def end(self) -> None:
        """Raises ConfigError for a key that nobody asked for."""
        for key in self._left:
            raise ConfigError(self.place(key), "is not a known setting")

    @staticmethod
    def _made(values: list[Any], where: str, make: Callable[[JsonObject], T]) -> Iterator[T]:
        for index, value in enumerate(values):
            item = JsonObject(value, f"{where}[{index}]")
            yield make(item)
            item.end()
