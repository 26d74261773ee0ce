"""How work on an accepted image ends without a result: its blob is gone, or nothing can be made of it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from fusebus.contracts.messages import ImageAccepted, ImageFailed, ImageRejected, RejectReason

Gone = Literal[RejectReason.BLOB_VANISHED, RejectReason.BLOB_CHANGED]

_EXPLANATIONS = {
    RejectReason.BLOB_VANISHED: "The file was deleted before it could be {done}; please upload it again.",
    RejectReason.BLOB_CHANGED: "The file was replaced before it could be {done}; the new version is taken instead.",
}


def gone(work: ImageAccepted, reason: Gone, detail: str, at: datetime, *, done: str) -> ImageRejected:
    """The supplier deleted or replaced the file meanwhile; `done` says what it was kept for, such as "analysed"."""
    return ImageRejected(
        upload_id=work.upload_id,
        run_id=work.run_id,
        supplier=work.supplier,
        reason=reason,
        explanation=_EXPLANATIONS[reason].format(done=done),
        rejected_at=at,
        detail=detail,
    )


def failed(work: ImageAccepted, reason: str, description: str, at: datetime) -> ImageFailed:
    """No repeat would change it; `reason` is a word for programs, `description` a sentence for people."""
    return ImageFailed(
        upload_id=work.upload_id,
        run_id=work.run_id,
        supplier=work.supplier,
        reason=reason,
        description=description,
        failed_at=at,
    )
