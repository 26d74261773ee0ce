"""Fetches a delivery's results onto this machine, under names that a person recognises."""

from __future__ import annotations

import asyncio
import posixpath
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fusebus.blobs import Blobs
from fusebus.blobs.layout import RESULTS, report_name
from fusebus.console.answers import json_text
from fusebus.console.uploading import Sent
from fusebus.ledger import Final, RunRow, UploadRow
from fusebus.stack.delivery import Delivered

FOLDERS = ("annotated", "json", "report", "mail")
MAX_BLOB_BYTES = 200_000_000
MAX_STEM_BYTES = 80  # of a file's name, in UTF-8, taken from the blob's
PARALLEL_DOWNLOADS = 8

_UNSAFE = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class Local:
    """One upload's files below the results folder; empty where it has none."""

    row: UploadRow
    annotated: str = ""
    json: str = ""


async def fetch_results(blobs: Blobs, runs: Sequence[RunRow], uploads: Sequence[UploadRow], out: Path) -> list[Local]:
    """Download pictures, JSON and reports of `runs` into `out`. Raises StorageError, BlobVanished."""
    local = name_files(uploads)
    limit = asyncio.Semaphore(PARALLEL_DOWNLOADS)

    async def fetch(blob: str, to: str) -> None:
        async with limit:
            data = await blobs.read(RESULTS, blob, max_bytes=MAX_BLOB_BYTES)
        target = out / to
        await asyncio.to_thread(_write, target, data)

    async with asyncio.TaskGroup() as group:
        for found in local:
            final = found.row.final
            if final is not None and final.annotated is not None and final.result is not None:
                group.create_task(fetch(final.annotated.name, found.annotated))
                group.create_task(fetch(final.result.name, found.json))
    for run, folder in zip(runs, _report_folders(len(runs)), strict=True):
        page = await blobs.read(RESULTS, report_name(run.run_id), max_bytes=MAX_BLOB_BYTES)
        await asyncio.to_thread(_write, out / folder / "index.html", relink(page, run.run_id, folder, local))
    return local


def name_files(uploads: Sequence[UploadRow]) -> list[Local]:
    """A file name for each result: the blob's own name made harmless, numbered where two would collide."""
    taken: set[str] = set()
    found = []
    for row in sorted(uploads, key=lambda row: row.blob_name):
        if row.final is None or row.final.annotated is None:
            found.append(Local(row))
            continue
        stem = _free(_stem(row.blob_name), taken)
        suffix = PurePosixPath(row.final.annotated.name).suffix
        found.append(Local(row, f"annotated/{stem}{suffix}", f"json/{stem}.json"))
    return found


def relink(page: bytes, run_id: str, folder: str, local: Sequence[Local]) -> bytes:
    """The report with its links into storage replaced by links to the fetched files."""
    text = page.decode()
    origin = posixpath.dirname(report_name(run_id))
    for found in local:
        final = found.row.final
        if final is not None and final.annotated is not None and final.result is not None:
            for blob, file in ((final.annotated.name, found.annotated), (final.result.name, found.json)):
                text = text.replace(posixpath.relpath(blob, origin), posixpath.relpath(file, folder))
    return text.encode()


def results_json(delivered: Delivered, local: Sequence[Local]) -> bytes:
    """Everything a script may want of a delivery, as one JSON object."""
    files = [
        {
            "name": found.row.blob_name,
            "state": found.row.final.kind.value if found.row.final else "waiting",
            "reason": found.row.final.reason if found.row.final else "",
            "detections": found.row.final.detections if found.row.final else 0,
            "best_score": found.row.final.best_score if found.row.final else 0.0,
            "annotated": found.annotated,
            "json": found.json,
        }
        for found in local
    ]
    not_sent = [
        {"name": upload.photo.name, "error": upload.error or upload.sent.value}
        for upload in delivered.sent
        if upload.sent is not Sent.SENT
    ]
    counts = {"analysed": delivered.analysed, "rejected": delivered.rejected, "failed": delivered.failed}
    said = {**counts, "seconds": round(delivered.seconds, 1), "files": files, "not_sent": not_sent}
    return json_text(said).encode()


def results_table(delivered: Delivered, local: Sequence[Local], out: Path) -> RenderableType:
    """The same for people."""
    table = Table("photo", "state", "neutrals", "best", "picture, or why not", box=None)
    for column in table.columns:
        column.overflow = "fold"  # a path that is cut is no path
    names = {found.row.upload_id: found.row.blob_name for found in local}
    for found in local:
        final = found.row.final
        if final is None:
            continue
        analysed = bool(found.annotated)
        table.add_row(
            escape(display_name(found.row.blob_name)),
            final.kind.value,
            str(final.detections) if analysed else "",
            f"{final.best_score:.2f}" if analysed and final.detections else "",
            escape(str(out / found.annotated) if analysed else final.explanation or _why(final, names)),
        )
    for upload in delivered.sent:
        if upload.sent is not Sent.SENT:
            table.add_row(escape(display_name(upload.photo.name)), "not sent", "", "", escape(upload.error))
    end = (
        f"{delivered.analysed} analysed, {delivered.rejected} rejected, {delivered.failed} failed in "
        f"{delivered.seconds:.0f} s; report: {out / 'report' / 'index.html'}"
    )
    return Group(table, Text(end))


def display_name(name: str) -> str:
    """A name fit for a terminal: whatever could move the cursor or turn the text round becomes `?`."""
    return "".join(character if character.isprintable() else "?" for character in name)


def _why(final: Final, names: Mapping[str, str]) -> str:
    if not final.duplicate_of:
        return final.reason
    return f"same photo as {display_name(names.get(final.duplicate_of, f'upload {final.duplicate_of[:8]}'))}"


def _report_folders(count: int) -> list[str]:
    return ["report", *(f"report-{number}" for number in range(2, count + 1))][:count]


def _stem(name: str) -> str:
    """Letters of any script stay, for people to recognise; whatever a path or a link minds becomes `_`."""
    stem = _UNSAFE.sub("_", unicodedata.normalize("NFC", posixpath.splitext(name)[0])).strip("._")
    return stem.encode()[:MAX_STEM_BYTES].decode(errors="ignore")


def _free(stem: str, taken: set[str]) -> str:
    stem = stem or "photo"
    name, number = stem, 1
    while name.casefold() in taken:  # some file systems don't tell upper from lower case
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.casefold())
    return name


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
