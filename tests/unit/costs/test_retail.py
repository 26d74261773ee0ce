"""The refresh against a real HTTP server that speaks the format of the Azure Retail Prices API."""

from datetime import UTC, date, datetime

import pytest
from aiohttp import web

from fusebus.costs import PriceError, Term, starting_prices
from fusebus.costs.retail import TRIES, Refreshed, refresh

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SIZES = ("NC4as_T4_v3", "Standard_D4s_v5")


async def refreshed(served, currency: str = "USD", regions: tuple[str, ...] = ("eastus", "uksouth")) -> Refreshed:
    return await refresh(
        served.url,
        starting_prices(),
        regions=regions,
        currency=currency,
        now=NOW,
        sizes=SIZES,
        first_pause_seconds=0.01,
    )


async def test_all_terms_come_from_all_pages_and_nothing_else_is_taken_for_a_price(retail_prices) -> None:
    found = await refreshed(retail_prices)
    prices = found.prices
    assert len(prices.prices) == len(SIZES) * 2 * len(Term)
    per_hour = [prices.find("NC4as_T4_v3", "eastus", term) for term in Term]
    assert [price and price.per_hour for price in per_hour] == pytest.approx([0.5, 0.15, 0.3, 0.2])
    assert not any(price.approximate for price in prices.prices)
    assert (prices.date, prices.currency) == (date(2026, 11, 21), "USD")
    assert retail_prices.url in prices.source and "Starting list" in prices.services.source
    assert found.missing == ()
    assert len(retail_prices.asked) == 10, "fourteen items a size in pages of three"


async def test_the_filter_asks_for_one_size_and_the_primary_meters(retail_prices) -> None:
    await refreshed(retail_prices)
    first = retail_prices.asked[0]
    assert first["$filter"] == "serviceName eq 'Virtual Machines' and armSkuName eq 'Standard_NC4as_T4_v3'"
    assert (first["currencyCode"], first["meterRegion"]) == ("'USD'", "'primary'")


async def test_another_currency_is_asked_for_and_services_are_turned_into_it(retail_prices) -> None:
    prices = (await refreshed(retail_prices, "GBP")).prices
    price = prices.find("NC4as_T4_v3", "uksouth", Term.DEDICATED)
    assert price and price.per_hour == pytest.approx(0.48) and not price.approximate
    assert prices.services.storage_gb_month == pytest.approx(starting_prices().services.storage_gb_month * 0.79)


async def test_a_size_that_is_not_known_here_can_be_asked_for_too(retail_prices) -> None:
    retail_prices.sell("Standard_NC64as_T4_v3", "eastus", 4.0)
    found = await refresh(
        retail_prices.url, starting_prices(), regions=["eastus"], currency="USD", now=NOW, sizes=["NC64as_T4_v3"]
    )
    assert found.prices.rates("Standard_NC64as_T4_v3", "eastus").dedicated == 4.0


async def test_what_the_api_lacks_and_what_changed_a_lot_is_named(retail_prices) -> None:
    retail_prices.items = [one for one in retail_prices.items if "Spot" not in one["skuName"]]
    retail_prices.sell("Standard_D4s_v5", "westeurope", 0.01)
    found = await refreshed(retail_prices, regions=("eastus", "westeurope"))
    assert "NC4as_T4_v3 eastus spot" in found.missing and "NC4as_T4_v3 westeurope dedicated" in found.missing
    assert any(words.startswith("Standard_D4s_v5 westeurope dedicated: 0.23 before") for words in found.suspicious)
    assert not any("NC4as" in words for words in found.suspicious)


async def test_passing_failures_are_tried_again_at_the_pace_that_is_asked_for(retail_prices) -> None:
    retail_prices.failures = [
        web.Response(status=429, headers={"Retry-After": "1"}),
        web.Response(status=503),
        web.Response(status=500),
    ]
    assert (await refreshed(retail_prices)).missing == ()
    assert len(retail_prices.asked) == 13


@pytest.mark.parametrize(
    ("answer", "tries", "said"),
    [
        (lambda: web.Response(status=500), TRIES, "answered 500; the price list stays"),
        (lambda: web.Response(status=400), 1, "answered 400"),
        (lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}), 1, "answered 302"),
        (lambda: web.Response(text="<html>"), 1, "no price document"),
        (lambda: web.Response(text='{"Items": [{"retailPrice": "free"}]}'), 1, "no price document"),
        (lambda: web.Response(text='{"Items": []}'), 2, "has no price for 2 sizes"),
        (lambda: web.Response(body=b" " * 8_100_000), 1, "a page of more than"),
    ],
    ids=["down", "refused", "redirected", "html", "other format", "empty", "huge"],
)
async def test_what_can_not_be_read_changes_nothing_and_is_said(retail_prices, answer, tries, said) -> None:
    retail_prices.failures = [answer() for _ in range(TRIES * 2)]
    with pytest.raises(PriceError, match=said):
        await refreshed(retail_prices)
    assert len(retail_prices.asked) == tries


@pytest.mark.parametrize("link", ["http://other.example/api/retail/prices?$skip=3", "same"])
async def test_a_next_page_elsewhere_or_in_a_circle_is_not_followed(retail_prices, link: str) -> None:
    retail_prices.next_link = (
        link if link != "same" else f"{retail_prices.url}?$filter=armSkuName eq 'x'&currencyCode='USD'"
    )
    with pytest.raises(PriceError, match="as its next page"):
        await refreshed(retail_prices)
    assert len(retail_prices.asked) <= 2


async def test_nobody_there_is_said(retail_prices) -> None:
    retail_prices.url = "http://127.0.0.1:1/api/retail/prices"
    with pytest.raises(PriceError, match="the price list stays as it is"):
        await refreshed(retail_prices)
