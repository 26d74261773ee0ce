"""Looks at one blob from the outside in: properties, capped bytes, header, strict decode; reports what it found."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

from fusebus.blobs import BlobChanged, BlobProperties, BlobTooLarge, BlobVanished
from fusebus.contracts import identity
from fusebus.contracts.messages import RejectReason
from fusebus.ingest.policy import Limits, Objection, Place, objection_to
from fusebus.ledger import ImageFacts
from fusebus.vision import ImageError, ImageHeader, decode, inspect

MAX_CONTENT_TYPE = 200  # characters of what the uploader claims that are kept


class BlobSource(Protocol):
    """What ingest reads of the store."""

    async def properties(self, container: str, name: str) -> BlobProperties | None: ...

    async def read(self, container: str, name: str, *, etag: str | None = None, max_bytes: int) -> bytes: ...


Check = Callable[[bytes], Awaitable[ImageHeader]]
"""Decodes strictly and tells the header. Raises ImageError."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is known of an upload after the look; `image` or `objection` is set, not both."""

    size: int = 0
    """Bytes."""
    content_type: str = ""
    image: ImageFacts | None = None
    objection: Objection | None = None


async def examine(place: Place, blobs: BlobSource, check: Check, limits: Limits) -> Finding:
    """Find out what the upload is. Raises StorageUnavailable, StorageError: then nothing is known."""
    found = await blobs.properties(place.container, place.name)
    if found is None:
        return Finding(objection=Objection(reason=RejectReason.BLOB_VANISHED, detail="no such blob"))
    objection = objection_to(
        etag=found.etag, expected_etag=place.etag, blob_type=found.blob_type, size=found.size, limits=limits
    )
    image: ImageFacts | None = None
    if objection is None:
        verdict = await _look_inside(place, blobs, check, limits)
        image, objection = (verdict, None) if isinstance(verdict, ImageFacts) else (None, verdict)
    return Finding(
        size=found.size, content_type=found.content_type[:MAX_CONTENT_TYPE], image=image, objection=objection
    )


async def _look_inside(place: Place, blobs: BlobSource, check: Check, limits: Limits) -> ImageFacts | Objection:
    try:
        data = await blobs.read(place.container, place.name, etag=place.etag, max_bytes=limits.max_bytes)
        sha256 = hashlib.sha256(data).hexdigest()  # 1 ms per 2 MB: no need for a thread
        header = await check(data)
    except BlobVanished as error:
        return Objection(reason=RejectReason.BLOB_VANISHED, detail=str(error))
    except BlobChanged as error:
        return Objection(reason=RejectReason.BLOB_CHANGED, detail=str(error))
    except BlobTooLarge as error:
        return Objection(reason=RejectReason.TOO_LARGE, detail=str(error))
    except ImageError as error:
        return Objection(reason=RejectReason(error.reason), detail=str(error))
    return ImageFacts(
        image_id=identity.image_id(place.supplier, sha256),
        sha256=sha256,
        format=header.format,
        width=header.width,
        height=header.height,
    )


def check_in(executor: Executor) -> Check:
    """A check whose decoding runs there, so that lock renewal goes on meanwhile."""

    async def check(data: bytes) -> ImageHeader:
        return await asyncio.get_running_loop().run_in_executor(executor, decoded_header, data)

    return check


def decoded_header(data: bytes) -> ImageHeader:
    """The header of an image that decodes to its end. Raises NotAnImage, TooManyPixels, Damaged."""
    header = inspect(data)
    decode(data)
    return header
