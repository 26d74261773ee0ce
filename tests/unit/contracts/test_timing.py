"""When work may begin: what people write, and clock times over both changes of summer time."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from fusebus.contracts.timing import OFF_PEAK, WINDOWS, Mode, Timing, parse

ZONES = (
    "",
    "Europe/London",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Asia/Kathmandu",
)
SPRING = datetime(2026, 3, 29, tzinfo=UTC)
AUTUMN = datetime(2026, 10, 25, tzinfo=UTC)

around_a_change = st.one_of(
    *(
        st.timedeltas(timedelta(days=-3), timedelta(days=3)).map(lambda passed, day=day: day + passed)
        for day in (SPRING, AUTUMN, datetime(2026, 3, 8, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
    )
)
moments = st.one_of(
    around_a_change,
    st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)).map(lambda naive: naive.replace(tzinfo=UTC)),
)
clocks = st.builds(time, st.integers(0, 23), st.sampled_from([0, 15, 30, 45, 59]))
windows = st.builds(
    lambda times, zone: Timing(Mode.WINDOWS, tuple(sorted(times)), zone),
    st.sets(clocks, min_size=1, max_size=6),
    st.sampled_from(ZONES),
)
off_peaks = st.builds(
    lambda times, zone: Timing(Mode.OFF_PEAK, tuple(times), zone),
    st.lists(clocks, min_size=2, max_size=2, unique=True),
    st.sampled_from(ZONES),
)


def shown(moment: datetime, zone: str) -> datetime:
    return moment.astimezone(ZoneInfo(zone or "UTC"))


def is_real(local: datetime) -> bool:
    """Whether clocks ever showed it, and not only a calendar."""
    return local.astimezone(UTC).astimezone(local.tzinfo).replace(tzinfo=None) == local.replace(tzinfo=None)


def openings(timing: Timing, begin: datetime, days: int) -> list[datetime]:
    """One after the other, as ingest would meet them."""
    found, now, end = [], begin, begin + timedelta(days=days)
    while (opens := timing.begins_at(now)) is not None and opens < end:
        found.append(opens)
        now = opens + timedelta(microseconds=1)
    return found


@given(windows, moments)
@example(parse("windows 02:30 Europe/Berlin"), SPRING)
@example(parse("windows 02:30 Europe/Berlin"), AUTUMN)
def test_a_window_opens_at_one_of_its_clock_times_and_no_other_is_nearer(timing: Timing, now: datetime) -> None:
    opens = timing.begins_at(now)
    assert opens is not None and now <= opens <= now + timedelta(hours=50)
    local = shown(opens, timing.zone)
    nominal = {datetime.combine(local.date(), one, local.tzinfo) for one in timing.times}
    assert local.time() in timing.times or not all(map(is_real, nominal)), "only a clock time that was left out moves"
    minutes = int((opens - now).total_seconds() // 60)
    for passed in range(0, minutes, 15):
        between = shown(now + timedelta(minutes=passed), timing.zone).replace(second=0, microsecond=0)
        if between.time() in timing.times and now <= between.astimezone(UTC) < opens:
            assert between.fold, "an earlier one was only the repeat of an hour that had come before"


@given(windows, moments)
def test_each_clock_time_opens_once_a_day_whatever_the_clocks_do(timing: Timing, now: datetime) -> None:
    zone = ZoneInfo(timing.zone or "UTC")
    begin = datetime.combine(shown(now, timing.zone).date(), time(), zone)
    days = 6
    end = datetime.combine(begin.date() + timedelta(days=days), time(), zone)
    wanted = {
        datetime.combine(begin.date() + timedelta(days=day), one, zone).astimezone(UTC)
        for day in range(-1, days + 1)
        for one in timing.times
    }
    first, last = begin.astimezone(UTC), end.astimezone(UTC)
    met = [one for one in openings(timing, first, days + 1) if one < last]
    assert met == sorted(one for one in wanted if first <= one < last)


@pytest.mark.parametrize(
    ("text", "now", "opens"),
    [
        ("windows 02:00 Europe/London", "2026-03-28T12:00Z", "2026-03-29T01:00Z"),  # 02:00 BST, first after the gap
        ("windows 01:30 Europe/London", "2026-03-28T12:00Z", "2026-03-29T01:30Z"),  # left out: 02:30 BST
        ("windows 02:00 Europe/London", "2026-03-29T12:00Z", "2026-03-30T01:00Z"),
        ("windows 01:30 Europe/London", "2026-10-24T12:00Z", "2026-10-25T00:30Z"),  # the first of two
        ("windows 01:30 Europe/London", "2026-10-25T00:31Z", "2026-10-26T01:30Z"),  # and not the second
        ("windows 02:00 Europe/London", "2026-10-24T12:00Z", "2026-10-25T02:00Z"),
        ("windows 02:00,08:00,14:00,20:00", "2026-06-01T08:00Z", "2026-06-01T08:00Z"),  # at that very moment
        ("windows 02:00 Europe/Berlin", "2026-03-28T12:00Z", "2026-03-29T01:00Z"),  # left out: 03:00 CEST
        ("off-peak 22:00-06:00 Europe/London", "2026-06-01T12:00Z", "2026-06-01T21:00Z"),
        ("off-peak 22:00-06:00 Europe/London", "2026-06-01T23:00Z", "2026-06-01T23:00Z"),
        ("off-peak 22:00-06:00 Europe/London", "2026-06-02T05:00Z", "2026-06-02T21:00Z"),  # the end is over
        ("off-peak 09:00-17:00", "2026-06-02T12:00Z", "2026-06-02T12:00Z"),
        ("off-peak 02:00-03:00 Europe/Berlin", "2027-03-28T12:30Z", "2027-03-29T00:00Z"),  # nothing was left of it
        ("off-peak 02:00-03:00 Europe/Berlin", "2027-03-27T12:30Z", "2027-03-29T00:00Z"),
        ("off-peak 01:30-02:00 Europe/London", "2027-03-28T12:00Z", "2027-03-29T00:30Z"),
    ],
)
def test_what_the_clocks_show_where_the_work_is_counts(text: str, now: str, opens: str) -> None:
    assert parse(text).begins_at(datetime.fromisoformat(now)) == datetime.fromisoformat(opens)


@given(off_peaks, moments)
def test_off_peak_work_begins_at_once_or_when_the_next_off_peak_begins(timing: Timing, now: datetime) -> None:
    opens = timing.begins_at(now)
    assert opens is not None and now <= opens <= now + timedelta(hours=50)
    assert timing.begins_at(opens) == opens, "what was put off is not put off again"
    if opens > now:
        nominal = datetime.combine(shown(opens, timing.zone).date(), timing.times[0], ZoneInfo(timing.zone or "UTC"))
        assert shown(opens, timing.zone).time() == timing.times[0] or not is_real(nominal)


@given(off_peaks, moments)
def test_off_peak_never_lasts_longer_than_its_clock_times_say_and_an_hour_over_a_change(
    timing: Timing, now: datetime
) -> None:
    begin, end = (datetime.combine(now, clock) for clock in timing.times)
    longest = (end - begin) % timedelta(days=1) + timedelta(hours=1)
    assume(longest < timedelta(hours=22))  # so that the looks below can't miss the time between two
    looks = [now + timedelta(hours=hours) for hours in range(longest // timedelta(hours=1) + 2)]
    inside = [timing.begins_at(moment) == moment for moment in looks]
    assert not all(inside), "longer than the clock times apart"


@given(off_peaks, moments)
def test_off_peak_is_the_clock_time_between_its_ends_on_a_day_without_a_change(timing: Timing, now: datetime) -> None:
    zone = ZoneInfo(timing.zone or "UTC")
    here = [now.astimezone(zone) + timedelta(hours=hours) for hours in range(-48, 49, 6)]
    if len({one.astimezone(zone).utcoffset() for one in (moment.astimezone(UTC) for moment in here)}) > 1:
        return
    begin, end = timing.times
    clock = now.astimezone(zone).time()
    inside = begin <= clock < end if begin < end else clock >= begin or clock < end
    assert (timing.begins_at(now) == now) is inside


@given(st.one_of(windows, off_peaks))
def test_a_timing_is_read_back_from_its_own_text(timing: Timing) -> None:
    assert parse(str(timing)) == timing


def test_what_is_left_out_follows_the_defaults() -> None:
    assert parse("windows", "Europe/London") == Timing(Mode.WINDOWS, WINDOWS, "Europe/London")
    assert str(parse("windows")) == "windows 02:00,08:00,14:00,20:00"
    assert parse("off-peak Europe/Berlin", "Europe/London") == Timing(Mode.OFF_PEAK, OFF_PEAK, "Europe/Berlin")
    assert parse("at-once", "Europe/London") == Timing()
    assert parse("on-command").begins_at(SPRING) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sometimes",
        "windows 25:00",
        "windows 2:00",
        "windows 02:00-08:00",
        "windows 02:00 Europe/Atlantis",
        "windows 02:00 Europe",
        "windows 02:00 localtime",
        "windows 02:00 right/Europe/London",
        "windows 02:00 ../../etc/passwd",
        "windows 02:00 Europe/London twice",
        "off-peak 02:00,08:00",
        "off-peak 08:00-08:00",
        "at-once 02:00",
        "on-command Europe/London",
        "windows " + ",".join(f"{n // 60:02}:{n % 60:02}" for n in range(49)),
    ],
)
def test_what_is_no_timing_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)
