from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import msgspec
from rich.console import Console

from fusebus.blobs.layout import annotated_name, report_name, result_name
from fusebus.contracts.messages import StoredBlob
from fusebus.ledger import Final, FinalKind, UploadRow
from fusebus.stack.delivery import Delivered, Moment
from fusebus.stack.nodes import Nodes
from fusebus.stack.results import Local, display_name, name_files, relink, results_table

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


def test_letters_of_every_script_stay_readable() -> None:
    rows = [analysed("Lieferung 7/Türe.jpg"), analysed("照片 写真.JPG")]
    assert [found.json for found in name_files(rows)] == ["json/Lieferung_7_Türe.json", "json/照片_写真.json"]


def test_names_that_would_collide_are_numbered() -> None:
    rows = [analysed("a b.jpg"), analysed("a?b.jpg"), analysed("A_B.png")]
    assert [found.json for found in name_files(rows)] == ["json/A_B.json", "json/a_b-2.json", "json/a_b-3.json"]


def test_a_name_never_becomes_a_path_outside() -> None:
    names = ["../../etc/passwd", "/etc/passwd", "..", "\x00", "\u202egpj.exe", "a" * 500, "照" * 500]
    for found in name_files([analysed(name) for name in names]):
        path = Path("out") / found.annotated
        assert path.resolve().parent == Path("out/annotated").resolve()
        assert len(path.name.encode()) < 100  # a file system counts bytes


def test_the_report_links_to_the_fetched_files() -> None:
    row = analysed("board.jpg")
    page = b'<a href="../../annotated/2026-11-21/' + RUN.encode() + b"/" + b"aa" * 16 + b'.jpg">'
    assert report_name(RUN).startswith("report/")
    assert relink(page, RUN, "report", name_files([row])) == b'<a href="../annotated/board.jpg">'


def test_a_name_can_not_move_the_cursor() -> None:
    assert display_name("a\x1b[2Jb\u202ec") == "a?[2Jb?c"


def printed(local: list[Local], width: int) -> str:
    console = Console(width=width, file=StringIO())
    moment = Moment(runs=(), uploads=tuple(found.row for found in local), queues=(), nodes=Nodes(0, 0))
    console.print(results_table(Delivered((), moment, 1.0), local, Path("results")))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_table_names_the_photo_that_a_duplicate_repeats_and_cuts_no_path() -> None:
    first = analysed("a folder/with a long name/" + "board " * 8 + ".jpg")
    repeat = Final(kind=FinalKind.DUPLICATE, at=WHEN, duplicate_of=first.upload_id)
    second = msgspec.structs.replace(analysed("again.jpg"), upload_id="1f" * 16, final=repeat)
    local = name_files([first, second])
    assert "same photo as a folder/with a long name/board" in printed(local, width=300)
    narrow = printed(local, width=80)
    assert "…" not in narrow
    assert "results/annotated/a_fold" in narrow
