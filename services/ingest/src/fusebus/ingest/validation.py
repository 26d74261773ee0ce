"""Looks at one blob from the outside in: properties, capped bytes, then a guarded child's verdict on them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from fusebus.arrivals import COPY_PENDING
from fusebus.blobs import BlobChanged, BlobProperties, BlobTooLarge, BlobVanished, layout
from fusebus.contracts import identity
from fusebus.contracts.messages import RejectReason
from fusebus.ingest import manifest
from fusebus.ingest.events import COPY_API, COPY_DONE, copy_has_ended, copy_in_progress, no_container
from fusebus.ingest.manifest import BadManifest, Refusal
from fusebus.ingest.policy import Limits, Objection, Place, objection_to
from fusebus.ledger import ImageFacts, ManifestFacts, Working
from fusebus.validation import Verdict

MAX_CONTENT_TYPE = 200  # characters of what the uploader claims that are kept


_UNREAD = {
    RejectReason.TOO_LARGE: Refusal.TOO_LARGE,
    RejectReason.EMPTY: Refusal.NO_NAMES,
    RejectReason.BLOB_TYPE: Refusal.UNREADABLE,
    RejectReason.BLOB_VANISHED: Refusal.UNREADABLE,
    RejectReason.BLOB_CHANGED: Refusal.UNREADABLE,
}
"""Objections to a blob of which no byte was judged, as they are told of a manifest."""


class BlobSource(Protocol):
    """What ingest reads of the store."""

    async def properties(self, container: str, name: str) -> BlobProperties | None: ...

    async def read(self, container: str, name: str, *, etag: str | None = None, max_bytes: int) -> bytes: ...

    async def write(self, container: str, name: str, data: bytes, content_type: str) -> None: ...

    async def container_exists(self, container: str) -> bool: ...


Check = Callable[[bytes], Awaitable[Verdict]]
"""Judges a file's bytes. Raises ValidatorUnavailable."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is known of an upload after the look; exactly one of `image`, `objection` and `manifest` is set."""

    size: int = 0
    """Bytes."""
    content_type: str = ""
    image: ImageFacts | None = None
    objection: Objection | None = None
    manifest: ManifestFacts | None = None


async def examine(place: Place, blobs: BlobSource, check: Check, limits: Limits) -> Finding:
    """Find out what the upload is. Raises StorageUnavailable, StorageError, ValidatorUnavailable: nothing is known.

    Raises NotNow where it is not to be entered.
    """
    finding = await _examine(place, blobs, check, limits)
    if finding.objection is not None and finding.objection.reason in _UNREAD and manifest.is_manifest(place.name):
        return _refused(place, finding, finding.objection)
    return finding


async def _examine(place: Place, blobs: BlobSource, check: Check, limits: Limits) -> Finding:
    found = await blobs.properties(place.container, place.name)
    if found is None:
        if not await blobs.container_exists(place.container):
            raise no_container(place.container)
        return Finding(objection=Objection(reason=RejectReason.BLOB_VANISHED, detail="no such blob"))
    if found.copy_status == COPY_PENDING:
        raise copy_in_progress(f"{place.container}/{place.name!r} is being copied")
    if found.etag != place.etag and place.api == COPY_API and found.copy_status == COPY_DONE:
        raise copy_has_ended(place.container, found)
    objection = objection_to(
        etag=found.etag, expected_etag=place.etag, blob_type=found.blob_type, size=found.size, limits=limits
    )
    verdict = objection or await _look_inside(place, blobs, check, limits)
    return Finding(
        size=found.size,
        content_type=found.content_type[:MAX_CONTENT_TYPE],
        image=verdict if isinstance(verdict, ImageFacts) else None,
        objection=verdict if isinstance(verdict, Objection) else None,
        manifest=verdict if isinstance(verdict, ManifestFacts) else None,
    )


def _refused(place: Place, finding: Finding, objection: Objection) -> Finding:
    """A manifest that could not be read at all: told as one, not as a photo that is missing."""
    error = BadManifest(_UNREAD[objection.reason])
    return replace(finding, objection=None, manifest=manifest.refused(place.name, error))


async def _look_inside(
    place: Place, blobs: BlobSource, check: Check, limits: Limits
) -> ImageFacts | Objection | ManifestFacts:
    try:
        data = await blobs.read(place.container, place.name, etag=place.etag, max_bytes=limits.max_bytes)
    except BlobVanished as error:
        return Objection(reason=RejectReason.BLOB_VANISHED, detail=str(error))
    except BlobChanged as error:
        return Objection(reason=RejectReason.BLOB_CHANGED, detail=str(error))
    except BlobTooLarge as error:
        return Objection(reason=RejectReason.TOO_LARGE, detail=str(error))
    if manifest.is_manifest(place.name) and not manifest.is_picture(data):
        return await _read_manifest(place, data, blobs)
    verdict = await check(data)
    if verdict.reason is not None or verdict.facts is None:
        return Objection(reason=verdict.reason or RejectReason.DAMAGED, detail=verdict.detail)
    sha256 = hashlib.sha256(data).hexdigest()  # 1 ms per 2 MB: no need for a thread
    image_id = identity.image_id(place.supplier, sha256)
    return ImageFacts(
        image_id=image_id,
        sha256=sha256,
        format=verdict.facts.format,
        width=verdict.facts.width,
        height=verdict.facts.height,
        captured_at=verdict.facts.captured_at,
        camera=verdict.facts.camera,
        quality=",".join(verdict.facts.quality),
        working=await _keep(image_id, verdict.derivative, blobs) if verdict.derivative else None,
    )


async def _read_manifest(place: Place, data: bytes, blobs: BlobSource) -> ManifestFacts:
    """What it lists is stored in our own form. Raises StorageUnavailable, StorageError."""
    try:
        names = await asyncio.to_thread(manifest.read_manifest, place.name, data)
    except BadManifest as error:
        return manifest.refused(place.name, error)
    stored_as, stored = layout.manifest_name(place.upload_id), manifest.encode_names(names)
    await blobs.write(layout.RESULTS, stored_as, stored, "application/json")
    return manifest.taken(names, stored_as, stored)


async def _keep(image_id: str, derivative: bytes, blobs: BlobSource) -> Working:
    """Store the rebuilt picture. Raises StorageUnavailable, StorageError."""
    name = layout.working_name(image_id)
    await blobs.write(layout.RESULTS, name, derivative, "image/jpeg")
    return Working(name=name, sha256=hashlib.sha256(derivative).hexdigest(), size=len(derivative))
