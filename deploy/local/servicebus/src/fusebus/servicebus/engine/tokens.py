"""Lock tokens: unique over restarts and cheap, because every delivery needs one."""

from uuid import UUID, SafeUUID, uuid4

_COUNTER_BITS = 48


class LockTokens:
    """Counts up from a random start; a token proves nothing, so it need not be hard to guess."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = uuid4().int >> _COUNTER_BITS << _COUNTER_BITS

    def __call__(self) -> UUID:
        self._next = number = self._next + 1
        token = object.__new__(UUID)  # UUID() parses and checks: three times as slow
        object.__setattr__(token, "int", number)
        object.__setattr__(token, "is_safe", SafeUUID.unknown)
        return token
