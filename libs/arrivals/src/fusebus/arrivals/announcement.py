"""The event of a blob that lies in storage, as Event Grid would have sent it."""

from __future__ import annotations

from fusebus.blobs import BlobProperties
from fusebus.contracts import identity
from fusebus.contracts.messages import BlobCreated, BlobCreatedData

COPY_PENDING = "pending"
"""A blob's bytes are still on their way; when they are there, it has another ETag."""
SOURCE = "/fusebus/ingest/sweep"


def event_of(container: str, blob: BlobProperties) -> BlobCreated:
    """What Event Grid would send for this blob."""
    return BlobCreated(
        id=f"sweep-{identity.upload_id(container, blob.name, blob.etag)}",
        source=SOURCE,
        subject=f"/blobServices/default/containers/{container}/blobs/{blob.name}",
        time=blob.modified_at,
        data=BlobCreatedData(
            e_tag=blob.etag,
            api="Sweep",
            content_type=blob.content_type,
            content_length=blob.size,
            blob_type=blob.blob_type,
        ),
    )
