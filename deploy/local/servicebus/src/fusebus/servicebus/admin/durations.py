"""Durations and instants as the administration API writes them: ISO 8601, with one duration that means for ever."""

import math
import re
from datetime import UTC, datetime
from typing import Final

FOREVER: Final = "P10675199DT2H48M5.4775807S"  # .NET's TimeSpan.MaxValue
_FOREVER_SECONDS: Final = 10_675_199 * 86_400.0  # what a client made of it may differ after the decimal point
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?", re.IGNORECASE)
_UNIT_SECONDS: Final = (86_400, 3_600, 60, 1)


def parse_duration(text: str) -> float:
    """Seconds, `math.inf` for ever; raises ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is not an ISO 8601 duration of days, hours, minutes and seconds")
    seconds = sum(unit * float(part) for unit, part in zip(_UNIT_SECONDS, match.groups(), strict=True) if part)
    return math.inf if seconds >= _FOREVER_SECONDS else seconds


def format_duration(seconds: float) -> str:
    if seconds >= _FOREVER_SECONDS:
        return FOREVER
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    days, hours = divmod(hours, 24)
    clock = "".join(f"{amount}{unit}" for amount, unit in ((hours, "H"), (minutes, "M")) if amount)
    if rest or not (days or clock):
        clock += f"{rest:.6f}".rstrip("0").rstrip(".") + "S"
    return f"P{days}D" * bool(days) + "P" * (not days) + f"T{clock}" * bool(clock)


def format_instant(seconds: float) -> str:
    """Of seconds since the epoch, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
