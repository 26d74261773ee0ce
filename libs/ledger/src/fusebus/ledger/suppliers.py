"""Who may deliver, on which terms and with which grants; what each delivered in a day; and what is held meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec

from fusebus.contracts.messages import JobKind, Lane
from fusebus.ledger.columns import from_columns, to_columns
from fusebus.ledger.tables import Row, Tables

SUPPLIERS = "suppliers"
RECORD = "record"
GRANT = "grant:"
HELD = "held:"
USAGE = "usage"
USED = "used"
ANY_KIND = "any"
"""The job kind of a timing that holds for all that have none of their own."""


class SupplierState(StrEnum):
    """Only an active supplier's uploads are processed; the others' are held."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    REMOVED = "removed"


class SupplierRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A supplier as people set it up; None means ingest's own setting, and no limit."""

    name: str
    state: SupplierState = SupplierState.ACTIVE
    added_at: datetime
    changed_at: datetime
    """When state, quotas or defaults changed last: what was held before is looked at anew."""
    changed_by: str
    reason: str = ""
    """Why it is in this state."""
    job_kind: JobKind | None = None
    lane: Lane | None = None
    deadline_seconds: float | None = None
    """From entering the ledger to the time an image shall be done."""
    email: str = ""
    """Where the supplier is told; empty: nobody there is."""
    when: dict[str, str] = {}
    """When photos are announced (see contracts.timing), by job kind or `any`; empty: as ingest's settings say."""
    images_per_day: int | None = None
    """Uploads of a UTC day that are taken, whatever becomes of them."""
    bytes_per_day: int | None = None
    version: str = ""
    """The row's own ETag."""


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """That a supplier was given a token; the token itself is kept nowhere."""

    grant_id: str
    supplier: str
    made_at: datetime
    made_by: str
    expires_at: datetime
    revocable: bool
    """Whether storage can take back this one token (stored access policy), or only all of the account's."""
    revoked_at: datetime | None = None


class HeldBecause(StrEnum):
    """Why an upload is held."""

    QUOTA = "quota"
    SUSPENDED = "suspended"
    REMOVED = "removed"


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """An upload that lies in storage and is not taken yet. Its name is data."""

    upload_id: str
    supplier: str
    container: str
    blob_name: str
    because: HeldBecause
    held_at: datetime
    until: datetime | None = None
    """When the sweep offers it again; None: when the supplier is active again."""
    released_at: datetime | None = None
    """When it was taken after all."""

    def is_over(self, now: datetime, record: SupplierRecord | None) -> bool:
        """Whether the upload may be offered again."""
        if self.released_at is not None or record is None or record.changed_at > self.held_at:
            return True
        if self.because is HeldBecause.QUOTA:
            return self.until is not None and now >= self.until
        # Held by a process that did not know yet that the supplier is active again: no later change would free it.
        return record.state is SupplierState.ACTIVE


class Usage(msgspec.Struct, frozen=True):
    """What a supplier's day has been charged."""

    images: int = 0
    size: int = 0
    """Bytes."""

    def fits(self, size: int, record: SupplierRecord) -> bool:
        """Whether `size` more bytes are within the quotas; a day's first always is: else it would wait for ever."""
        images = record.images_per_day is None or self.images < record.images_per_day
        return images and (record.bytes_per_day is None or not self.images or self.size + size <= record.bytes_per_day)


