from datetime import UTC, datetime
from pathlib import Path

import pytest

from fusebus.console.photos import Photo
from fusebus.console.uploading import Sent, Upload
from fusebus.ledger import Final, FinalKind, UploadRow
from fusebus.stack.commands import exit_code
from fusebus.stack.delivery import Delivered, Moment
from fusebus.stack.nodes import Nodes

WHEN = datetime(2026, 11, 21, tzinfo=UTC)


def row(kind: FinalKind, number: int) -> UploadRow:
    return UploadRow(
        upload_id=f"{number:032x}",
        supplier="acme",
        container="in-acme",
        blob_name=f"{number}.jpg",
        blob_etag="0x1",
        size=1,
        uploaded_at=WHEN,
        run_id="20261121T000000Z-acme-00000000",
        entered_at=WHEN,
        final=Final(kind=kind, at=WHEN),
    )


@pytest.mark.parametrize(
    ("kinds", "sent", "expected"),
    [
        ([FinalKind.ANALYSED], Sent.SENT, 0),
        ([FinalKind.ANALYSED, FinalKind.CONVERTED], Sent.SENT, 0),
        ([FinalKind.ANALYSED, FinalKind.REJECTED], Sent.SENT, 3),
        ([FinalKind.ANALYSED, FinalKind.DUPLICATE], Sent.SENT, 3),
        ([FinalKind.ANALYSED, FinalKind.FAILED], Sent.SENT, 4),
        ([FinalKind.REJECTED, FinalKind.FAILED], Sent.SENT, 4),
        ([FinalKind.ANALYSED], Sent.FAILED, 4),
    ],
)
def test_failed_comes_before_rejected_comes_before_all_analysed(
    kinds: list[FinalKind], sent: Sent, expected: int
) -> None:
    rows = tuple(row(kind, number) for number, kind in enumerate(kinds))
    upload = Upload(Photo(Path("0.jpg"), "0.jpg", 1), sent)
    moment = Moment(runs=(), uploads=rows, queues=(), nodes=Nodes(0, 0))
    assert exit_code(Delivered((upload,), moment, 1.0)) == expected
