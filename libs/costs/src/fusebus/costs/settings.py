"""Where prices and the bill are read, and what a month may cost: section `costs` of the dispatcher and the console."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from fusebus.costs.budget import Budget
from fusebus.costs.prices import PriceError, PriceList, load_prices
from fusebus.host import SettingsError

RETAIL_PRICES_URL = "https://prices.azure.com/api/retail/prices"


class CostSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Section `costs`: variables FUSEBUS_COSTS_<FIELD>."""

    price_file: Annotated[
        str, Meta(description="Price list that `fusebus prices refresh` wrote; empty: the starting list, approximate.")
    ] = ""
    region: Annotated[
        str, Meta(pattern="^[a-z0-9]{1,40}$", description="Azure region of the nodes; prices differ by it.")
    ] = "uksouth"
    currency: Annotated[
        str, Meta(pattern="^[A-Z]{3}$", description="Of the budget and of every cost that is kept.")
    ] = "GBP"
    budget_per_month: Annotated[float, Meta(ge=0, description="In `currency`; 0: no budget, no alerts and no cap.")] = (
        0.0
    )
    hard_cap: Annotated[
        bool, Meta(description="A spent budget stops buying nodes; deadlines are then missed, and it is said which.")
    ] = True
    keep_days: Annotated[
        float, Meta(ge=0, description="How long pictures and results are kept: their storage is charged on arrival.")
    ] = 90.0
    retail_prices_url: Annotated[str, Meta(description="The Azure Retail Prices API; it needs no login.")] = (
        RETAIL_PRICES_URL
    )
    bill_scope: Annotated[
        str,
        Meta(
            pattern="^(/?subscriptions/[^?#]+)?$",
            description="/subscriptions/<id>/resourceGroups/<name> whose bill is compared each night; empty: none.",
        ),
    ] = ""
    bill_url: Annotated[
        str, Meta(description="Another address of Cost Management (a test's); empty: Azure, with managed identity.")
    ] = ""
    bill_hour_utc: Annotated[
        int, Meta(ge=0, le=23, description="Hour of the day, UTC, from which the bill is read once a day.")
    ] = 3

    def budget(self) -> Budget:
        """The month's budget."""
        return Budget(amount=self.budget_per_month, currency=self.currency, hard_cap=self.hard_cap)

    def prices(self) -> PriceList:
        """The price list in `currency`. Raises SettingsError."""
        try:
            return load_prices(self.price_file).into(self.currency)
        except PriceError as error:
            raise SettingsError([f"FUSEBUS_COSTS_PRICE_FILE, FUSEBUS_COSTS_CURRENCY: {error}"]) from error
