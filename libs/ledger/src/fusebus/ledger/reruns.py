"""Runs in which photos of a finished run are analysed again: rows of their own beside the old ones, which stay."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from fusebus.contracts.identity import digest, run_id
from fusebus.contracts.messages import BlobReference, ImageAccepted, JobKind, Lane
from fusebus.ledger.columns import from_columns, to_columns
from fusebus.ledger.rows import ImageFacts, RunRow, RunState, UploadRow
from fusebus.ledger.runs import OPENED, header_row, inverted, upload_row
from fusebus.ledger.tables import Row, Tables

AGAIN = "again:"
ROWS_AT_ONCE = 100  # as many as one transaction may have


class Rerun(msgspec.Struct, frozen=True, kw_only=True):
    """That a run's photos are analysed again with one model; at most one for each run and model."""

    of_run: str
    model: str
    """`name@version`."""
    run_id: str
    """The new run."""
    requested_at: datetime
    requested_by: str


class RerunLedger:
    """What people's command to analyse again writes."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def rerun(self, of_run: str, model: str) -> Rerun | None:
        """None where that run was never analysed again with that model."""
        found = await self._tables.get("runs", of_run, AGAIN + digest(model))
        return from_columns(found.columns, Rerun) if found else None

    async def begin_rerun(self, of: RunRow, model: str, now: datetime, by: str) -> Rerun:
        """Name the new run; a repeat finds the name that was given first."""
        chosen = Rerun(
            of_run=of.run_id,
            model=model,
            run_id=run_id(of.supplier, now, digest("again", of.run_id, model)),
            requested_at=now,
            requested_by=by,
        )
        await self._tables.insert("runs", Row(of.run_id, AGAIN + digest(model), to_columns(chosen)))
        found = await self.rerun(of.run_id, model)
        assert found is not None, "it was inserted, or was there"
        return found

    async def enter_again(
        self, rerun: Rerun, of: RunRow, uploads: Sequence[UploadRow], lane: Lane, deadline_seconds: float
    ) -> list[UploadRow]:
        """Copy `uploads` without their finals into the new run, which is closed from the beginning; its rows.

        Its header comes last: nobody takes a part of them for the whole. A repeat continues where the first one was
        interrupted, and changes nothing that is there.
        """
        rows = [_again(rerun, upload, lane, deadline_seconds) for upload in uploads]
        for start in range(0, len(rows), ROWS_AT_ONCE):
            await self._enter(rows[start : start + ROWS_AT_ONCE])
        named = Row(of.supplier, f"{OPENED}{inverted(rerun.requested_at)}:{rerun.run_id}", {"run_id": rerun.run_id})
        await self._tables.insert("current", named)
        await self._tables.insert("runs", header_row(_header(rerun, of, rows)))
        return rows

    async def _enter(self, rows: Sequence[UploadRow]) -> None:
        stored = [upload_row(row) for row in rows]
        if await self._tables.write_together("runs", stored) is None:  # some are there: an earlier try's
            for row in stored:
                await self._tables.insert("runs", row)


def work_again(rerun: Rerun, upload: UploadRow, results: str) -> ImageAccepted:
    """The work that a row of the new run stands for; `results` is the container of what was rebuilt from originals."""
    assert upload.image is not None, "only images are analysed again"
    image = upload.image
    return ImageAccepted(
        upload_id=upload.upload_id,
        run_id=upload.run_id,
        supplier=upload.supplier,
        image_id=image.image_id,
        job_kind=JobKind.DETECT,
        lane=upload.lane or Lane.BULK,
        deadline=rerun.requested_at + timedelta(seconds=upload.deadline_seconds or 0.0),
        blob=picture_of(upload, image, results),
        width=image.width,
        height=image.height,
        format=image.format,
        accepted_at=rerun.requested_at,
        captured_at=image.captured_at,
        camera=image.camera,
        quality=tuple(filter(None, image.quality.split(","))),
        model=rerun.model,
    )


def picture_of(upload: UploadRow, image: ImageFacts, results: str) -> BlobReference:
    """What is to be analysed: the original under its ETag, or what was rebuilt from it (in container `results`)."""
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
    return BlobReference(container=results, name=working.name, etag="", sha256=working.sha256, size=working.size)


def _again(rerun: Rerun, upload: UploadRow, lane: Lane, deadline_seconds: float) -> UploadRow:
    return msgspec.structs.replace(
        upload,
        upload_id=digest("again", rerun.run_id, upload.upload_id),
        run_id=rerun.run_id,
        entered_at=rerun.requested_at,
        job_kind=JobKind.DETECT,
        lane=lane,
        deadline_seconds=deadline_seconds,
        when="",
        release_at=None,
        final=None,
        waits_for="",
        waits_for_run="",
        reprocess_of=upload.upload_id,
        version="",
    )


def _header(rerun: Rerun, of: RunRow, rows: Sequence[UploadRow]) -> RunRow:
    return RunRow(
        run_id=rerun.run_id,
        supplier=of.supplier,
        state=RunState.CLOSED,
        opened_at=rerun.requested_at,
        first_upload_id=rows[0].upload_id if rows else "",
        last_upload_at=rerun.requested_at,
        closed_at=rerun.requested_at,
        close_requested_by=rerun.requested_by,
        reprocess_of=of.run_id,
        model=rerun.model,
    )
