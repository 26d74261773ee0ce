"""Which photos `fusebus reprocess` takes, and what it says of the others."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fusebus.console.runs import chosen
from fusebus.contracts.messages import JobKind, RejectReason
from fusebus.ledger import Final, FinalKind, ImageFacts, UploadRow

NOW = datetime(2026, 11, 21, 10, 30, tzinfo=UTC)
FACTS = ImageFacts(image_id="i", sha256="ab" * 32, format="jpeg", width=1, height=1)


def upload(kind: FinalKind | None, *, job_kind: JobKind | None = None, **final: str) -> UploadRow:
    refused = kind is FinalKind.REJECTED and not final
    return UploadRow(
        upload_id="u",
        supplier="acme",
        container="in-acme",
        blob_name="a.jpg",
        blob_etag="e",
        size=1,
        uploaded_at=NOW,
        image=None if refused else FACTS,
        reject_reason=RejectReason.DAMAGED if refused else None,
        job_kind=job_kind,
        run_id="r",
        entered_at=NOW,
        final=Final(kind=kind, at=NOW, **final) if kind else None,
    )


@pytest.mark.parametrize(
    ("row", "left_out"),
    [
        (upload(FinalKind.ANALYSED, model="m@1"), ""),
        (upload(FinalKind.ANALYSED, model="m@2"), "analysed with it before"),
        (upload(FinalKind.FAILED, reason="gave_up"), ""),
        (upload(FinalKind.FAILED, reason="model_failed", duplicate_of="first"), "duplicate"),
        (upload(FinalKind.FAILED, job_kind=JobKind.CONVERT), "converted"),
        (upload(FinalKind.CONVERTED, job_kind=JobKind.CONVERT), "converted"),
        (upload(FinalKind.DUPLICATE, duplicate_of="first"), "duplicate"),
        (upload(FinalKind.REJECTED), "refused"),
        (upload(FinalKind.REJECTED, reason="blob_vanished"), "refused"),
        (upload(None), "refused"),
    ],
)
def test_only_what_a_model_could_see_differently_is_analysed_again(row: UploadRow, left_out: str) -> None:
    found = chosen([row, row], "m@2")
    assert (len(found.uploads), found.left_out) == ((0, {left_out: 2}) if left_out else (2, {}))
