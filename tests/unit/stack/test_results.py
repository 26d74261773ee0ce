from datetime import UTC, datetime
from pathlib import Path

from fusebus.blobs.layout import annotated_name, report_name, result_name
from fusebus.contracts.messages import StoredBlob
from fusebus.ledger import Final, FinalKind, UploadRow
from fusebus.stack.results import display_name, name_files, relink

WHEN = datetime(2026, 11, 21, 10, 30, tzinfo=UTC)
RUN = "20261121T103000Z-acme-0f0f0f0f"


def analysed(name: str, analysis: str = "aa" * 16) -> UploadRow:
    final = Final(
        kind=FinalKind.ANALYSED,
        at=WHEN,
        analysis_id=analysis,
        annotated=StoredBlob(container="results", name=annotated_name(RUN, analysis)),
        result=StoredBlob(container="results", name=result_name(RUN, analysis)),
    )
    return UploadRow(
        upload_id="0f" * 16,
        supplier="acme",
        container="in-acme",
        blob_name=name,
        blob_etag="0x1",
        size=1,
        uploaded_at=WHEN,
        run_id=RUN,
        entered_at=WHEN,
        final=final,
    )


def test_files_are_named_after_the_photos_they_came_from() -> None:
    assert [found.annotated for found in name_files([analysed("van 7/board.JPG")])] == ["annotated/van_7_board.jpg"]


def test_names_that_would_collide_are_numbered() -> None:
    rows = [analysed("a b.jpg"), analysed("a?b.jpg"), analysed("A_B.png")]
    assert [found.json for found in name_files(rows)] == ["json/A_B.json", "json/a_b-2.json", "json/a_b-3.json"]


def test_a_name_never_becomes_a_path_outside() -> None:
    names = ["../../etc/passwd", "/etc/passwd", "..", "\x00", "\u202egpj.exe", "a" * 500]
    for found in name_files([analysed(name) for name in names]):
        path = Path("out") / found.annotated
        assert path.resolve().parent == Path("out/annotated").resolve()
        assert len(path.name) < 100


def test_the_report_links_to_the_fetched_files() -> None:
    row = analysed("board.jpg")
    page = b'<a href="../../annotated/2026-11-21/' + RUN.encode() + b"/" + b"aa" * 16 + b'.jpg">'
    assert report_name(RUN).startswith("report/")
    assert relink(page, RUN, "report", name_files([row])) == b'<a href="../annotated/board.jpg">'


def test_a_name_can_not_move_the_cursor() -> None:
    assert display_name("a\x1b[2Jb\u202ec") == "a?[2Jb?c"
