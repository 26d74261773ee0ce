"""What is left of a budget, which alerts are due, what a spent one does to the deadlines, and the forecast."""

import math
from datetime import UTC, date, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusebus.costs import Budget, MonthSoFar, Verdict, Waiting, forecast, month_bounds, what_happens

BUDGET = Budget(amount=100, currency="GBP")
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def so_far(spent: float | None, foretold: float | None = None, burning: float = 0, told: tuple[str, ...] = ()):
    return MonthSoFar(month="2026-11", spent=spent, forecast=foretold, burning_per_hour=burning, told=frozenset(told))


@pytest.mark.parametrize(
    ("spent", "foretold", "marks"),
    [
        (0, None, []),
        (49.99, 100, []),
        (50, 100, ["0.5"]),
        (85, None, ["0.5", "0.8"]),
        (10, 100.01, ["forecast"]),
        (99.99, 120, ["0.5", "0.8", "0.9", "forecast"]),
        (100, 120, ["0.5", "0.8", "0.9", "1", "forecast"]),
    ],
)
def test_alerts_come_at_each_share_and_on_a_forecast_above_the_budget(
    spent: float, foretold: float | None, marks: list[str]
) -> None:
    alerts = BUDGET.after(so_far(spent, foretold)).alerts
    assert [alert.mark for alert in alerts] == [f"{mark}-of-100-GBP" for mark in marks]


@given(st.lists(st.floats(0, 30), max_size=30), st.floats(1, 200))
def test_each_alert_comes_once_in_order_and_what_is_left_never_grows(costs: list[float], amount: float) -> None:
    budget, spent, told, left = Budget(amount=amount, currency="GBP"), 0.0, [], math.inf
    for cost in costs:
        spent += cost
        verdict = budget.after(so_far(spent, told=tuple(told)))
        told += [alert.mark for alert in verdict.alerts]
        assert verdict.left is not None and 0 <= verdict.left <= left
        left = verdict.left
    assert len(told) == len(set(told))
    assert [float(mark.split("-")[0]) for mark in told] == [
        share for share in (0.5, 0.8, 0.9, 1.0) if costs and spent >= share * amount
    ]


def test_a_raised_budget_buys_again_and_tells_its_own_shares() -> None:
    told = tuple(alert.mark for alert in BUDGET.after(so_far(100)).alerts)
    raised = msgspec.structs.replace(BUDGET, amount=160)
    verdict = raised.after(so_far(100, told=told))
    assert verdict.left == 60 and verdict.may_buy
    assert [alert.mark for alert in verdict.alerts] == ["0.5-of-160-GBP"]


def test_the_end_of_what_runs_is_kept_back_and_told_as_a_spent_budget() -> None:
    verdict = BUDGET.after(so_far(99.5, burning=4))
    assert verdict.left == 0 and not verdict.may_buy
    assert verdict.alerts[-1].mark == "1-of-100-GBP"
    assert "1.00 kept for ending what runs" in verdict.because


def test_buying_does_not_flutter_once_the_spent_budget_was_told() -> None:
    told = tuple(alert.mark for alert in BUDGET.after(so_far(99.5, burning=4)).alerts)
    assert BUDGET.after(so_far(99.8, burning=0, told=told)).left == 0


def test_buying_goes_on_when_a_large_fleet_has_ended_and_left_much_of_what_was_kept_for_it() -> None:
    stopped = BUDGET.after(so_far(60, burning=160))
    told = tuple(alert.mark for alert in stopped.alerts)
    assert stopped.left == 0 and told == ("0.5-of-100-GBP", "1-of-100-GBP")
    assert BUDGET.after(so_far(65, burning=120, told=told)).left == 0, "it leaves node by node"
    assert BUDGET.after(so_far(70, burning=0, told=told)).left == 30
    assert BUDGET.after(so_far(91, burning=0, told=told)).left == 0


def test_without_a_cap_there_are_only_alerts() -> None:
    verdict = Budget(amount=100, currency="GBP", hard_cap=False).after(so_far(150))
    assert verdict.left == math.inf and len(verdict.alerts) == 4


def test_without_a_budget_nothing_is_limited_or_told() -> None:
    assert Budget(amount=0, currency="GBP").after(so_far(None)) == Verdict(
        left=math.inf, alerts=(), because="there is no budget"
    )


def test_unknown_spending_is_not_zero_nothing_new_is_bought() -> None:
    verdict = BUDGET.after(so_far(None))
    assert verdict.left is None and not verdict.may_buy and not verdict.alerts


def test_what_a_spent_budget_does_to_the_deadlines_is_said() -> None:
    verdict = BUDGET.after(so_far(100))
    waiting = [
        Waiting(images=300, deadline=NOW + timedelta(days=2)),
        Waiting(images=40, deadline=NOW + timedelta(days=20)),
    ]
    words = what_happens(verdict, "2026-11", waiting, NOW)
    assert "Nodes that are there go on with what waits" in words
    assert "with the new month on 1 December 00:00 UTC" in words
    assert "340 images wait, 300 of them are due before" in words
    assert "23 November 12:00 UTC, 7.5 days before" in words
    assert what_happens(verdict, "2026-11", [], NOW).endswith("Nothing waits.")
    assert what_happens(BUDGET.after(so_far(10)), "2026-11", waiting, NOW) == ""


def days(first: date, costs: list[float]) -> dict[date, float]:
    return {first + timedelta(days=number): cost for number, cost in enumerate(costs) if cost}


def test_an_even_month_is_foretold_exactly() -> None:
    by_day = days(date(2026, 11, 1), [2.0] * 20)
    assert forecast(41, by_day, NOW) == pytest.approx(41 + 1 + 9 * 2)


def test_weekends_are_foretold_from_weekends() -> None:
    by_day = {day: 10.0 for number in range(28) if (day := date(2026, 10, 24) + timedelta(days=number)).weekday() < 5}
    # 21 November 2026 is a Saturday: five working days and one Monday are to come.
    assert forecast(150, by_day, NOW) == pytest.approx(150 + 6 * 10)


@pytest.mark.parametrize("by_day", [{}, {date(2026, 11, 21): 5.0}, {date(2026, 11, 20): 5.0}])
def test_too_little_is_known_to_foretell_anything(by_day: dict[date, float]) -> None:
    assert forecast(5, by_day, NOW) is None


def test_days_without_cost_count_and_the_month_before_helps_on_the_first_day() -> None:
    by_day = days(date(2026, 10, 28), [8.0, 0.0, 0.0, 0.0])
    assert forecast(0, by_day, datetime(2026, 11, 1, tzinfo=UTC)) == pytest.approx(30 * 2)


def test_a_month_has_its_bounds_in_utc() -> None:
    assert month_bounds("2026-12") == (datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