class SupplierLedger:
    """Records and grants are written by people's commands, usage and held uploads by ingest."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def supplier(self, name: str) -> SupplierRecord | None:
        """None where nobody added such a supplier."""
        row = await self._tables.get(SUPPLIERS, name, RECORD)
        return from_columns(row.columns, SupplierRecord, version=row.version) if row else None

    async def suppliers(self) -> list[SupplierRecord]:
        """All, the removed ones too, by name."""
        rows = self._tables.query(SUPPLIERS, None, RECORD, RECORD + "!")
        found = [from_columns(row.columns, SupplierRecord, version=row.version) async for row in rows]
        return sorted(found, key=lambda record: record.name)

    async def add_supplier(self, record: SupplierRecord) -> bool:
        """False where there is another one of that name, removed or not."""
        if await self._tables.insert(SUPPLIERS, Row(record.name, RECORD, to_columns(record))):
            return True
        there = await self.supplier(record.name)
        return there is not None and msgspec.structs.replace(there, version=record.version) == record

    async def change_supplier(self, name: str, now: datetime, by: str, **changes: Any) -> SupplierRecord | None:
        """The record with these fields changed; None where there is none."""
        async for _ in self._tables.tries(f"changing supplier {name}"):
            record = await self.supplier(name)
            if record is None:
                return None
            changed = msgspec.structs.replace(record, **changes, changed_at=now, changed_by=by)
            if await self._tables.replace(SUPPLIERS, Row(name, RECORD, to_columns(changed), record.version)):
                return changed
        raise AssertionError("tries ends with an error")

    async def note_grant(self, grant: Grant) -> None:
        """Write down a grant, or that it was revoked: the last word counts."""
        await self._put_supplier_row(Row(grant.supplier, GRANT + grant.grant_id, to_columns(grant)))

    async def grants(self, supplier: str) -> list[Grant]:
        """All that were ever made, oldest first."""
        rows = self._tables.query(SUPPLIERS, supplier, GRANT, "grant;")
        return sorted([from_columns(row.columns, Grant) async for row in rows], key=lambda grant: grant.made_at)

    async def usage(self, supplier: str, now: datetime) -> Usage:
        """Of the UTC day of `now`."""
        row = await self._tables.get(USAGE, _day_of(supplier, now), USED)
        return from_columns(row.columns, Usage) if row else Usage()

    async def charge(self, record: SupplierRecord, upload_id: str, size: int, now: datetime) -> bool:
        """Count the upload against the supplier's day; False where it is beyond the quota and was not counted.

        A repeat on the same day counts once. Counter and upload are written in one transaction.
        """
        partition, charged = _day_of(record.name, now), f"upload:{upload_id}"
        async for _ in self._tables.tries(f"charging {record.name}"):
            row = await self._tables.get(USAGE, partition, USED)
            used = from_columns(row.columns, Usage) if row else Usage()
            if await self._tables.get(USAGE, partition, charged):
                return True
            if not used.fits(size, record):
                return False
            more = to_columns(Usage(used.images + 1, used.size + size))
            rows = [
                Row(partition, USED, more, row.version if row else ""),
                Row(partition, charged, {"size": str(size)}),
            ]
            if await self._tables.write_together(USAGE, rows):
                return True
        raise AssertionError("tries ends with an error")

    async def hold(self, held: Held) -> None:
        """Keep, or keep anew, that an upload is held, or that it was released."""
        await self._put_supplier_row(Row(held.supplier, HELD + held.upload_id, to_columns(held)))

    async def held_upload(self, supplier: str, upload_id: str) -> Held | None:
        """None where it was never held."""
        row = await self._tables.get(SUPPLIERS, supplier, HELD + upload_id)
        return from_columns(row.columns, Held) if row else None

    async def held_uploads(self, supplier: str) -> list[Held]:
        """Those that are not released, oldest first."""
        rows = self._tables.query(SUPPLIERS, supplier, HELD, "held;")
        found = [from_columns(row.columns, Held) async for row in rows]
        return sorted([held for held in found if held.released_at is None], key=lambda held: held.held_at)

    async def _put_supplier_row(self, row: Row) -> None:
        async for _ in self._tables.tries(f"writing {SUPPLIERS} {row.partition} {row.name}"):
            found = await self._tables.get(SUPPLIERS, row.partition, row.name)
            if found is None and await self._tables.insert(SUPPLIERS, row):
                return
            if found is not None and await self._tables.replace(
                SUPPLIERS, Row(row.partition, row.name, row.columns, found.version)
            ):
                return


def next_day(now: datetime) -> datetime:
    """When the UTC day of `now` ends, and quotas begin anew."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def _day_of(supplier: str, now: datetime) -> str:
    return f"{supplier}:{now.astimezone(UTC):%Y-%m-%d}"
