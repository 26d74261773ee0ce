"""Estimates what storage and messages cost for so many images: nobody meters them, the bill says it days later."""

from __future__ import annotations

import msgspec

from fusebus.costs.prices import HOURS_PER_MONTH, ServicePrices

BUS_OPERATIONS_PER_IMAGE = 13.0  # sends, copies per subscription, receives and settles of three topics
EVENTS_PER_IMAGE = 1.0  # Event Grid's BlobCreated
BLOB_WRITES_PER_IMAGE = 3.0  # the upload itself, the annotated picture, the JSON
BLOB_READS_PER_IMAGE = 3.0  # ingest, inferencer, thumbnail or a person
TABLE_OPERATIONS_PER_IMAGE = 12.0
RESULT_BYTES_PER_BYTE_IN = 1.1  # an annotated picture is about as large as its original; the JSON is small
DAYS_PER_MONTH = 365.25 / 12
GB = 1e9  # bytes; storage is billed by GiB, 7 % more for the same number: within what an estimate can say


class ServicesCost(msgspec.Struct, frozen=True, kw_only=True):
    """By what it is for; an estimate, in the price list's currency."""

    base: float
    """The Service Bus namespace, used or not."""
    messages: float
    """Service Bus beyond what the base includes, and Event Grid."""
    requests: float
    """Of blobs and tables."""
    storage: float
    """What arrived, for as long as it is kept: charged on arrival, so that it has a supplier."""

    @property
    def total(self) -> float:
        """All of it."""
        return self.base + self.messages + self.requests + self.storage

    @property
    def words(self) -> str:
        """For a sample's detail."""
        return (
            f"estimated: base {self.base:.4f}, messages {self.messages:.4f}, requests {self.requests:.4f}, "
            f"storage {self.storage:.4f}"
        )


def services_cost(
    prices: ServicePrices, *, images: float, bytes_in: float, days: float, keep_days: float
) -> ServicesCost:
    """What `days` days with so many uploads of so many bytes in all cost; `keep_days`: how long pictures are kept.

    What the base includes for a month counts pro rata.
    """
    share = days / DAYS_PER_MONTH
    bus = max(0.0, images * BUS_OPERATIONS_PER_IMAGE - share * prices.service_bus_included_operations)
    events = max(0.0, images * EVENTS_PER_IMAGE - share * prices.event_grid_included_operations)
    requests = (
        BLOB_WRITES_PER_IMAGE * prices.storage_writes_per_10k
        + BLOB_READS_PER_IMAGE * prices.storage_reads_per_10k
        + TABLE_OPERATIONS_PER_IMAGE * prices.table_operations_per_10k
    )
    kept = bytes_in * (1 + RESULT_BYTES_PER_BYTE_IN) / GB
    return ServicesCost(
        base=prices.service_bus_base_per_hour * HOURS_PER_MONTH * share,
        messages=(bus * prices.service_bus_per_million_operations + events * prices.event_grid_per_million_operations)
        / 1e6,
        requests=images * requests / 1e4,
        storage=kept * prices.storage_gb_month * keep_days / DAYS_PER_MONTH,
    )
