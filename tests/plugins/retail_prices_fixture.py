"""A real HTTP server that serves documents in the format of the Azure Retail Prices API, and can misbehave."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web


def item(sku: str, region: str, price: float, **more: Any) -> dict[str, Any]:
    """One item with all the fields that the API sends."""
    short = sku.removeprefix("Standard_").replace("_", " ")
    return {
        "currencyCode": "USD",
        "tierMinimumUnits": 0.0,
        "retailPrice": price,
        "unitPrice": price,
        "armRegionName": region,
        "location": region,
        "effectiveStartDate": "2026-01-01T00:00:00Z",
        "meterId": "00000000-0000-0000-0000-000000000000",
        "meterName": short,
        "productId": "DZH318Z0BQ4L",
        "skuId": "DZH318Z0BQ4L/00G1",
        "availabilityId": None,
        "productName": "Virtual Machines Series",
        "skuName": short,
        "serviceName": "Virtual Machines",
        "serviceId": "DZH313Z7MMC8",
        "serviceFamily": "Compute",
        "unitOfMeasure": "1 Hour",
        "type": "Consumption",
        "isPrimaryMeterRegion": True,
        "savingsPlan": [
            {"unitPrice": price * 0.7, "retailPrice": price * 0.7, "term": "1 Year"},
            {"unitPrice": price * 0.5, "retailPrice": price * 0.5, "term": "3 Years"},
        ],
        "armSkuName": sku,
        **more,
    }


@dataclass
class RetailPrices:
    """What the server has, how it fails, and what it was asked."""

    url: str = ""
    items: list[dict[str, Any]] = field(default_factory=list)
    page_size: int = 3
    failures: list[web.Response] = field(default_factory=list)
    """Answers for the next requests, before any page."""
    next_link: str = ""
    """In place of the true NextPageLink."""
    asked: list[dict[str, str]] = field(default_factory=list)

    def sell(self, sku: str, region: str, price: float) -> None:
        """All that the API lists for one size in one region, Windows and low priority included."""
        name = item(sku, region, price)["skuName"]
        self.items += [
            item(sku, region, price),
            item(sku, region, price * 0.3, skuName=f"{name} Spot", meterName=f"{name} Spot"),
            item(sku, region, price * 0.2, skuName=f"{name} Low Priority", meterName=f"{name} Low Priority"),
            item(sku, region, price * 1.4, productName="Virtual Machines Series Windows"),
            item(sku, region, price * 0.5, type="DevTestConsumption"),
            item(sku, region, price * 8760 * 0.6, type="Reservation", reservationTerm="1 Year"),
            item(sku, region, price * 26280 * 0.4, type="Reservation", reservationTerm="3 Years"),
        ]

    async def answer(self, request: web.Request) -> web.Response:
        """One page of what the filter selects."""
        query = dict(request.query)
        self.asked.append(query)
        if self.failures:
            return self.failures.pop(0)
        wanted = dict(re.findall(r"(\w+) eq '([^']*)'", query["$filter"]))
        currency = query["currencyCode"].strip("'")
        rate = {"USD": 1.0, "GBP": 0.8}[currency]
        found = [
            {**one, "retailPrice": one["retailPrice"] * rate, "currencyCode": currency}
            for one in self.items
            if all(one[name] == value for name, value in wanted.items())
        ]
        skip = int(query.get("$skip", 0))
        more = skip + self.page_size < len(found)
        following = str(request.url.update_query({"$skip": str(skip + self.page_size)})) if more else None
        return web.json_response(
            {
                "BillingCurrency": currency,
                "CustomerEntityId": "Default",
                "CustomerEntityType": "Retail",
                "Items": found[skip : skip + self.page_size],
                "NextPageLink": self.next_link or following,
                "Count": len(found[skip : skip + self.page_size]),
            }
        )


@pytest.fixture
async def retail_prices() -> AsyncIterator[RetailPrices]:
    """Listening on 127.0.0.1, with two sizes in two regions."""
    served = RetailPrices()
    for region, factor in (("eastus", 1.0), ("uksouth", 1.2)):
        served.sell("Standard_NC4as_T4_v3", region, 0.5 * factor)
        served.sell("Standard_D4s_v5", region, 0.2 * factor)
    application = web.Application()
    application.router.add_get("/api/retail/prices", served.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/retail/prices"
    yield served
    await runner.cleanup()
