"""What operators do with values: C#'s rules as far as the service documents them, within bounds of size.

None is SQL's unknown. Where C# would find no operator, comparisons are unknown and arithmetic raises FilterError.
"""

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from fusebus.servicebus.engine.errors import FilterError

MAX_TEXT_CHARACTERS: Final = 65_536  # no property can be longer in the service: 64 KB for all of a message
_MIN_INTEGER: Final = -(2**63)
_MAX_INTEGER: Final = 2**64 - 1  # AMQP's ulong


def same(left: Any, right: Any) -> bool:
    """Equality as the service has it: numbers by value whatever their type, but never a bool with a number."""
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    if isinstance(left, datetime) and isinstance(right, datetime):
        return _instant(left) == _instant(right)
    return bool(left == right)


def _instant(moment: datetime) -> datetime:
    """Rules may be written without a time zone, and mean UTC; messages have instants."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def ordered(operator: str, left: Any, right: Any) -> bool | None:
    """<, <=, > and >=; unknown for values that have no order among each other."""
    if not _comparable(left, right):
        return None
    if isinstance(left, datetime) and isinstance(right, datetime):
        left, right = _instant(left), _instant(right)
    less, equal = bool(left < right), bool(left == right)
    return {"<": less, "<=": less or equal, ">": not less and not equal, ">=": not less}[operator]


def _comparable(left: Any, right: Any) -> bool:
    if _is_number(left) and _is_number(right):
        return not (math.isnan(left) or math.isnan(right))
    return any(isinstance(left, kind) and isinstance(right, kind) for kind in (str, datetime, timedelta, UUID, bytes))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def arithmetic(operator: str, left: Any, right: Any) -> Any:
    """+, -, *, / and %; unknown if either side is. Raises FilterError."""
    if left is None or right is None:
        return None
    if operator == "+" and (isinstance(left, str) or isinstance(right, str)):
        return _joined(text(left), text(right))
    if not (_is_number(left) and _is_number(right)):
        raise FilterError(f"no operator {operator} for {_kind(left)} and {_kind(right)}")
    if isinstance(left, int) and isinstance(right, int):
        return _bounded(_INTEGERS[operator](int(left), int(right)))
    return _DOUBLES[operator](_double(left), _double(right))


def negative(value: Any) -> Any:
    """Unary minus; raises FilterError."""
    if value is None:
        return None
    _check_signed("-", value)
    return -value if isinstance(value, float) else _bounded(-value)


def positive(value: Any) -> Any:
    """Unary plus; raises FilterError."""
    if value is not None:
        _check_signed("+", value)
    return value


def _check_signed(sign: str, value: Any) -> None:
    if not _is_number(value):
        raise FilterError(f"no operator {sign} for {_kind(value)}")


def text(value: Any) -> str:
    """As C# would join it to a string."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, str | int | UUID | datetime | timedelta):
        return str(value)
    raise FilterError(f"no text for {_kind(value)}")


def _joined(left: str, right: str) -> str:
    if len(left) + len(right) > MAX_TEXT_CHARACTERS:
        raise FilterError(f"a text longer than {MAX_TEXT_CHARACTERS} characters")
    return left + right


def _kind(value: Any) -> str:
    for kind, name in ((bool, "a boolean"), (str, "a string"), (int, "an integer"), (float, "a double")):
        if isinstance(value, kind):
            return name
    return f"a {type(value).__name__}"


def _bounded(value: int) -> int:
    if not _MIN_INTEGER <= value <= _MAX_INTEGER:
        raise FilterError("an integer beyond 64 bits")
    return value


def _double(value: Any) -> float:
    return float(value)  # an AMQP integer has 64 bits at most: never an overflow


def _quotient(left: int, right: int) -> int:
    """Truncated towards zero, as C# has it."""
    if right == 0:
        raise FilterError("a division by zero")
    return left // right if (left < 0) == (right < 0) else -(-left // right)


def _remainder(left: int, right: int) -> int:
    return left - right * _quotient(left, right)


def _double_quotient(left: float, right: float) -> float:
    if right:
        return left / right
    return math.nan if not left or math.isnan(left) else math.copysign(math.inf, left) * math.copysign(1, right)


def _double_remainder(left: float, right: float) -> float:
    return math.nan if not right or math.isinf(left) else math.fmod(left, right)


_INTEGERS: Final[dict[str, Callable[[int, int], int]]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": _quotient,
    "%": _remainder,
}
_DOUBLES: Final[dict[str, Callable[[float, float], float]]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": _double_quotient,
    "%": _double_remainder,
}
