"""Reads runs and their uploads, records finals, closes and completes runs: every write under the row's ETag."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from fusebus.ledger.columns import from_columns, to_columns
from fusebus.ledger.rows import Final, FinalRecorded, RunRow, RunState, UploadRow
from fusebus.ledger.tables import Row, Tables

HEADER = "run"
UPLOAD = "upload:"
OPENED = "opened:"
MAX_EXPLANATION = 4_000  # characters of free text that are kept
_END_OF_TIME = 10**17  # microseconds since 1970, the year 5138: row names count down from it, newest first


class RunContents(NamedTuple):
    """What a run holds: photos (and what was sent in their place), and the manifests that list them."""

    uploads: list[UploadRow]
    manifests: list[UploadRow]


class RunLedger:
    """Runs and finals: what the notifier writes and everybody reads."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def run(self, run_id: str) -> RunRow | None:
        """The run's header; None where there is no such run."""
        found = await self._tables.get("runs", run_id, HEADER)
        return from_columns(found.columns, RunRow, version=found.version) if found else None

    async def runs(
        self, supplier: str | None = None, limit: int = 100, skip: Collection[str] = frozenset()
    ) -> list[RunRow]:
        """The newest runs of one supplier or of all, newest first, without those to `skip` (run ids)."""
        names = [
            (row.name, str(row.columns["run_id"]))
            async for row in self._tables.query(
                "current", supplier, OPENED, _after(OPENED), limit + len(skip) if supplier else None
            )
        ]
        wanted = [run_id for _, run_id in sorted(names) if run_id not in skip]
        found = await asyncio.gather(*map(self.run, wanted[:limit]))
        return [run for run in found if run is not None]

    async def upload(self, run_id: str, upload_id: str) -> UploadRow | None:
        """One upload of a run; None where the run has no such upload."""
        found = await self._tables.get("runs", run_id, UPLOAD + upload_id)
        return _upload(found) if found else None

    async def uploads(self, run_id: str) -> list[UploadRow]:
        """All uploads of a run but its manifests, as `contents`."""
        return (await self.contents(run_id)).uploads

    async def contents(self, run_id: str) -> RunContents:
        """All of a run in the order of the uploads' ids: a partition scan, a thousand rows a page."""
        found = RunContents([], [])
        async for row in self._tables.query("runs", run_id, UPLOAD, _after(UPLOAD)):
            upload = _upload(row)
            (found.uploads if upload.manifest is None else found.manifests).append(upload)
        return found

    async def wait_for(
        self, run_id: str, upload_id: str, of: str, of_run: str, *, instead_of: tuple[str, str] | None = None
    ) -> UploadRow | None:
        """Let an upload's final follow from that of the upload `of` (empty: no more); its row afterwards.

        One that has a final keeps it, and waits for nothing; so does one that waits for another upload and run than
        `instead_of`, where that is given. None where the run has no such upload.
        """
        async for _ in self._tables.tries(f"waiting of {upload_id}"):
            upload = await self.upload(run_id, upload_id)
            if upload is None or upload.final is not None:
                return upload
            waits = (upload.waits_for, upload.waits_for_run)
            if waits == (of, of_run) or instead_of not in (None, waits):
                return upload
            waiting = msgspec.structs.replace(upload, waits_for=of, waits_for_run=of_run)
            if version := await self._tables.replace("runs", upload_row(waiting)):
                return msgspec.structs.replace(waiting, version=version)
        raise AssertionError("tries ends with an error")

    async def record_final(self, run_id: str, upload_id: str, final: Final) -> FinalRecorded:
        """Write an upload's final; the first one stays. Raises LedgerUnavailable, LedgerError."""
        final = msgspec.structs.replace(final, explanation=final.explanation[:MAX_EXPLANATION])
        async for number in self._tables.tries(f"final of {upload_id}"):
            upload = await self.upload(run_id, upload_id)
            if upload is None:
                return FinalRecorded.UNKNOWN_UPLOAD
            if upload.final == final:  # on a later look it is our own write, whose answer got lost
                return FinalRecorded.NEW if number else FinalRecorded.SAME
            if upload.final is not None:
                return FinalRecorded.SAME if upload.final.agrees_with(final) else FinalRecorded.CONFLICTING
            if await self._tables.replace("runs", upload_row(msgspec.structs.replace(upload, final=final))):
                return FinalRecorded.NEW
        raise AssertionError("tries ends with an error")

    async def close_run(
        self, run_id: str, now: datetime, *, requested_by: str = "", unchanged: RunRow | None = None
    ) -> RunRow | None:
        """Close an open run for new uploads; its row afterwards, None where there is no such run.

        With `unchanged` it stays open where an upload entered since that row was read.
        """
        async for _ in self._tables.tries(f"closing {run_id}"):
            run = await self.run(run_id)
            if run is None or run.state is not RunState.OPEN:
                return run
            if unchanged is not None and unchanged.version != run.version:
                return run
            closed = msgspec.structs.replace(run, state=RunState.CLOSED, closed_at=now, close_requested_by=requested_by)
            if version := await self._tables.replace("runs", header_row(closed)):
                return msgspec.structs.replace(closed, version=version)
        raise AssertionError("tries ends with an error")

    async def complete_run(self, run_id: str, now: datetime) -> RunRow | None:
        """Mark a closed run complete; its row afterwards (an open one stays open), None where there is no such run."""
        async for _ in self._tables.tries(f"completing {run_id}"):
            run = await self.run(run_id)
            if run is None or run.state is not RunState.CLOSED:
                return run
            complete = msgspec.structs.replace(run, state=RunState.COMPLETE, completed_at=now)
            if version := await self._tables.replace("runs", header_row(complete)):
                return msgspec.structs.replace(complete, version=version)
        raise AssertionError("tries ends with an error")


def inverted(moment: datetime) -> str:
    """Counts down as time goes on, in text of one length: the newest row comes first."""
    return f"{_END_OF_TIME - microseconds(moment):018d}"


def microseconds(moment: datetime) -> int:
    """Since 1970, exact."""
    passed = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds


def header_row(run: RunRow) -> Row:
    return Row(run.run_id, HEADER, to_columns(run), run.version)


def upload_row(upload: UploadRow) -> Row:
    return Row(upload.run_id, UPLOAD + upload.upload_id, to_columns(upload), upload.version)


def _upload(row: Row) -> UploadRow:
    return from_columns(row.columns, UploadRow, version=row.version)


def _after(prefix: str) -> str:
    """The first text behind all that start with `prefix`."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
