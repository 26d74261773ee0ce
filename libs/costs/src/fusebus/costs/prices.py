"""The price list: data with a date, a currency and a source; what an hour of a VM size costs on which terms."""

from __future__ import annotations

import os
from datetime import date, datetime
from enum import StrEnum
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from fusebus.costs.daily import DailyHours, edges
from fusebus.costs.sizes import full_name

HOURS_PER_MONTH = 730.0  # as Azure counts a month: 8,760 hours / 12

NotNegative = Annotated[float, Meta(ge=0)]


class PriceError(Exception):
    """A price list that can't be read, a price that it has not, a currency that it can't be turned into."""


class Term(StrEnum):
    """On which terms a node is bought."""

    DEDICATED = "dedicated"
    """Pay as you go."""
    SPOT = "spot"
    """May vanish at any time; Batch calls it low priority."""
    RESERVED_1_YEAR = "reserved_1_year"
    """Paid for every hour of a year, used or not."""
    RESERVED_3_YEARS = "reserved_3_years"


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """One hour of one node with Linux, without tax."""

    vm_size: str
    region: str
    """As Azure Resource Manager writes it: `uksouth`."""
    term: Term
    per_hour: Annotated[float, Meta(gt=0)]
    """In the list's currency; a reservation's price divided by the hours of its term."""
    approximate: bool = False
    """Derived or rounded, not copied from a list."""


class DailyPrice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A price that holds in some hours of every day in place of the usual one, as an off-peak agreement says."""

    vm_size: str
    region: str
    term: Term
    per_hour: Annotated[float, Meta(gt=0)]
    hours: DailyHours


class ServicePrices(msgspec.Struct, frozen=True, kw_only=True):
    """What costs money besides nodes, in the list's currency."""

    source: str
    service_bus_base_per_hour: NotNegative
    """One Standard namespace."""
    service_bus_included_operations: NotNegative
    """Of one month, paid by the base."""
    service_bus_per_million_operations: NotNegative
    event_grid_per_million_operations: NotNegative
    event_grid_included_operations: NotNegative
    storage_gb_month: NotNegative
    """Hot, locally redundant."""
    storage_writes_per_10k: NotNegative
    storage_reads_per_10k: NotNegative
    table_operations_per_10k: NotNegative


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """What the nodes of one pool cost an hour."""

    dedicated: float
    spot: float
    currency: str
    detail: str
    """The prices and where they are from, in words: samples carry it."""

    def per_hour(self, term: Term) -> float:
        """Of one node; reservations are paid whether used or not, their nodes count as dedicated."""
        return self.spot if term is Term.SPOT else self.dedicated


