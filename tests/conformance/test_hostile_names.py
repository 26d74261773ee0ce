"""Names are data: hundreds of hostile ones through everything that carries, keeps or shows them, kept exactly."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import unicodedata
from datetime import UTC, datetime
from email import message_from_bytes, policy
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from names import names
from rich.console import Console

from fusebus.arrivals import event_of
from fusebus.blobs import BlobProperties, Blobs, BlobSettings, BlobVanished, layout
from fusebus.console.__main__ import fusebus
from fusebus.console.answers import json_text
from fusebus.console.commands import say_uploaded
from fusebus.console.photos import Photo
from fusebus.console.supplier_words import MOST_HELD_SHOWN, Shown, shown_words
from fusebus.console.uploading import Sent, Upload, unfit_name
from fusebus.contracts import display, identity
from fusebus.contracts.envelope import Envelope, decode, encode
from fusebus.contracts.messages import RejectReason, StoredBlob
from fusebus.host.logs import JsonFormatter
from fusebus.ingest import announcement
from fusebus.ingest.policy import Limits, Place, place_of
from fusebus.ledger import (
    Final,
    FinalKind,
    Held,
    HeldBecause,
    Ledger,
    LedgerSettings,
    RunRow,
    RunState,
    SupplierRecord,
    UploadEntry,
    UploadRow,
    Usage,
)
from fusebus.ledger.columns import from_columns, to_columns
from fusebus.notifier.cards import MOST_BYTES, inert, summary_card
from fusebus.notifier.mail import Envelope as MailEnvelope
from fusebus.notifier.mail import summary_mail
from fusebus.notifier.report import render_report
from fusebus.notifier.summary import Failure, Summary, summarise, summary_json
from fusebus.stack.delivery import Delivered, Moment
from fusebus.stack.nodes import Nodes
from fusebus.stack.results import name_files, results_json, results_table

NAMES = names()
SOME = NAMES[::4]
"""Enough of every kind where each costs a request."""
NOW = datetime(2026, 11, 21, 10, 30, tzinfo=UTC)
RUN = identity.run_id("acme", NOW, "0f" * 16)
MOVES_TEXT = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
MAX_MESSAGE_ID = 128  # characters, says Service Bus
MAX_FILE_NAME = 255  # bytes on most file systems


def harmless(text: str, allowed: str = "\n") -> bool:
    """Whether nothing in it moves, hides or turns round the text about it."""
    return not any(unicodedata.category(one) in MOVES_TEXT for one in text if one not in allowed)


def upload(name: str, kind: FinalKind = FinalKind.ANALYSED) -> UploadRow:
    upload_id = identity.upload_id("in-acme", name, "0x1")
    analysis = identity.digest(upload_id)
    rejected = kind is FinalKind.REJECTED
    final = Final(
        kind=kind,
        at=NOW,
        reason="damaged" if rejected else "",
        explanation="The photo is damaged; please send it again." if rejected else "",
        analysis_id=analysis,
        annotated=None if rejected else StoredBlob(container="results", name=layout.annotated_name(RUN, analysis)),
        result=None if rejected else StoredBlob(container="results", name=layout.result_name(RUN, analysis)),
    )
    return UploadRow(
        upload_id=upload_id,
        supplier="acme",
        container="in-acme",
        blob_name=name,
        blob_etag="0x1",
        size=1,
        uploaded_at=NOW,
        reject_reason=RejectReason.DAMAGED if rejected else None,
        run_id=RUN,
        entered_at=NOW,
        final=final,
    )


@pytest.fixture(scope="module")
def summary() -> Summary:
    run = RunRow(
        run_id=RUN,
        supplier="acme",
        state=RunState.CLOSED,
        opened_at=NOW,
        first_upload_id="0f" * 16,
        last_upload_at=NOW,
        closed_at=NOW,
    )
    kinds = (FinalKind.ANALYSED, FinalKind.REJECTED)
    return summarise(run, [upload(name, kinds[number % 2]) for number, name in enumerate(NAMES)], {})


class Page(HTMLParser):
    """A page's tags with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.shape: set[tuple[str, tuple[str, ...]]] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.shape.add((tag, tuple(sorted(name for name, _ in attrs))))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_there_are_hundreds_of_names_and_each_is_another_upload() -> None:
    assert len(NAMES) >= 300
    assert len({identity.upload_id("in-acme", name, "0x1") for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("length", [display.NAME_LENGTH, 20])
def test_a_shown_name_is_one_short_line_of_visible_characters(length: int) -> None:
    for name in [*NAMES, *(f"broken{chr(0xDC80 + code)}.jpg" for code in range(9)), ""]:
        shown = display.name(name, length)
        assert 0 < len(shown) <= length
        assert harmless(shown, allowed="")


def test_an_event_with_any_name_finds_its_blob_again_and_the_name_leaves_the_body_nowhere() -> None:
    for name in NAMES:
        blob = BlobProperties(
            name=name,
            size=1,
            etag="0x1",
            blob_type="BlockBlob",
            content_type="",
            created_at=NOW,
            modified_at=NOW,
        )
        sent = event_of("in-acme", blob)
        received = decode(encode(sent))
        assert received == sent
        place = place_of(received)  # type: ignore[arg-type]
        assert isinstance(place, Place)
        assert (place.container, place.name) == ("in-acme", name)
        envelope = Envelope(message=received)
        assert len(envelope.message_id) <= MAX_MESSAGE_ID
        assert envelope.message_id.isascii()
        assert len(name) < 3 or name not in map(str, envelope.properties().values())


def test_every_message_about_an_upload_is_under_64_kilobytes_and_comes_back_as_it_was() -> None:
    for name in NAMES:
        message = announcement.rejected(
            upload(name, FinalKind.REJECTED), RejectReason.DAMAGED, Limits(max_bytes=1, max_pixels=1)
        )
        assert decode(encode(message)) == message


def test_a_table_row_gives_back_the_exact_name() -> None:
    for name in NAMES:
        row = upload(name)
        columns = to_columns(row)
        assert not re.search("[\x00-\x1f\x7f-\x9f\ud800-\udfff]", columns["blob_name"])
        assert from_columns(columns, UploadRow) == row


async def test_the_ledger_keeps_every_name_exactly_and_no_two_become_one(ledger_settings: LedgerSettings) -> None:
    async with Ledger(ledger_settings) as ledger:
        await ledger.create_tables()

        async def enter(name: str) -> str:
            entry = UploadEntry(
                upload_id=identity.upload_id("in-acme", name, "0x1"),
                supplier="acme",
                container="in-acme",
                blob_name=name,
                blob_etag="0x1",
                size=1,
                uploaded_at=NOW,
                reject_reason=RejectReason.DAMAGED,
            )
            return (await ledger.enter_upload(entry, NOW)).run_id

        (run,) = set(await asyncio.gather(*map(enter, SOME)))
        assert sorted(row.blob_name for row in await ledger.uploads(run)) == sorted(SOME)


async def test_storage_keeps_names_exactly_or_says_that_there_is_no_such_blob(
    blob_settings: BlobSettings, supplier: str
) -> None:
    container = layout.supplier_container(supplier)
    fit = [name for name in SOME if not unfit_name(name)]
    async with Blobs(blob_settings) as blobs:
        await blobs.create_container(container)
        kept: list[str] = []
        for name in fit:
            try:
                await blobs.write(container, name, name.encode(), "text/plain")
            except BlobVanished:
                continue  # a name that no request can carry: `..`, say
            kept.append(name)
        listed = [found.name async for found in blobs.list(container)]
        assert len(kept) > len(SOME) // 2
        for name in kept:
            data = await blobs.read(container, name, max_bytes=10_000)
            assert data.decode() == name, "its own content, not another name's"
        stored = {name.replace("\\", "/") for name in kept}  # storage says so: a backslash is a slash
        assert {found.replace("\\", "/") for found in listed} == stored


def test_a_log_line_stays_one_line_of_json_whatever_the_name() -> None:
    formatter = JsonFormatter("test")
    for name in [*NAMES, "half a character \ud800\n.jpg"]:
        record = logging.LogRecord("x", logging.INFO, "f", 1, "read %s", (name,), None)
        record.blob = name
        line = formatter.format(record)
        assert "\n" not in line
        read = json.loads(line)
        assert (read["level"], len(read)) == ("info", 6), "a name adds and changes no field"
        if not re.search("sig=|AccountKey=|Bearer |password=", name):
            assert (read["blob"], read["message"]) == (name, f"read {name}")


def test_the_report_shows_names_as_text_and_summary_json_keeps_them(summary: Summary) -> None:
    page = render_report(summary, {}).decode()
    plain = summarise(_run_of(summary), [upload("a/b.jpg"), upload("b.jpg", FinalKind.REJECTED)], {})
    found, expected = Page(page), Page(render_report(plain, {}).decode())
    assert found.shape <= expected.shape
    assert harmless(found.text)
    kept = json.loads(summary_json(summary))
    assert sorted(one["name"] for one in (*kept["pictures"], *kept["rejected"])) == sorted(NAMES)


def _run_of(summary: Summary) -> RunRow:
    return RunRow(
        run_id=summary.run_id,
        supplier="acme",
        state=RunState.CLOSED,
        opened_at=NOW,
        first_upload_id="0f" * 16,
        last_upload_at=NOW,
    )


def test_a_mail_has_the_same_headers_and_parts_whatever_the_names(summary: Summary) -> None:
    envelope = MailEnvelope(sender="fusebus@example.com", recipients=("ops@example.com",))
    thumbnails = {picture.upload_id: b"\xff\xd8" for picture in summary.pictures[:9]}
    mail = message_from_bytes(summary_mail(summary, thumbnails, envelope, NOW).as_bytes(), policy=policy.default)
    assert set(mail.keys()) == {
        "Subject",
        "From",
        "To",
        "Date",
        "Message-ID",
        "Auto-Submitted",
        "MIME-Version",
        "Content-Type",
    }
    assert mail["To"] == "ops@example.com"
    for part in mail.walk():
        name = part.get_filename()
        assert name is None or re.fullmatch(r"picture-[0-9]+\.jpg", name)
    assert harmless(mail.get_body(("plain",)).get_content())  # type: ignore[union-attr]
    assert harmless(Page(mail.get_body(("html",)).get_content()).text)  # type: ignore[union-attr]


def test_a_card_shows_names_in_runs_of_plain_text_and_leads_to_where_they_are_kept(summary: Summary) -> None:
    address, at_once = "https://fusebus.example.com/results/", 10
    failed = [Failure(upload_id="f", name=name, reason=name, description=name) for name in NAMES]
    empty = msgspec.structs.replace(summary, pictures=(), rejected=(), duplicates=())
    for first in range(0, len(failed), at_once):
        some = tuple(failed[first : first + at_once])
        card = summary_card(msgspec.structs.replace(empty, failed=some), address)
        assert len(card) <= MOST_BYTES
        content = json.loads(card)["attachments"][0]["content"]
        runs = [run for block in content["body"] for run in block.pop("inlines")]
        assert {block.pop("type") for block in content["body"]} == {"RichTextBlock"}, "which takes no Markdown"
        assert {run["type"] for run in runs} == {"TextRun"}
        assert {key for block in content["body"] for key in block} <= {"spacing"}
        assert {key for run in runs for key in run} <= {"type", "text", "weight", "size", "color", "isSubtle"}
        texts = [run["text"] for run in runs]
        assert all(harmless(text, allowed="") and "{{" not in text for text in texts)
        assert not any(re.search("</?at", text, re.IGNORECASE) for text in texts)
        for one in some:
            assert inert(display.name(one.name)) in texts, "none is left out for another's length"
        assert [action["url"] for action in content["actions"]] == [address + layout.report_name(RUN)]
    kept = json.loads(summary_json(msgspec.structs.replace(empty, failed=tuple(failed))))
    assert [one["name"] for one in kept["failed"]] == NAMES, "beside the report, exactly"
    assert len(summary_card(summary, address)) <= MOST_BYTES


def test_fetched_results_get_names_of_their_own_inside_their_folder(tmp_path: Path) -> None:
    rows = [upload(name) for name in NAMES]
    local = name_files(rows)
    files = [found.annotated for found in local]
    assert len({file.casefold() for file in files}) == len(files)
    for file in files:
        path = (tmp_path / file).resolve()
        assert path.parent == (tmp_path / "annotated").resolve()
        assert len(path.name.encode()) <= MAX_FILE_NAME
        assert harmless(file, allowed="")
    not_sent = [Upload(Photo(Path("x"), name, 1), Sent.FAILED, error="no") for name in NAMES]
    delivered = Delivered(
        last=Moment(runs=(), uploads=tuple(rows), queues=(), nodes=Nodes(0, 0)), sent=tuple(not_sent), seconds=1.0
    )
    out = StringIO()
    Console(file=out, width=200).print(results_table(delivered, local, tmp_path))
    assert harmless(out.getvalue())
    assert results_json(delivered, local).isascii()
    said = json.loads(results_json(delivered, local))
    assert sorted(one["name"] for one in said["files"]) == sorted(NAMES)


def test_upload_tells_of_files_of_any_name_and_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    odd = [*NAMES, "half a character \udcff.jpg"]
    outcomes = [Upload(Photo(Path("x"), name, 1), Sent.FAILED, error="no") for name in odd]
    say_uploaded(outcomes, "acme", as_json=True)
    told = capsys.readouterr().out
    assert told.isascii() and [one["name"] for one in json.loads(told)["files"]] == odd
    say_uploaded(outcomes, "acme", as_json=False)
    shown = capsys.readouterr()
    assert harmless(shown.out + shown.err) and shown.err.count("\n") == len(odd)


def test_what_is_shown_of_a_supplier_keeps_its_held_names_and_moves_no_cursor() -> None:
    record = SupplierRecord(name="acme", added_at=NOW, changed_at=NOW, changed_by="me", reason="a\r\nb\x1b[2J")
    odd = [*NAMES, "half a character \ud800.jpg"]
    held = [
        Held(
            upload_id=str(number),
            supplier="acme",
            container="in-acme",
            blob_name=name,
            because=HeldBecause.QUOTA,
            held_at=NOW,
        )
        for number, name in enumerate(odd)
    ]
    for first in range(0, len(held), MOST_HELD_SHOWN):
        shown = Shown(supplier=record, today=Usage(), grants=[], held=held[first : first + MOST_HELD_SHOWN])
        words = shown_words(shown, NOW)
        assert all(harmless(line, allowed="") for line in words)
        said = json_text(shown)
        assert said.isascii()
        assert [one["blob_name"] for one in json.loads(said)["held"]] == [one.blob_name for one in shown.held]


def test_check_tells_of_files_of_any_name_and_moves_no_cursor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = [name for name in [*NAMES, "broken\udcff.jpg"] if len(os.fsencode(name)) <= MAX_FILE_NAME]
    wanted = [name for name in wanted if not {"/", "\0"} & set(name) and name not in (".", "..")]
    for name in wanted:
        Path(name).write_bytes(b"no photo")
    assert len(wanted) > 200
    runner = CliRunner()
    told = runner.invoke(fusebus, ["check", "--json", "--", *wanted])
    assert told.exit_code == 3, told.output
    assert told.stdout.isascii()
    objects = [json.loads(line) for line in told.stdout.splitlines()]
    assert [one["file"] for one in objects] == wanted
    assert {(one["verdict"], one["reason"]) for one in objects} == {("reject", "not_an_image")}
    shown = runner.invoke(fusebus, ["check", "--", *wanted])
    assert shown.stdout.count("\n") == len(wanted)
    assert harmless(shown.stdout)
