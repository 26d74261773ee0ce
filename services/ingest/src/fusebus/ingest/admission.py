"""Whether an upload is taken now, by its supplier's record: state and quotas; what is not taken is held, and told."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import msgspec

from fusebus.arrivals import COPY_PENDING
from fusebus.blobs import BlobProperties
from fusebus.contracts.messages import UploadsHeld
from fusebus.ingest.events import copy_in_progress
from fusebus.ingest.policy import Place
from fusebus.ledger import Held, HeldBecause, SupplierRecord, SupplierState, next_day

_log = logging.getLogger(__name__)


class SupplierBook(Protocol):
    """What admission reads and writes of the ledger."""

    async def supplier(self, name: str) -> SupplierRecord | None: ...

    async def charge(self, record: SupplierRecord, upload_id: str, size: int, now: datetime) -> bool: ...

    async def hold(self, held: Held) -> None: ...

    async def held_upload(self, supplier: str, upload_id: str) -> Held | None: ...


class Properties(Protocol):
    """Where the size of a blob is seen: an event's claim is not believed."""

    async def properties(self, container: str, name: str) -> BlobProperties | None: ...


@dataclass(kw_only=True)
class Admission:
    """One process's view of the suppliers; a record is read anew after `refresh_seconds`.

    A supplier without a record is taken on ingest's settings, without a quota.
    """

    ledger: SupplierBook
    blobs: Properties
    clock: Callable[[], datetime]
    refresh_seconds: float
    monotonic: Callable[[], float] = time.monotonic
    _turns: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    """By supplier: our own handlers need not race for a day's counter."""
    _seen: dict[str, tuple[float, SupplierRecord | None]] = field(default_factory=dict)

    async def record(self, supplier: str) -> SupplierRecord | None:
        """At most `refresh_seconds` old. Raises LedgerError."""
        read_at, record = self._seen.get(supplier, (float("-inf"), None))
        if self.monotonic() - read_at >= self.refresh_seconds:
            record = await self.ledger.supplier(supplier)
            self._seen[supplier] = (self.monotonic(), record)
        return record

    async def holds(self, place: Place) -> UploadsHeld | None:
        """What to tell of an upload that is held, which the ledger has by then; None: it is taken, and counted.

        Raises LedgerError, StorageError, NotNow: nothing is decided.
        """
        record = await self.record(place.supplier)
        if record is None:
            return None
        now = self.clock()
        if record.state is not SupplierState.ACTIVE:
            return await self._hold(place, record, HeldBecause(record.state.value), now, None)
        if record.images_per_day is None and record.bytes_per_day is None:
            return None
        found = await self.blobs.properties(place.container, place.name)
        if found is not None and found.copy_status == COPY_PENDING:  # its size is not known yet
            raise copy_in_progress(f"{place.container}/{place.name!r} is being copied")
        size = found.size if found else 0
        async with self._turns[place.supplier]:
            if await self.ledger.charge(record, place.upload_id, size, now):
                return None
        return await self._hold(place, record, HeldBecause.QUOTA, now, next_day(now))

    async def taken(self, place: Place) -> None:
        """The upload is in the ledger: if it was held, it is not any more. Raises LedgerError."""
        if await self.record(place.supplier) is None:
            return
        held = await self.ledger.held_upload(place.supplier, place.upload_id)
        if held is not None and held.released_at is None:
            await self.ledger.hold(msgspec.structs.replace(held, released_at=self.clock()))

    async def still_holds(self, supplier: str, upload_id: str) -> bool:
        """Whether the sweep should leave an upload alone for now. Raises LedgerError."""
        record = await self.record(supplier)
        if record is None:
            return False
        held = await self.ledger.held_upload(supplier, upload_id)
        return held is not None and not held.is_over(self.clock(), record)

    async def _hold(
        self, place: Place, record: SupplierRecord, because: HeldBecause, now: datetime, until: datetime | None
    ) -> UploadsHeld:
        held = Held(
            upload_id=place.upload_id,
            supplier=place.supplier,
            container=place.container,
            blob_name=place.name,
            because=because,
            held_at=now,
            until=until,
        )
        await self.ledger.hold(held)
        _log.info("held", extra={"upload": place.upload_id, "because": because.value})
        return UploadsHeld(
            supplier=record.name,
            because=because.value,
            day=f"{now:%Y-%m-%d}",
            held_at=now,
            until=until,
            email=record.email,
            images_per_day=record.images_per_day,
            bytes_per_day=record.bytes_per_day,
        )
