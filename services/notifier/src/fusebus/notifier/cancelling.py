"""Ends a run that people cancelled: what has no final yet gets one that says so, and nothing more is announced."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime

from fusebus.contracts import display
from fusebus.contracts.messages import CancelRun
from fusebus.ledger import Final, FinalKind, FinalRecorded, RunRow, RunState, UploadRow
from fusebus.notifier.ports import RunLedger

_log = logging.getLogger(__name__)

CANCELLED = "cancelled"
"""The reason of such a final."""
AT_ONCE = 16  # finals that are written side by side


async def cancel(order: CancelRun, ledger: RunLedger, now: datetime) -> RunRow | None:
    """The run, closed, with a final for each of its uploads; one that is complete stays so. None: there is none.

    Safe to repeat. Raises LedgerError.
    """
    run = await ledger.cancel_run(order.run_id, now, by=order.requested_by, reason=order.reason)
    if run is None or run.cancelled_at is None or run.state is RunState.COMPLETE:
        return run
    final = final_of(run, run.cancelled_at)
    places = asyncio.Semaphore(AT_ONCE)

    async def end(upload: UploadRow) -> FinalRecorded:
        async with places:
            return await ledger.record_final(run.run_id, upload.upload_id, final)

    left = [upload for upload in (await ledger.contents(run.run_id)).uploads if upload.final is None]
    recorded = await asyncio.gather(*map(end, left))
    counts = {"images": recorded.count(FinalRecorded.NEW), "by": run.cancelled_by}
    _log.warning("run is cancelled", extra=counts)
    return run


def final_of(run: RunRow, at: datetime) -> Final:
    """What becomes of each upload that was not done yet; the same in every repeat."""
    why = f" ({display.one_line(run.cancel_reason)})" if run.cancel_reason else ""
    explanation = f"The delivery was cancelled{why} before this photo was processed; upload it again to have it done."
    return Final(kind=FinalKind.FAILED, at=at, reason=CANCELLED, explanation=explanation)
