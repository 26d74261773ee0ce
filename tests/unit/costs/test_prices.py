"""The price list as data: what it has, what stands in for what it has not, and that its doubts are said."""

from datetime import date
from pathlib import Path

import msgspec
import pytest

from fusebus.costs import (
    SIZES,
    PriceError,
    Term,
    UnknownVmSize,
    full_name,
    load_prices,
    same_family,
    save_prices,
    starting_prices,
    vm_size,
)
from fusebus.costs.settings import CostSettings
from fusebus.host import SettingsError

REGIONS = ("eastus", "westus3", "uksouth", "westeurope")


def test_the_starting_list_has_every_size_region_and_term_and_says_what_it_is() -> None:
    prices = starting_prices()
    for size in SIZES:
        for region in REGIONS:
            found = [prices.find(size.name, region, term) for term in Term]
            dedicated, spot, one_year, three_years = (price.per_hour for price in found if price)
            assert dedicated > one_year > three_years > 0 < spot < dedicated
    assert prices.date == date(2025, 1, 1)
    assert "Starting list" in prices.source and "fusebus prices refresh" in prices.source
    assert all(price.approximate for price in prices.prices if price.term is not Term.DEDICATED)


def test_a_missing_price_is_never_zero_the_dearest_region_stands_in_and_is_named() -> None:
    prices = starting_prices()
    assert prices.find("NC4as_T4_v3", "mars", Term.SPOT) is None
    rates = prices.rates("NC4as_T4_v3", "mars")
    assert rates.dedicated == max(p.per_hour for p in prices.prices if p.vm_size.endswith("T4_v3"))
    assert "westeurope, as mars has none" in rates.detail
    with pytest.raises(PriceError, match="no price for Standard_M416"):
        prices.rates("M416", "eastus")


def test_another_currency_is_approximate_and_says_its_rate_and_the_way_back_is_the_same() -> None:
    dollars = starting_prices()
    pounds = dollars.into("GBP")
    assert pounds.rates("NC4as_T4_v3", "uksouth").dedicated == pytest.approx(0.615 * 0.79)
    assert "at 0.79" in pounds.source and all(price.approximate for price in pounds.prices)
    assert pounds.services.service_bus_included_operations == dollars.services.service_bus_included_operations
    back = pounds.into("USD")
    assert back.prices[0].per_hour == pytest.approx(dollars.prices[0].per_hour)
    assert pounds.into("EUR").prices[0].per_hour == pytest.approx(dollars.into("EUR").prices[0].per_hour)
    with pytest.raises(PriceError, match="can be turned into: EUR, GBP, USD"):
        dollars.into("XXX")


def test_a_list_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "new" / "prices.json"
    save_prices(starting_prices(), file)
    assert load_prices(file) == starting_prices()
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("content", "said"), [(None, "can't be read"), ("{}", "no price list"), ("x", "no price list")]
)
def test_a_list_that_is_none_is_named(tmp_path: Path, content: str | None, said: str) -> None:
    file = tmp_path / "prices.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(PriceError, match=said):
        load_prices(file)
    with pytest.raises(SettingsError, match="FUSEBUS_COSTS_PRICE_FILE"):
        CostSettings(price_file=str(file)).prices()


def test_vm_sizes_are_known_with_and_without_prefix_and_in_any_case() -> None:
    assert vm_size("nc24ads_a100_v4").name == full_name("STANDARD_NC24ADS_A100_V4") == "Standard_NC24ads_A100_v4"
    assert (vm_size("NC40ads_H100_v5").vcpus, vm_size("NC4as_T4_v3").gpus, vm_size("D4s_v5").gpus) == (40, 1, 0)
    with pytest.raises(UnknownVmSize, match="known are NC4as_T4_v3"):
        vm_size("NC6s_v3")


def test_a_family_has_many_spellings() -> None:
    assert same_family("Standard NCASv3_T4 Family", "standardNCASv3T4Family")
    assert not same_family("Standard NCASv3_T4 Family", "StandardNCADSA100v4Family")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("prices", 0, "per_hour"), 0),
        (("prices", 0, "per_hour"), -0.1),
        (("exchange_rates", "GBP"), 0),
        (("services", "storage_gb_month"), -1),
    ],
)
def test_a_list_with_a_price_that_can_not_be_is_refused(
    tmp_path: Path, place: tuple[str | int, ...], value: float
) -> None:
    found = msgspec.json.decode(msgspec.json.encode(starting_prices()))
    inner = found
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    file = tmp_path / "prices.json"
    file.write_bytes(msgspec.json.encode(found))
    with pytest.raises(PriceError, match="is no price list"):
        load_prices(file)
