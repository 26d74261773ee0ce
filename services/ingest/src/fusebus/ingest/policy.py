"""Ingest's pure decisions: which events concern us, what is wrong with a blob by its properties, who owns an image."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import msgspec

from fusebus.contracts import identity
from fusebus.contracts.messages import SUPPLIER_CONTAINER_PREFIX, BlobCreated, RejectReason, Supplier
from fusebus.validation import verdicts

MAX_BLOB_NAME = 1024  # characters; storage admits no more
BLOCK_BLOB = "BlockBlob"

_ETAG = re.compile(r"[!#-~]{1,128}")  # what HTTP admits between the quotes


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """The upload that an event is about."""

    supplier: str
    container: str
    name: str
    etag: str
    """Without quotes."""
    api: str = ""
    """The request that made it, as the event says: `PutBlob`, `PutBlockList`, `CopyBlob`."""

    @property
    def upload_id(self) -> str:
        return identity.upload_id(self.container, self.name, self.etag)


class NotOurs(msgspec.Struct, frozen=True, kw_only=True):
    """An event that no upload can come of; for the dead letter."""

    reason: str
    description: str


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What an upload may have."""

    max_bytes: int
    max_pixels: int


class Objection(msgspec.Struct, frozen=True, kw_only=True):
    """Why an upload is rejected; `detail` is for ops."""

    reason: RejectReason
    detail: str


def place_of(event: BlobCreated) -> Place | NotOurs:
    """Where the event's blob lies, or why it is not a supplier's upload."""
    container, name, etag = event.container, event.blob_name, event.data.e_tag.strip('"')
    if not container or not name:
        return NotOurs(reason="malformed_subject", description=f"{event.subject[:200]!r} names no blob in a container")
    if len(name) > MAX_BLOB_NAME:
        return NotOurs(reason="malformed_subject", description=f"a name of {len(name)} characters is no blob's")
    if not _ETAG.fullmatch(etag):
        return NotOurs(reason="malformed_etag", description=f"{etag[:100]!r} does not say which content arrived")
    if (supplier := supplier_of(container)) is None:
        return NotOurs(reason="not_a_supplier", description=f"{container[:100]!r} is no supplier's container")
    return Place(supplier=supplier, container=container, name=name, etag=etag, api=event.data.api)


def supplier_of(container: str) -> str | None:
    """The supplier whose container this is; None for any other."""
    name = container.removeprefix(SUPPLIER_CONTAINER_PREFIX)
    if name == container:
        return None
    try:
        return msgspec.convert(name, Supplier)
    except msgspec.ValidationError:
        return None


def objection_to(*, etag: str, expected_etag: str, blob_type: str, size: int, limits: Limits) -> Objection | None:
    """What is wrong with a blob by its properties alone, before a byte of it is read. `size` in bytes."""
    if etag != expected_etag:  # its present content has an event of its own
        return Objection(reason=RejectReason.BLOB_CHANGED, detail=f"ETag {etag}, the event says {expected_etag}")
    if blob_type != BLOCK_BLOB:
        return Objection(reason=RejectReason.BLOB_TYPE, detail=f"{blob_type} of {size} bytes")
    if size == 0:
        return Objection(reason=RejectReason.EMPTY, detail="0 bytes")
    if size > limits.max_bytes:
        return Objection(reason=RejectReason.TOO_LARGE, detail=f"{size} bytes, allowed are {limits.max_bytes}")
    return None


def explanation(reason: RejectReason, limits: Limits) -> str:
    """The sentence for the supplier."""
    return verdicts.explanation(reason, max_bytes=limits.max_bytes, max_pixels=limits.max_pixels)


def lets_go(holder_final: str | None, holder_exists: bool) -> bool:
    """Whether the upload that brought an image first is out, so that a later one with the same content takes its place.

    A failed one was never analysed, nor was one that was rejected after it had been accepted.
    """
    return not holder_exists or holder_final in ("failed", "rejected")


def is_due(*, now: float, sent_at: float | None, times: int, repeat_seconds: float, repeats: int) -> bool:
    """Whether the sweep has to look at an upload: never announced, or long ago and not too often. Seconds."""
    return sent_at is None or (times <= repeats and now - sent_at >= repeat_seconds)


def old_enough(modified_at: datetime, now: datetime, grace_seconds: float) -> bool:
    """Whether an event from elsewhere would have come by now."""
    return now - modified_at >= timedelta(seconds=grace_seconds)
