"""Puts receipts where their supplier reads them: one for each run, a copy of the newest, and a list of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from fusebus.blobs import BlobChanged, BlobExists, BlobVanished, StorageError, StorageUnavailable, layout
from fusebus.ledger import RunRow, UploadRow
from fusebus.notifier.ports import ResultStore
from fusebus.notifier.receipt import (
    Index,
    Receipt,
    index_csv,
    newest_delivery,
    receipt_csv,
    receipt_json,
    receipt_of,
    with_receipt,
)
from fusebus.notifier.summary import Summary

MAX_INDEX_BYTES = 4_000_000  # of a thousand entries, with room
MAX_RECEIPT_BYTES = 256 * 1024 * 1024  # of a run of some 200,000 files; it is read only where runs end together
INDEX_TRIES = 20  # while other runs of the same supplier end
JSON = "application/json"
CSV = "text/csv; charset=utf-8"
TYPES = {"json": JSON, "csv": CSV}
Files = Mapping[str, tuple[bytes, str]]
"""A receipt's bytes and content type by suffix."""


async def leave_receipt(run: RunRow, uploads: Sequence[UploadRow], summary: Summary, store: ResultStore) -> None:
    """Write the run's receipt; a repeat changes nothing. Raises StorageUnavailable, StorageError."""
    receipt = receipt_of(run, uploads, summary)
    container = layout.receipt_container(run.supplier)
    files = {"json": (receipt_json(receipt), JSON), "csv": (receipt_csv(receipt), CSV)}
    try:
        for suffix, (data, content_type) in files.items():
            await store.write(container, layout.receipt_name(run.run_id, suffix), data, content_type)
    except BlobVanished:  # the supplier's first receipt, and nobody made its container
        await store.create_container(container)
        for suffix, (data, content_type) in files.items():
            await store.write(container, layout.receipt_name(run.run_id, suffix), data, content_type)
    await _shown(container, receipt, files, store)


async def has_receipt(run: RunRow, store: ResultStore) -> bool:
    """Whether the run's receipt is where its supplier may read it. Raises StorageUnavailable."""
    container = layout.receipt_container(run.supplier)
    try:
        return await store.properties(container, layout.receipt_name(run.run_id, "json")) is not None
    except StorageUnavailable:
        raise
    except StorageError:  # who may not look could not write either
        return False


async def _shown(container: str, receipt: Receipt, files: Files, store: ResultStore) -> None:
    """List the receipt, and copy the newest one to where its supplier looks: until no other run was listed meanwhile.

    Else the copies of one that was slower would stay over those of the other, which knew of more.
    """
    copied = False
    for _ in range(INDEX_TRIES):
        index, etag = await _listed(container, receipt, store)
        await store.write(container, layout.receipt_index_name("csv"), index_csv(index), CSV)
        newest = newest_delivery(index)
        if newest == receipt.run_id:
            await _copy(container, files, store)
            copied = True
        elif copied:  # over the newer one's, perhaps; it lies there before it is listed
            await _copy(container, await _stored(container, newest, store), store)
        now = await store.properties(container, layout.receipt_index_name("json"))
        if now is not None and now.etag == etag:
            return
    raise StorageUnavailable(f"{container}: others changed its list of receipts {INDEX_TRIES} times meanwhile")


async def _copy(container: str, files: Files, store: ResultStore) -> None:
    for suffix, (data, content_type) in files.items():
        await store.write(container, layout.latest_receipt_name(suffix), data, content_type)


async def _stored(container: str, run_id: str, store: ResultStore) -> Files:
    names = {suffix: layout.receipt_name(run_id, suffix) for suffix in TYPES}
    return {
        suffix: (await store.read(container, name, max_bytes=MAX_RECEIPT_BYTES), TYPES[suffix])
        for suffix, name in names.items()
    }


async def _listed(container: str, receipt: Receipt, store: ResultStore) -> tuple[Index, str]:
    """The list of receipts with this one, as stored, and its ETag: under which it is changed, for another run may end
    at the same time."""
    name = layout.receipt_index_name("json")
    for _ in range(INDEX_TRIES):
        found = await store.properties(container, name)
        try:
            if found is None:
                index = with_receipt(Index(supplier=receipt.supplier), receipt)
                return index, await store.create(container, name, receipt_json(index), JSON)
            before = await store.read(container, name, etag=found.etag, max_bytes=MAX_INDEX_BYTES)
            index = with_receipt(msgspec.json.decode(before, type=Index), receipt)
            if (after := receipt_json(index)) == before:  # a change of nothing would send others round again
                return index, found.etag
            return index, await store.replace(container, name, after, JSON, found.etag)
        except (BlobChanged, BlobExists, BlobVanished):
            continue
    raise StorageUnavailable(f"{container}/{name}: others changed it {INDEX_TRIES} times meanwhile")
