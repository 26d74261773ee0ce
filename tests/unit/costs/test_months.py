"""What a month is."""

import pytest

from fusebus.costs import month_bounds


@pytest.mark.parametrize("month", ["2026-1", "2026-13", "26-01", " 2026-01", "2026-01-01", "9999-12", ""])
def test_what_is_no_month_is_refused(month: str) -> None:
    with pytest.raises(ValueError):
        month_bounds(month)
