"""When an image may be begun: at once, at windows of the day, off-peak, or when people say so. Pure.

As text: `at-once`, `on-command`, `windows 02:00,14:00 Europe/London`, `off-peak 22:00-06:00 Europe/London`; times and
zone may be left out.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

import msgspec

MOST_WINDOWS = 48  # a day
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?")
_NO_PLACE = re.compile(r"localtime|posixrules|Factory|(?:posix|right)/.*")
"""Names in some systems' folders of zones that mean another clock on another machine, or count leap seconds."""
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,30}(?:/[A-Za-z0-9_+-]{1,30}){0,2}")


class Mode(StrEnum):
    """What decides when work begins."""

    AT_ONCE = "at-once"
    WINDOWS = "windows"
    OFF_PEAK = "off-peak"
    ON_COMMAND = "on-command"


WINDOWS = (time(2), time(8), time(14), time(20))
OFF_PEAK = (time(20), time(6))


class Timing(msgspec.Struct, frozen=True):
    """When work may begin, in the clock time of one place."""

    mode: Mode = Mode.AT_ONCE
    times: tuple[time, ...] = ()
    """Of windows: when each opens. Of off-peak: its begin and its end."""
    zone: str = ""
    """IANA name such as `Europe/London`; empty: UTC."""

    def __str__(self) -> str:
        separator = "-" if self.mode is Mode.OFF_PEAK else ","
        return " ".join(filter(None, (self.mode.value, separator.join(map(_clock, self.times)), self.zone)))

    def begins_at(self, now: datetime) -> datetime | None:
        """The earliest moment from `now` on, in UTC; `now` itself where nothing has to be waited for; None: unknown.

        A clock time that the change to summer time leaves out counts from the time before the change (02:30 becomes
        03:30), one that the change back repeats means the first; both as in RFC 5545.
        """
        now = now.astimezone(UTC)
        match self.mode:
            case Mode.AT_ONCE:
                return now
            case Mode.ON_COMMAND:
                return None
            case Mode.WINDOWS:
                return min(found for found in self._instants(now, self.times) if found >= now)
            case Mode.OFF_PEAK:
                return self._off_peak(now)

    def _off_peak(self, now: datetime) -> datetime:
        spans = self._off_peak_spans(now)
        if any(begin <= now < end for begin, end in spans):
            return now
        return min(begin for begin, _ in spans if begin > now)

    def _off_peak_spans(self, around: datetime) -> list[tuple[datetime, datetime]]:
        """Begins and ends, in UTC; none on a day whose change to summer time leaves nothing of it."""
        opens, closes = self.times
        days = 0 if opens < closes else 1
        zone = ZoneInfo(self.zone or "UTC")
        spans = [
            (_instant(day, opens, zone), _instant(day + timedelta(days=days), closes, zone))
            for day in self._days(around)
        ]
        return [(begin, end) for begin, end in spans if begin < end]

    def _instants(self, around: datetime, times: tuple[time, ...]) -> list[datetime]:
        """These clock times on the days around a moment, in UTC."""
        zone = ZoneInfo(self.zone or "UTC")
        return [_instant(day, one, zone) for day in self._days(around) for one in times]

    def _days(self, around: datetime) -> list[date]:
        """Two days each way: a zone that moves across the date line leaves a whole day out."""
        today = around.astimezone(ZoneInfo(self.zone or "UTC")).date()
        return [today + timedelta(days=days) for days in range(-2, 3)]


def parse(text: str, zone: str = "") -> Timing:
    """The timing that `text` says, in `zone` where it names none. Raises ValueError."""
    word, *rest = text.split() or [""]
    try:
        mode = Mode(word)
    except ValueError:
        raise ValueError(f"{text!r} begins with none of {', '.join(Mode)}") from None
    clock = rest.pop(0) if rest and rest[0][0].isdigit() else ""
    named = rest.pop(0) if rest else ""
    if rest or (mode in (Mode.AT_ONCE, Mode.ON_COMMAND) and (clock or named)):
        raise ValueError(f"{text!r}: {mode} is followed by {EXAMPLES[mode] or 'nothing'}")
    if mode in (Mode.AT_ONCE, Mode.ON_COMMAND):
        return Timing(mode)
    return Timing(mode, _times(mode, clock), checked_zone(named or zone))


def checked_zone(name: str) -> str:
    """The name, if there is such a time zone; empty for UTC. Raises ValueError."""
    if name and (not _ZONE.fullmatch(name) or _NO_PLACE.fullmatch(name)):
        raise ValueError(f"{name!r} is no time zone: write Europe/London")
    try:
        ZoneInfo(name or "UTC")
    except (KeyError, ValueError, OSError):  # the second and third for names of folders
        raise ValueError(f"there is no time zone {name!r}: write Europe/London") from None
    return name


EXAMPLES = {
    Mode.AT_ONCE: "",
    Mode.ON_COMMAND: "",
    Mode.WINDOWS: "02:00,08:00 Europe/London",
    Mode.OFF_PEAK: "22:00-06:00 Europe/London",
}


def _times(mode: Mode, text: str) -> tuple[time, ...]:
    if not text:
        return WINDOWS if mode is Mode.WINDOWS else OFF_PEAK
    found = [_CLOCK.fullmatch(one) for one in text.split("-" if mode is Mode.OFF_PEAK else ",")]
    times = [time(int(one[1]), int(one[2]), int(one[3] or 0)) for one in found if one]
    if len(times) < len(found):
        raise ValueError(f"{text!r}: {mode} is followed by {EXAMPLES[mode]}")
    if mode is Mode.OFF_PEAK:
        if len(times) != 2 or times[0] == times[1]:
            raise ValueError(f"{text!r} has no begin and end: {mode} is followed by {EXAMPLES[mode]}")
        return tuple(times)
    if len(set(times)) > MOST_WINDOWS:
        raise ValueError(f"{len(times)} windows, {MOST_WINDOWS} a day are allowed")
    return tuple(sorted(set(times)))


def _clock(moment: time) -> str:
    return moment.strftime("%H:%M:%S" if moment.second else "%H:%M")


def _instant(day: date, clock: time, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, clock, zone).astimezone(UTC)
