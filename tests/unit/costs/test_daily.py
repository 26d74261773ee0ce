"""Prices of some hours of every day: when they hold, when they change, and that a list keeps them."""

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from fusebus.costs import DailyHours, DailyPrice, PriceList, Term, load_prices, save_prices, starting_prices

NIGHT = DailyHours(begins="22:00", ends="06:00")
NOON = DailyHours(begins="12:00", ends="13:30")
CHEAP = DailyPrice(vm_size="Standard_NC4as_T4_v3", region="uksouth", term=Term.SPOT, per_hour=0.05, hours=NIGHT)


def at(hour: int, minute: int = 0, day: int = 21) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


@pytest.fixture
def prices() -> PriceList:
    return msgspec.structs.replace(starting_prices(), daily=(CHEAP,))


@pytest.mark.parametrize(
    ("hours", "moment", "holds"),
    [
        (NIGHT, at(22), True),
        (NIGHT, at(23, 59), True),
        (NIGHT, at(0), True),
        (NIGHT, at(5, 59), True),
        (NIGHT, at(6), False),
        (NIGHT, at(21, 59), False),
        (NOON, at(12), True),
        (NOON, at(13, 30), False),
        (DailyHours(begins="00:00", ends="00:00"), at(12), True),
        (NIGHT, datetime(2026, 11, 21, 23, tzinfo=timezone(timedelta(hours=2))), False),
    ],
)
def test_hours_hold_from_their_beginning_until_before_their_end(
    hours: DailyHours, moment: datetime, holds: bool
) -> None:
    assert hours.hold(moment) is holds


def test_rates_are_those_of_the_moment(prices: PriceList) -> None:
    usual = prices.rates("NC4as_T4_v3", "uksouth")
    assert prices.rates("NC4as_T4_v3", "uksouth", at(12)) == usual
    night = prices.rates("NC4as_T4_v3", "uksouth", at(23))
    assert (night.spot, night.dedicated) == (0.05, usual.dedicated)
    assert "22:00 to 06:00 UTC" in night.detail
    assert prices.rates("NC4as_T4_v3", "westeurope", at(23)) == prices.rates("NC4as_T4_v3", "westeurope")


def test_changes_of_the_next_day_are_known_with_the_rates_that_follow(prices: PriceList) -> None:
    found = prices.changes("NC4as_T4_v3", "uksouth", at(12), at(12, day=22))
    usual = prices.rates("NC4as_T4_v3", "uksouth").spot
    assert [(moment, rates.spot) for moment, rates in found] == [(at(22), 0.05), (at(6, day=22), usual)]
    assert prices.changes("NC24ads_A100_v4", "uksouth", at(12), at(12, day=22)) == ()


def test_a_list_in_another_currency_and_on_disk_keeps_them(prices: PriceList, tmp_path) -> None:
    rate = prices.exchange_rates["GBP"]
    assert prices.into("GBP").daily[0].per_hour == pytest.approx(0.05 * rate)
    save_prices(prices, tmp_path / "prices.json")
    assert load_prices(tmp_path / "prices.json").daily == (CHEAP,)


@pytest.mark.parametrize("clock", ["24:00", "7:00", "12:60", "noon"])
def test_a_clock_that_is_none_is_refused(clock: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"begins": clock, "ends": "06:00"}, DailyHours)
