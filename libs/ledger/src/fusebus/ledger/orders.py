"""People's word on a run: begin now, in this lane, or never; and who arranged for a window's opening."""

from __future__ import annotations

from datetime import datetime

import msgspec

from fusebus.contracts.messages import Lane
from fusebus.ledger.rows import RunRow, RunState
from fusebus.ledger.runs import RunLedger, header_row, microseconds
from fusebus.ledger.tables import Row

RELEASE = "release:"
MAX_REASON = 500  # characters of free text that are kept


class OrderLedger(RunLedger):
    """Orders stand in the run's header: whoever enters an upload there meets them in the same transaction."""

    async def release_run(self, run_id: str, now: datetime, *, by: str, lane: Lane | None = None) -> RunRow | None:
        """Let the run's photos wait for nothing any more, and go in this lane; the first release's time stays.

        Its row afterwards: unchanged where it is complete or cancelled; None where there is no such run.
        """
        async for _ in self._tables.tries(f"releasing {run_id}"):
            run = await self.run(run_id)
            if run is None or run.state is RunState.COMPLETE or run.cancelled_at is not None:
                return run
            released = msgspec.structs.replace(
                run, released_at=run.released_at or now, released_by=by, lane=lane or run.lane
            )
            if version := await self._tables.replace("runs", header_row(released)):
                return msgspec.structs.replace(released, version=version)
        raise AssertionError("tries ends with an error")

    async def cancel_run(self, run_id: str, now: datetime, *, by: str, reason: str = "") -> RunRow | None:
        """Close the run for good, processing nothing more of it; the first word stays. As `release_run`."""
        async for _ in self._tables.tries(f"cancelling {run_id}"):
            run = await self.run(run_id)
            if run is None or run.state is RunState.COMPLETE or run.cancelled_at is not None:
                return run
            cancelled = msgspec.structs.replace(
                run,
                state=RunState.CLOSED,
                closed_at=run.closed_at or now,
                close_requested_by=run.close_requested_by or by,
                cancelled_at=now,
                cancelled_by=by,
                cancel_reason=reason[:MAX_REASON],
            )
            if version := await self._tables.replace("runs", header_row(cancelled)):
                return msgspec.structs.replace(cancelled, version=version)
        raise AssertionError("tries ends with an error")

    async def arranges_release(self, run_id: str, at: datetime, upload_id: str) -> bool:
        """Whether it is this upload's business that the run's photos are announced then: the first one's, always."""
        name = f"{RELEASE}{microseconds(at):018d}"
        if await self._tables.insert("runs", Row(run_id, name, {"upload_id": upload_id})) is not None:
            return True
        there = await self._tables.get("runs", run_id, name)
        return there is not None and there.columns["upload_id"] == upload_id
