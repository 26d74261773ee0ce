"""One search by hand: what lies in suppliers' containers since a time and is in no run; announced, or only told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import msgspec

from fusebus.arrivals.announcement import COPY_PENDING, event_of
from fusebus.arrivals.listing import Listing, Lists
from fusebus.blobs import ListedBlob, StorageError
from fusebus.blobs.layout import supplier_of
from fusebus.contracts import identity
from fusebus.contracts.outcomes import Outgoing
from fusebus.ledger import Entered, Held, SupplierRecord

CHUNK = 100  # uploads looked up and announced at a time
BY_HAND = 1
"""The replay count of what is announced here: what the sweep sent some minutes ago must not swallow it."""


class Storage(Lists, Protocol):
    """What is asked of storage."""

    def list_supplier_containers(self) -> AsyncIterator[str]: ...


class Book(Protocol):
    """What is asked of the ledger."""

    async def find_upload(self, upload_id: str) -> Entered | None: ...

    async def supplier(self, name: str) -> SupplierRecord | None: ...

    async def held_upload(self, supplier: str, upload_id: str) -> Held | None: ...


class Outbox(Protocol):
    """Where events go."""

    async def publish(self, outgoing: Sequence[Outgoing]) -> None: ...


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """An upload that is in no run."""

    supplier: str
    name: str
    """Exactly as stored: data."""
    etag: str
    upload_id: str
    size: int
    """Bytes."""
    uploaded_at: datetime


class Hidden(msgspec.Struct, frozen=True, kw_only=True):
    """A container that could not be listed whole."""

    container: str
    why: str
    names: tuple[str, ...] = ()
    """How names begin that may be there, unseen; empty: nothing is known of what was not listed yet."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found and did."""

    since: datetime
    dry_run: bool
    containers: int
    uploads: int
    """Written since then."""
    known: int
    """Of these, in a run."""
    held: int
    """Of these, held for a quota or a suspension: the sweep offers them again by itself."""
    copying: int
    """Of these, not there with all bytes yet: the sweep comes back for them."""
    announced: int
    missing: tuple[Missing, ...]
    """In no run: announced now, but in a dry run."""
    not_listed: tuple[Hidden, ...]


async def search(
    blobs: Storage,
    ledger: Book,
    outbox: Outbox | None,
    *,
    since: datetime,
    now: datetime,
    containers: Sequence[str] = (),
) -> Report:
    """Search these containers, or every supplier's; without an outbox nothing is announced.

    A container that can't be listed is told in the report. Raises StorageError where the containers can't be listed,
    LedgerError, PublishFailed.
    """
    chosen = list(containers) or [name async for name in blobs.list_supplier_containers()]
    one = _Search(blobs=blobs, ledger=ledger, outbox=outbox, since=since, now=now)
    for container in chosen:
        await one.look_into(container)
    counts = one.counts
    return Report(
        since=since,
        dry_run=outbox is None,
        containers=len(chosen),
        uploads=counts["uploads"],
        known=counts["known"],
        held=counts["held"],
        copying=counts["copying"],
        announced=counts["announced"],
        missing=tuple(one.missing),
        not_listed=tuple(one.hidden),
    )


@dataclass(kw_only=True)
class _Search:
    blobs: Storage
    ledger: Book
    outbox: Outbox | None
    since: datetime
    now: datetime
    counts: Counter[str] = field(default_factory=Counter)
    missing: list[Missing] = field(default_factory=list)
    hidden: list[Hidden] = field(default_factory=list)

    async def look_into(self, container: str) -> None:
        """What was listed until a listing broke off counts."""
        listing = Listing(self.blobs, container)
        chunk: dict[str, ListedBlob] = {}
        try:
            async for upload_id, blob in self._uploads(listing):
                chunk[upload_id] = blob
                if len(chunk) == CHUNK:
                    await self._deal_with(container, chunk)
                    chunk = {}
        except StorageError as error:
            self.hidden.append(Hidden(container=container, why=str(error)))
        await self._deal_with(container, chunk)
        if listing.why:
            self.hidden.append(Hidden(container=container, why=listing.why, names=tuple(listing.hidden)))

    async def _uploads(self, listing: Listing) -> AsyncIterator[tuple[str, ListedBlob]]:
        """Those since then that are there with all their bytes, each once."""
        seen: set[str] = set()
        async for blob in listing:
            upload_id = identity.upload_id(listing.container, blob.name, blob.etag)
            if blob.modified_at < self.since or upload_id in seen:
                continue
            seen.add(upload_id)
            self.counts["uploads"] += 1
            if blob.copy_status == COPY_PENDING:
                self.counts["copying"] += 1
            else:
                yield upload_id, blob

    async def _deal_with(self, container: str, chunk: dict[str, ListedBlob]) -> None:
        supplier = supplier_of(container) or ""
        found = await asyncio.gather(*(self.ledger.find_upload(upload_id) for upload_id in chunk))
        unknown = {key: blob for (key, blob), entered in zip(chunk.items(), found, strict=True) if entered is None}
        self.counts["known"] += len(chunk) - len(unknown)
        free = await self._without_held(supplier, unknown)
        if self.outbox is not None:
            events = [Outgoing(message=event_of(container, blob), replay=BY_HAND) for blob in free.values()]
            await self.outbox.publish(events)
            self.counts["announced"] += len(events)
        self.missing += [
            Missing(
                supplier=supplier,
                name=blob.name,
                etag=blob.etag,
                upload_id=upload_id,
                size=blob.size,
                uploaded_at=blob.modified_at,
            )
            for upload_id, blob in free.items()
        ]

    async def _without_held(self, supplier: str, uploads: dict[str, ListedBlob]) -> dict[str, ListedBlob]:
        record = await self.ledger.supplier(supplier) if uploads else None
        if record is None:
            return uploads
        held = await asyncio.gather(*(self.ledger.held_upload(supplier, upload_id) for upload_id in uploads))
        free = {
            key: blob
            for (key, blob), by in zip(uploads.items(), held, strict=True)
            if by is None or by.is_over(self.now, record)
        }
        self.counts["held"] += len(uploads) - len(free)
        return free
