"""Builds the messages that tell of an upload: only from its ledger row, so that a repeat says the same."""

from __future__ import annotations

from datetime import datetime, timedelta

from fusebus.blobs.layout import RESULTS
from fusebus.contracts.messages import (
    BlobReference,
    DuplicateFound,
    ImageAccepted,
    ImageRejected,
    JobKind,
    Lane,
    Message,
    RejectReason,
    RunCheck,
    manifest_check,
)
from fusebus.contracts.outcomes import Outgoing
from fusebus.ingest.policy import Limits, explanation
from fusebus.ledger import Entered, ImageClaim, ImageFacts, UploadRow


def run_check(entered: Entered, at: datetime) -> tuple[Outgoing, ...]:
    """The first look at the run that this upload opened; nothing where another one did."""
    check = RunCheck(run_id=entered.run_id, supplier=entered.upload.supplier)
    return (Outgoing(message=check, enqueue_at=at),) if entered.opened else ()


def manifest(upload: UploadRow) -> list[Message]:
    """A look at the run: all that the manifest lists may be there already. Nothing for one that is refused."""
    taken = upload.manifest is not None and not upload.manifest.refused
    return [manifest_check(upload.run_id, upload.supplier, upload.entered_at)] if taken else []


def rejected(upload: UploadRow, reason: RejectReason, limits: Limits) -> Message:
    return ImageRejected(
        upload_id=upload.upload_id,
        run_id=upload.run_id,
        supplier=upload.supplier,
        reason=reason,
        explanation=explanation(reason, limits),
        rejected_at=upload.entered_at,
        detail=upload.detail,
    )


def duplicate(upload: UploadRow, claim: ImageClaim) -> Message:
    return DuplicateFound(
        upload_id=upload.upload_id,
        run_id=upload.run_id,
        supplier=upload.supplier,
        image_id=claim.image_id,
        duplicate_of=claim.upload_id,
        duplicate_of_run=claim.run_id,
        found_at=upload.entered_at,
    )


def accepted(upload: UploadRow, image: ImageFacts, job_kind: JobKind, lane: Lane, allowed: timedelta) -> ImageAccepted:
    return ImageAccepted(
        upload_id=upload.upload_id,
        run_id=upload.run_id,
        supplier=upload.supplier,
        image_id=image.image_id,
        job_kind=job_kind,
        lane=lane,
        deadline=upload.entered_at + allowed,
        blob=_picture(upload, image),
        width=image.width,
        height=image.height,
        format=image.format,
        accepted_at=upload.entered_at,
        captured_at=image.captured_at,
        camera=image.camera,
        quality=tuple(filter(None, image.quality.split(","))),
    )


def _picture(upload: UploadRow, image: ImageFacts) -> BlobReference:
    """What is to be analysed: the original under its ETag, or what was rebuilt from it."""
    if image.working is None:
        return BlobReference(
            container=upload.container,
            name=upload.blob_name,
            etag=upload.blob_etag,
            sha256=image.sha256,
            size=upload.size,
        )
    # No ETag: a repeat writes the same bytes again, and nobody else may write there; the digest pins them.
    working = image.working
    return BlobReference(container=RESULTS, name=working.name, etag="", sha256=working.sha256, size=working.size)
