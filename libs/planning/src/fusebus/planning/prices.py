"""What can be bought: pools with their VM size, rate and prices, and price changes that are known ahead."""

from __future__ import annotations

import msgspec


class PoolOffer(msgspec.Struct, frozen=True, kw_only=True):
    """A pool and what one of its nodes costs and does. Prices in one currency per node and hour."""

    pool: str
    kind: str
    """The job kind that its workers do."""
    vm_size: str
    family: str
    """Quotas of dedicated cores are by family."""
    vcpus: int
    images_per_second: float
    """Of one node, assumed until `KindDemand.service` has a measurement."""
    dedicated_per_hour: float | None = None
    """None: not for sale."""
    spot_per_hour: float | None = None
    region: str = ""
    max_nodes: int = 100
    """Of this pool, dedicated and Spot together."""

    def price(self, spot: bool) -> float | None:
        """Per node and hour; None: not for sale."""
        return self.spot_per_hour if spot else self.dedicated_per_hour


class PriceChange(msgspec.Struct, frozen=True, kw_only=True):
    """A price that will be true from `at` (seconds since 1970)."""

    pool: str
    at: float
    dedicated_per_hour: float | None = None
    """None: as before."""
    spot_per_hour: float | None = None

    def price(self, spot: bool) -> float | None:
        """The new price; None: as before."""
        return self.spot_per_hour if spot else self.dedicated_per_hour


class Prices(msgspec.Struct, frozen=True, kw_only=True):
    """All offers, home region first: among equals the earlier one is bought."""

    offers: tuple[PoolOffer, ...] = ()
    changes: tuple[PriceChange, ...] = ()
    currency: str = "USD"
