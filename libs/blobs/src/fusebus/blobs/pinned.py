"""Reads what a message speaks of: pinned by its ETag, and where that is another one now, by its digest."""

from __future__ import annotations

import asyncio
from typing import Protocol

from fusebus.blobs.digest import DigestMismatch, require_digest
from fusebus.blobs.errors import BlobChanged, BlobTooLarge, StorageError
from fusebus.contracts.messages import BlobReference

NO_SUCH_RANGE = 416
"""Storage's answer where a range of an empty blob is asked for, and nothing empty was ever accepted."""


class Readable(Protocol):
    """What reading takes of Blobs."""

    async def read(self, container: str, name: str, *, etag: str | None = None, max_bytes: int) -> bytes:
        """See Blobs.read."""
        ...


async def read_accepted(store: Readable, blob: BlobReference, max_bytes: int) -> bytes:
    """The bytes that were accepted, at most `max_bytes`; without an ETag in the message the caller compares the digest.

    A blob whose metadata were written, or that was sent again unchanged, has another ETag and the same photo. To refuse
    it would lose it: its new event was told to be a duplicate of this one. Raises BlobChanged where the content is
    another, and what Blobs.read raises.
    """
    try:
        return await store.read(blob.container, blob.name, etag=blob.etag, max_bytes=max_bytes)
    except BlobChanged as changed:
        try:
            data = await store.read(blob.container, blob.name, max_bytes=max_bytes)
            await asyncio.to_thread(require_digest, data, blob.sha256)
        except (BlobTooLarge, DigestMismatch):
            raise changed from None
        except StorageError as error:
            if error.status == NO_SUCH_RANGE:
                raise changed from None
            raise
        return data
