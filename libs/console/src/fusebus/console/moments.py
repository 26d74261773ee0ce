"""Reads the times that people type or copy from what was said here: `2h`, `18:30`, `07:36:31 UTC`, `2026-11-22T06:00`;
all UTC unless they carry an offset. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_SPAN = re.compile(r"(?:(?P<days>\d+)d)?(?:(?P<hours>\d+)h)?(?:(?P<minutes>\d+)m)?(?:(?P<seconds>\d+)s)?")
_CLOCK = re.compile(r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2}))?")
_TO_THE_SECOND = re.compile(r"\d{1,2}:\d{2}:\d{2}(?![.,\d])")
_REST_OF_A_SECOND = timedelta(microseconds=999_999)


def ahead(text: str, now: datetime) -> datetime:
    """A time to come: a span from now, the next such time of day, or a date. Raises ValueError."""
    return _moment(text, now, later=True)


def back(text: str, now: datetime) -> datetime:
    """A time that has been: a span before now, the last such time of day, or a date. Raises ValueError.

    One that is given to the second means all of that second: what happened in it, and was said so, has been by then.
    """
    found = _moment(text, now, later=False)
    return found + _REST_OF_A_SECOND if _TO_THE_SECOND.search(text) else found


def said(moment: datetime, now: datetime) -> str:
    """For people: `18:30 UTC`, with the date where it is another day."""
    moment = moment.astimezone(UTC)
    return f"{moment:%H:%M:%S} UTC" if moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def span_said(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _moment(text: str, now: datetime, later: bool) -> datetime:
    text = text.strip().removesuffix(" UTC")
    if text == "now":
        return now
    span = _SPAN.fullmatch(text)
    if span and any(span.groups()):
        passed = timedelta(**{name: int(number) for name, number in span.groupdict(default="0").items()})
        return now + passed if later else now - passed
    clock = _CLOCK.fullmatch(text)
    if clock:
        hour, minute, second = (int(clock[name] or 0) for name in ("hour", "minute", "second"))
        found = now.replace(hour=hour, minute=minute, second=second, microsecond=0)
        if later and found <= now:
            return found + timedelta(days=1)
        return found - timedelta(days=1) if not later and found > now else found
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no time: write 90m, 2h, 18:30 or 2026-11-22T06:00 (UTC)") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)
