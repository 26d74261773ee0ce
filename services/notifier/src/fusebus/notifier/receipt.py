"""What a supplier is told of a run, file by file: names are exact in JSON and safe in a spreadsheet.

Only what concerns the supplier: accepted, refused and why, duplicate of what, missing. Nothing of results or of us.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from fusebus.blobs import layout
from fusebus.contracts import display
from fusebus.ledger import Final, FinalKind, RunRow, UploadRow
from fusebus.notifier.listed import Manifest, Missing
from fusebus.notifier.summary import Duplicate, Summary

MOST_LISTED = 1_000
"""Receipts that the list of receipts names, newest first."""
SHOWN = 1_024  # characters of a name in CSV: all that storage keeps
CANCELLED = "cancelled"
"""Reason of the finals of a run that people cancelled, whose explanation is for its supplier."""
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""With what a spreadsheet takes a cell for a formula, the full-width forms too."""
INNER_FORMULA = re.compile(rf"([;,|\t][\s\"]*)(?=[{re.escape(''.join(FORMULA))}])")
"""Where a cell would begin with a formula if another separator were chosen: our quotes keep only commas inside."""
COLUMNS = (
    "file",
    "outcome",
    "reason",
    "what to do",
    "same photo as",
    "came in run",
    "uploaded at (UTC)",
    "bytes",
    "warnings",
    "sha256",
)
INDEX_COLUMNS = ("run", "delivered", "files", "accepted", "refused", "duplicate", "failed", "missing", "receipt")


class Outcome(StrEnum):
    """What became of a file."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    DUPLICATE = "duplicate"
    FAILED = "failed"
    MISSING = "missing"
    """Listed in a manifest, and not uploaded."""
    ELSEWHERE = "in another run"
    HELD = "held"


_OUTCOMES = {
    FinalKind.ANALYSED: Outcome.ACCEPTED,
    FinalKind.CONVERTED: Outcome.ACCEPTED,
    FinalKind.REJECTED: Outcome.REFUSED,
    FinalKind.DUPLICATE: Outcome.DUPLICATE,
    FinalKind.FAILED: Outcome.FAILED,
}
_WHAT_TO_DO = {
    Outcome.DUPLICATE: "The same photo came before, and is processed once. Nothing to do.",
    Outcome.FAILED: "It could not be processed on our side; the photo may be sound. "
    "Send it again under another name, or ask us.",
    Outcome.MISSING: "It is listed, and was not uploaded. Please upload it.",
    Outcome.ELSEWHERE: "It came in another run, whose receipt says what became of it. Nothing to do.",
    Outcome.HELD: "It arrived and waits for the agreed quota. Nothing to do.",
}


class ReceiptFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One file; `name` and `duplicate_of` exactly as they were uploaded."""

    name: str
    outcome: Outcome
    reason: str = ""
    """A short code of a refusal."""
    what_to_do: str = ""
    """What is wrong and the way out, in a sentence."""
    duplicate_of: str = ""
    """Name of the file that came first, and its run."""
    duplicate_of_run: str = ""
    uploaded_at: datetime | None = None
    bytes: int | None = None
    sha256: str = ""
    """Of the bytes that arrived; empty where they were not read."""
    warnings: tuple[str, ...] = ()
    """What may have kept the photo from being judged well."""
    manifest: str = ""
    """The list that names a missing file."""
    in_run: str = ""
    """Of a missing file: the other run that it came in."""


class ReceiptCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Files by outcome: accepted, refused, duplicate and failed add up to `files`."""

    files: int
    accepted: int
    refused: int
    duplicate: int
    failed: int
    missing: int
    """Listed files that came in no run and are not held."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """A run as its supplier sees it."""

    schema_version: int = 1
    run_id: str
    supplier: str
    opened_at: datetime
    closed_at: datetime
    counts: ReceiptCounts
    files: tuple[ReceiptFile, ...]
    missing: tuple[ReceiptFile, ...]
    not_listed: tuple[str, ...]
    """Files that arrived and that no manifest of the run lists; empty where there is none."""
    manifests: tuple[Manifest, ...]
    analysed_again: str = ""
    """Not a delivery: photos of that run, looked at again by us. Nothing to do."""


class IndexEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One receipt in the list of them."""

    run_id: str
    opened_at: datetime
    closed_at: datetime
    counts: ReceiptCounts
    json: str
    """Blob names in the same container."""
    csv: str
    analysed_again: str = ""


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """A supplier's receipts, newest first."""

    schema_version: int = 1
    supplier: str
    receipts: tuple[IndexEntry, ...] = ()


def receipt_of(run: RunRow, uploads: Sequence[UploadRow], summary: Summary) -> Receipt:
    """A run whose uploads are all final, in the order of its summary."""
    rows = {upload.upload_id: upload for upload in uploads}
    twins = {found.upload_id: found for found in summary.duplicates}
    everything = (summary.pictures, summary.rejected, summary.duplicates, summary.failed)
    files = tuple(_file(rows[found.upload_id], twins) for part in everything for found in part)
    missing = tuple(map(_missing, summary.missing))
    return Receipt(
        run_id=run.run_id,
        supplier=run.supplier,
        opened_at=run.opened_at,
        closed_at=summary.closed_at,
        counts=_counts(files, missing),
        files=files,
        missing=missing,
        not_listed=summary.unlisted,
        manifests=summary.manifests,
        analysed_again=run.reprocess_of,
    )


