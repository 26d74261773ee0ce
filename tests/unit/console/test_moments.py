"""The times that people type."""

from datetime import UTC, datetime, timedelta

import pytest

from fusebus.console.moments import ahead, back, said, span_said

NOW = datetime(2026, 11, 21, 12, 30, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", NOW + timedelta(seconds=90)),
        ("1h30m", NOW + timedelta(minutes=90)),
        ("2d", NOW + timedelta(days=2)),
        ("18:30", datetime(2026, 11, 21, 18, 30, tzinfo=UTC)),
        ("06:00", datetime(2026, 11, 22, 6, tzinfo=UTC)),
        ("2026-11-22T06:00", datetime(2026, 11, 22, 6, tzinfo=UTC)),
        ("2026-11-22T06:00+02:00", datetime(2026, 11, 22, 4, tzinfo=UTC)),
    ],
)
def test_a_time_to_come(text: str, expected: datetime) -> None:
    assert ahead(text, NOW) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("20m", NOW - timedelta(minutes=20)),
        ("06:00", datetime(2026, 11, 21, 6, tzinfo=UTC)),
        ("18:30", datetime(2026, 11, 20, 18, 30, tzinfo=UTC)),
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
    ],
)
def test_a_time_that_has_been(text: str, expected: datetime) -> None:
    assert back(text, NOW) == expected


@pytest.mark.parametrize(
    "happened",
    [datetime(2026, 11, 21, 7, 36, 31, 400_000, tzinfo=UTC), datetime(2026, 11, 20, 18, 5, 0, 900_000, tzinfo=UTC)],
)
def test_a_time_as_it_is_said_here_is_taken_and_means_that_it_has_happened(happened: datetime) -> None:
    found = back(said(happened, NOW), NOW)
    assert happened <= found < happened + timedelta(seconds=1)
    assert back(f"{happened:%Y-%m-%dT%H:%M:%S}", NOW) == found


@pytest.mark.parametrize("text", ["", "soon", "25:00", "5", "h", "-2h", "2026-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        ahead(text, NOW)


def test_times_and_spans_in_words() -> None:
    assert said(NOW, NOW) == "12:30:15 UTC"
    assert said(NOW + timedelta(days=1), NOW) == "2026-11-22 12:30:15 UTC"
    assert [span_said(seconds) for seconds in (45, 600, 9000)] == ["45 s", "10 min", "2.5 h"]
