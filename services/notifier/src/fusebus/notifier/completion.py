"""Brings a closed run to its end: report, summary, receipt, one mail, one card, complete. Each may be repeated."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from email.message import EmailMessage

import msgspec

from fusebus.blobs import StorageError, layout
from fusebus.ledger import FinalKind, RunContents, RunRow, RunState, UploadRow
from fusebus.notifier import policy, telemetry
from fusebus.notifier.cards import run_card_key, summary_card
from fusebus.notifier.listed import listed_of, searched
from fusebus.notifier.mail import run_key, summary_mail
from fusebus.notifier.ports import Ports
from fusebus.notifier.receipts import has_receipt, leave_receipt
from fusebus.notifier.report import render_report
from fusebus.notifier.summary import Summary, summarise, summary_json, summary_name
from fusebus.notifier.telling import carded, envelope_of, mailed
from fusebus.notifier.thumbnails import thumbnails
from fusebus.notifier.twins import follow, is_waiting

_log = logging.getLogger(__name__)

LOOKUPS_AT_ONCE = 16  # rows of other runs, for the names of what was delivered before


class Completion:
    """Knows, beside the ledger, only hints: how many finals a run certainly still lacks."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._seen: dict[str, int] = defaultdict(int)
        self._worth_a_scan: dict[str, int] = {}
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def after_final(self, run_id: str) -> None:
        """Complete the run if this was its last final; cheap while it is open or many finals are still to come.

        Finals that another process records are not seen here: then the next RunCheck completes the run.
        """
        run = await self._ports.ledger.run(run_id)
        if run is None or run.state is not RunState.CLOSED:
            return
        self._seen[run_id] += 1
        if self._seen[run_id] >= self._worth_a_scan.get(run_id, 0):
            await self.finish(run)

    async def finish(self, run: RunRow) -> bool:
        """Complete a closed run if every upload is final and its mail's outcome known; whether it is complete now."""
        async with self._locks[run.run_id]:
            current = await self._ports.ledger.run(run.run_id)
            complete = current is not None and (
                current.state is RunState.COMPLETE or (current.state is RunState.CLOSED and await self._finish(current))
            )
        if complete:
            for hints in (self._seen, self._worth_a_scan, self._locks):
                hints.pop(run.run_id, None)
        return complete

    async def _finish(self, run: RunRow) -> bool:
        contents = await self._scan(run.run_id)
        uploads = contents.uploads
        if not policy.is_complete(policy.Phase(run.state.value), policy.pending(upload.final for upload in uploads)):
            return False
        ports = self._ports
        listed = await listed_of(contents, ports.results)
        listed = await searched(listed, run.supplier, run.run_id, ports.ledger)
        summary = summarise(run, uploads, await self._earlier(run.run_id, uploads), listed)
        if not await self._is_meant(run.run_id):
            await self._report(summary)
            receipt = await self._receipt(run, uploads, summary)
        else:
            receipt = await has_receipt(run, ports.results)
        if not await self._tell(run, summary, without_receipt=not receipt):
            return False
        complete = await ports.ledger.complete_run(run.run_id, ports.clock())
        telemetry.run_complete(run.opened_at, ports.clock())
        _log.info("run is complete", extra={"counts": msgspec.to_builtins(summary.counts)})
        return complete is not None and complete.state is RunState.COMPLETE

    async def _is_meant(self, run_id: str) -> bool:
        """Whether its mail or card is: that is so only once the report is there."""
        ledger = self._ports.ledger
        if await ledger.mail_marker(run_id) is not None:
            return True
        return self._ports.runs_channel is not None and await ledger.mail_marker(run_card_key(run_id)) is not None

    async def _tell(self, run: RunRow, summary: Summary, *, without_receipt: bool) -> bool:
        """Whether the outcomes of mail and card are known now; neither waits for the other."""
        ports = self._ports
        envelope = envelope_of(ports)
        since = run.closed_at or run.last_upload_at

        async def write() -> EmailMessage:
            shown = sorted(summary.analysed, key=lambda picture: picture.detections == 0)[
                : ports.settings.mail_pictures
            ]
            small = await thumbnails(run.run_id, shown, ports.results, ports.shrink)
            return summary_mail(summary, small, envelope, ports.clock(), without_receipt=without_receipt)

        def card() -> bytes:
            return summary_card(summary, envelope.report_address, without_receipt=without_receipt)

        by_both = (
            await mailed(run.run_id, run_key(run.run_id), write, since, ports),
            await carded(run_card_key(run.run_id), card, since, ports, ports.runs_channel),
        )
        return all(by_both)

    async def _scan(self, run_id: str) -> RunContents:
        """All of the run, with the ends of uploads that waited for others, and from how many more finals on another
        scan can find it complete: those that wait get theirs in a scan."""
        seen = self._seen[run_id]
        contents = await self._ports.ledger.contents(run_id)
        uploads = await follow(run_id, contents.uploads, self._ports)
        outstanding = policy.pending(upload.final for upload in uploads if not is_waiting(upload))
        self._worth_a_scan[run_id] = seen + max(1, outstanding)
        return contents._replace(uploads=uploads)

    async def _report(self, summary: Summary) -> None:
        ports = self._ports
        shown = summary.pictures[: ports.settings.report_pictures]
        small = await thumbnails(summary.run_id, shown, ports.results, ports.shrink)
        page = await asyncio.to_thread(render_report, summary, small)
        await ports.results.write(
            layout.RESULTS, summary_name(summary.run_id), summary_json(summary), "application/json"
        )
        await ports.results.write(layout.RESULTS, layout.report_name(summary.run_id), page, "text/html; charset=utf-8")

    async def _receipt(self, run: RunRow, uploads: Sequence[UploadRow], summary: Summary) -> bool:
        """Leave the receipt; False where that failed for so long that the run ends without. Raises StorageError."""
        ports = self._ports
        try:
            await leave_receipt(run, uploads, summary, ports.results)
        except StorageError as error:
            done_at = max(summary.closed_at, *(upload.final.at for upload in uploads if upload.final), run.opened_at)
            if ports.clock() - done_at < timedelta(seconds=ports.settings.receipt_patience_seconds):
                raise
            _log.error("the run ends without a receipt for its supplier: %s", error)
            return False
        return True

    async def _earlier(self, run_id: str, uploads: list[UploadRow]) -> dict[str, UploadRow]:
        """Uploads in other runs that this run's duplicates repeat, by their ids."""
        wanted = {
            (final.duplicate_of_run, final.duplicate_of)
            for upload in uploads
            if (final := upload.final) is not None
            and final.kind is FinalKind.DUPLICATE
            and final.duplicate_of_run != run_id
        }
        room = asyncio.Semaphore(LOOKUPS_AT_ONCE)

        async def row(run: str, upload: str) -> UploadRow | None:
            async with room:
                return await self._ports.ledger.upload(run, upload)

        rows = await asyncio.gather(*(row(run, upload) for run, upload in wanted if run and upload))
        return {found.upload_id: found for found in rows if found is not None}