class PriceList(msgspec.Struct, frozen=True, kw_only=True):
    """All prices that are known, in one currency."""

    date: date
    currency: str
    source: str
    prices: tuple[Price, ...]
    services: ServicePrices
    exchange_rates: dict[str, Annotated[float, Meta(gt=0)]] = {}
    """Units of another currency for one of this; approximate, as of the list's date."""
    daily: tuple[DailyPrice, ...] = ()
    """Azure has none in its retail prices: they are written in by people, and a refresh keeps them."""

    def find(self, vm_size: str, region: str, term: Term) -> Price | None:
        """The price; None where the list has none: never a zero."""
        name = full_name(vm_size)
        for price in self.prices:
            if (price.vm_size, price.region, price.term) == (name, region, term):
                return price
        return None

    def dearest(self, vm_size: str, term: Term) -> Price | None:
        """The highest price of any region: what is charged where the region's own is unknown."""
        found = [price for price in self.prices if price.vm_size == full_name(vm_size) and price.term is term]
        return max(found, key=lambda price: price.per_hour, default=None)

    def rates(self, vm_size: str, region: str, at: datetime | None = None) -> Rates:
        """What a node of this size costs there, at that moment or outside of daily hours. Raises PriceError where the
        list has no dedicated price at all.

        Another region's highest price stands in for a missing one, the dedicated price for a missing Spot price: too
        dear rather than too cheap, and said in `detail`.
        """
        dedicated, words = self._at(vm_size, region, Term.DEDICATED, at)
        if dedicated is None:
            raise PriceError(f"the price list of {self.date} has no price for {full_name(vm_size)} in any region")
        spot, spot_words = self._at(vm_size, region, Term.SPOT, at)
        spot = dedicated if spot is None else min(spot, dedicated)
        return Rates(
            dedicated=dedicated,
            spot=spot,
            currency=self.currency,
            detail=f"{words}; Spot {spot_words or 'unknown, so as dedicated'}; list of {self.date}"[:300],
        )

    def changes(
        self, vm_size: str, region: str, after: datetime, until: datetime
    ) -> tuple[tuple[datetime, Rates], ...]:
        """From when on which rates hold, where daily prices begin or end. Raises PriceError."""
        hours = [one.hours for one in self.daily if (one.vm_size, one.region) == (full_name(vm_size), region)]
        return tuple((at, self.rates(vm_size, region, at)) for at in edges(hours, after, until))

    def _at(self, vm_size: str, region: str, term: Term, at: datetime | None) -> tuple[float | None, str]:
        wanted = (full_name(vm_size), region, term)
        for one in self.daily if at is not None else ():
            if (one.vm_size, one.region, one.term) == wanted and at is not None and one.hours.hold(at):
                hours = f"{one.hours.begins} to {one.hours.ends} UTC"
                return one.per_hour, f"{one.per_hour:.4g} {self.currency}/h (from {hours})"
        return self._or_dearest(vm_size, region, term)

    def _or_dearest(self, vm_size: str, region: str, term: Term) -> tuple[float | None, str]:
        if found := self.find(vm_size, region, term):
            return found.per_hour, f"{found.per_hour:.4g} {self.currency}/h{' (approximate)' * found.approximate}"
        if found := self.dearest(vm_size, term):
            where = f"the dearest region's, {found.region}, as {region or 'the region'} has none"
            return found.per_hour, f"{found.per_hour:.4g} {self.currency}/h ({where})"
        return None, ""

    def turned(self, amount: float, currency: str) -> float | None:
        """A sum in another currency in this list's; None without a rate for it."""
        rate = 1.0 if currency == self.currency else self.exchange_rates.get(currency)
        return amount / rate if rate else None

    def into(self, currency: str) -> PriceList:
        """The same list in another currency, every price then approximate. Raises PriceError without a rate for it."""
        if currency == self.currency:
            return self
        rate = self.exchange_rates.get(currency)
        if rate is None:
            known = ", ".join(sorted({self.currency, *self.exchange_rates}))
            raise PriceError(f"the price list of {self.date} is in {self.currency} and can be turned into: {known}")
        keep = {"source", "service_bus_included_operations", "event_grid_included_operations"}
        services = {
            name: value if name in keep else value * rate
            for name, value in msgspec.structs.asdict(self.services).items()
        }
        return PriceList(
            date=self.date,
            currency=currency,
            source=f"{self.source} Turned from {self.currency} into {currency} at {rate:g}.",
            prices=tuple(
                msgspec.structs.replace(price, per_hour=price.per_hour * rate, approximate=True)
                for price in self.prices
            ),
            services=ServicePrices(**services),
            daily=tuple(msgspec.structs.replace(one, per_hour=one.per_hour * rate) for one in self.daily),
            exchange_rates={
                self.currency: 1 / rate,
                **{name: value / rate for name, value in self.exchange_rates.items() if name != currency},
            },
        )


@lru_cache(maxsize=1)
def starting_prices() -> PriceList:
    """The list that comes with this package; its `source` says how far to trust it."""
    return msgspec.json.decode(files("fusebus.costs").joinpath("data/prices.json").read_bytes(), type=PriceList)


def load_prices(file: Path | str = "") -> PriceList:
    """The list in `file`, or the starting list without one. Raises PriceError."""
    if not file:
        return starting_prices()
    try:
        return msgspec.json.decode(Path(file).read_bytes(), type=PriceList)
    except OSError as error:
        raise PriceError(f"the price list {file} can't be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise PriceError(f"{file} is no price list: {error}") from error


def save_prices(prices: PriceList, file: Path) -> None:
    """Write the list as JSON, whole or not at all. Raises PriceError."""
    text = msgspec.json.format(msgspec.json.encode(prices), indent=1)
    beside = file.with_name(file.name + f".{os.getpid()}.new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(text + b"\n")
        beside.replace(file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise PriceError(f"the price list {file} can't be written: {error.strerror}") from error
