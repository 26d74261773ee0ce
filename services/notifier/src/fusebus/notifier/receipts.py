"""Puts receipts where their supplier reads them: one for each run, a copy of the newest, and a list of all."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fusebus.blobs import BlobChanged, BlobExists, BlobVanished, StorageUnavailable, layout
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
INDEX_TRIES = 20  # while other runs of the same supplier end
JSON = "application/json"
CSV = "text/csv; charset=utf-8"


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
    index = await _listed(container, receipt, store)
    await store.write(container, layout.receipt_index_name("csv"), index_csv(index), CSV)
    if newest_delivery(index) == run.run_id:
        for suffix, (data, content_type) in files.items():
            await store.write(container, layout.latest_receipt_name(suffix), data, content_type)


async def _listed(container: str, receipt: Receipt, store: ResultStore) -> Index:
    """The list of receipts with this one, as stored: under its ETag, for another run may end at the same time."""
    name = layout.receipt_index_name("json")
    for _ in range(INDEX_TRIES):
        found = await store.properties(container, name)
        index = Index(supplier=receipt.supplier)
        try:
            if found is not None:
                data = await store.read(container, name, etag=found.etag, max_bytes=MAX_INDEX_BYTES)
                index = msgspec.json.decode(data, type=Index)
            index = with_receipt(index, receipt)
            if found is None:
                await store.create(container, name, receipt_json(index), JSON)
            else:
                await store.replace(container, name, receipt_json(index), JSON, found.etag)
        except (BlobChanged, BlobExists, BlobVanished):
            continue
        return index
    raise StorageUnavailable(f"{container}/{name}: others changed it {INDEX_TRIES} times meanwhile")
