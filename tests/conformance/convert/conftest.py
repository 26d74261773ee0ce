"""Accepted images in a storage account, as ingest would tell of them."""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import pytest

from fusebus.blobs import Blobs, BlobSettings, layout
from fusebus.contracts.identity import image_id, run_id, upload_id
from fusebus.contracts.messages import BlobReference, ImageAccepted, JobKind, Lane

NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)


@pytest.fixture
async def blobs(blob_settings: BlobSettings) -> AsyncIterator[Blobs]:
    """The account, with the results container."""
    async with Blobs(blob_settings) as opened:
        await opened.create_container(layout.RESULTS)
        yield opened


@pytest.fixture
async def accept(blobs: Blobs, supplier: str) -> Callable[..., Awaitable[ImageAccepted]]:
    """Stores a file as the supplier would, and returns what ingest would say of it."""
    container = layout.supplier_container(supplier)
    await blobs.create_container(container)

    async def accepted(data: bytes, name: str = "board 1.jpg") -> ImageAccepted:
        await blobs.write(container, name, data, "image/jpeg")
        properties = await blobs.properties(container, name)
        assert properties is not None
        upload, sha256 = upload_id(container, name, properties.etag), hashlib.sha256(data).hexdigest()
        return ImageAccepted(
            upload_id=upload,
            run_id=run_id(supplier, NOW, upload),
            supplier=supplier,
            image_id=image_id(supplier, sha256),
            job_kind=JobKind.CONVERT,
            lane=Lane.BULK,
            deadline=NOW,
            blob=BlobReference(
                container=container, name=name, etag=properties.etag, sha256=sha256, size=properties.size
            ),
            width=64,
            height=48,
            format="jpeg",
            accepted_at=NOW,
        )

    return accepted