def receipt_json(receipt: Receipt | Index) -> bytes:
    """Indented JSON in ASCII: every name comes back exactly, half a surrogate pair too."""
    return json.dumps(msgspec.to_builtins(receipt), indent=2).encode("ascii") + b"\n"


def receipt_csv(receipt: Receipt) -> bytes:
    """One line a file, for spreadsheets: UTF-8 with its mark, every cell quoted, no cell a formula."""
    return _csv(COLUMNS, [*map(_line, (*receipt.files, *receipt.missing)), *map(_manifest_line, receipt.manifests)])


def with_receipt(index: Index, receipt: Receipt) -> Index:
    """The list with this receipt in its place, once."""
    entry = IndexEntry(
        run_id=receipt.run_id,
        opened_at=receipt.opened_at,
        closed_at=receipt.closed_at,
        counts=receipt.counts,
        json=layout.receipt_name(receipt.run_id, "json"),
        csv=layout.receipt_name(receipt.run_id, "csv"),
        analysed_again=receipt.analysed_again,
    )
    others = (found for found in index.receipts if found.run_id != receipt.run_id)
    newest_first = sorted((entry, *others), key=lambda found: (found.opened_at, found.run_id), reverse=True)
    return msgspec.structs.replace(index, receipts=tuple(newest_first[:MOST_LISTED]))


def newest_delivery(index: Index) -> str:
    """The run of the newest delivery; empty where there is none."""
    return next((found.run_id for found in index.receipts if not found.analysed_again), "")


def index_csv(index: Index) -> bytes:
    """One line a run."""
    return _csv(INDEX_COLUMNS, map(_index_line, index.receipts))


def _index_line(found: IndexEntry) -> tuple[object, ...]:
    counts = found.counts
    numbers = (counts.files, counts.accepted, counts.refused, counts.duplicate, counts.failed, counts.missing)
    return found.run_id, _time(found.opened_at), *numbers, found.csv


def _file(row: UploadRow, twins: Mapping[str, Duplicate]) -> ReceiptFile:
    final = row.final
    assert final is not None, "a summary has finals only"
    outcome, twin = _OUTCOMES[final.kind], twins.get(row.upload_id)
    return ReceiptFile(
        name=row.blob_name,
        outcome=outcome,
        reason=final.reason if outcome is Outcome.REFUSED else "",
        what_to_do=_what_to_do(final, outcome),
        duplicate_of=twin.of_name if twin else "",
        duplicate_of_run=twin.of_run if twin else "",
        uploaded_at=row.uploaded_at,
        bytes=row.size,
        sha256=row.image.sha256 if row.image else "",
        warnings=tuple(note for note in row.image.quality.split(",") if note) if row.image else (),
    )


def _what_to_do(final: Final, outcome: Outcome) -> str:
    """A failure's own words are for operators, but for those of a cancelled run."""
    if outcome is Outcome.REFUSED or final.reason == CANCELLED:
        return final.explanation
    return _WHAT_TO_DO.get(outcome, "")


def _missing(found: Missing) -> ReceiptFile:
    outcome = Outcome.ELSEWHERE if found.of_run else Outcome.HELD if found.held else Outcome.MISSING
    return ReceiptFile(
        name=found.name,
        outcome=outcome,
        what_to_do=_WHAT_TO_DO[outcome],
        manifest=found.manifest,
        in_run=found.of_run,
    )


def _counts(files: Sequence[ReceiptFile], missing: Sequence[ReceiptFile]) -> ReceiptCounts:
    def of(outcome: Outcome) -> int:
        return sum(found.outcome is outcome for found in (*files, *missing))

    return ReceiptCounts(
        files=len(files),
        accepted=of(Outcome.ACCEPTED),
        refused=of(Outcome.REFUSED),
        duplicate=of(Outcome.DUPLICATE),
        failed=of(Outcome.FAILED),
        missing=of(Outcome.MISSING),
    )


def _line(found: ReceiptFile) -> tuple[object, ...]:
    return (
        display.name(found.name, SHOWN),
        found.outcome.value,
        found.reason or (f"listed in {found.manifest}" if found.manifest else ""),
        found.what_to_do,
        found.duplicate_of,
        found.duplicate_of_run or found.in_run,
        _time(found.uploaded_at) if found.uploaded_at else "",
        "" if found.bytes is None else found.bytes,
        ", ".join(found.warnings),
        found.sha256,
    )


def _manifest_line(found: Manifest) -> tuple[object, ...]:
    outcome = Outcome.REFUSED if found.reason else Outcome.ACCEPTED
    what = found.explanation or f"This is a list of files: {found.listed}."
    return display.name(found.name, SHOWN), outcome.value, found.reason, what, "", "", "", "", "", ""


def _csv(columns: Sequence[str], lines: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([_cell(cell) for cell in line] for line in lines)
    return text.getvalue().encode("utf-8-sig")


def _cell(value: object) -> str:
    """One visible line that no spreadsheet runs, whatever separates its cells: what would begin a formula gets an
    apostrophe before it."""
    text = INNER_FORMULA.sub(r"\1'", display.one_line(str(value), SHOWN))
    return f"'{text}" if text.startswith(FORMULA) else text


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
