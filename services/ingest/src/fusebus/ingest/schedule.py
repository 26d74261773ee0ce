"""When accepted photos are announced: at once, or by one scheduled message a run and window, which opens it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from fusebus.contracts.messages import ImageAccepted, JobKind, Lane, ReleaseRun
from fusebus.contracts.outcomes import Done, Outcome, Outgoing
from fusebus.contracts.timing import Mode, Timing, parse
from fusebus.ingest import announcement
from fusebus.ingest.coming import Coming
from fusebus.ingest.settings import IngestSettings
from fusebus.ledger import ANY_KIND, Entered, RunRow, SupplierRecord, UploadRow

_log = logging.getLogger(__name__)

OPENS_SOON = timedelta(seconds=2)
"""A window so near counts as open: whoever opens it elsewhere, by a clock that is ahead of ours, may not find this
upload any more."""
SAID_AGAIN = timedelta(minutes=5)
"""What began so shortly before people's word is announced once more: the topic still drops the repeat by its id, and
clocks differ. What began earlier is in a queue or in a worker's hands, and a repeat would be done twice."""
MOST_ARRANGED = 10_000
"""Openings that are known to be arranged for; beyond, the ledger is asked again."""


class OrderBook(Protocol):
    """What scheduling reads and writes of the ledger."""

    async def run(self, run_id: str) -> RunRow | None: ...

    async def uploads(self, run_id: str) -> list[UploadRow]: ...

    async def release_run(self, run_id: str, now: datetime, *, by: str, lane: Lane | None = None) -> RunRow | None: ...

    async def arranges_release(self, run_id: str, at: datetime, upload_id: str) -> bool: ...


def timing_of(record: SupplierRecord | None, kind: JobKind, settings: IngestSettings) -> Timing:
    """The supplier's own for this job kind, else for any, else ingest's for this job kind, else for any."""
    own = record.when if record else {}
    said = own.get(kind.value) or own.get(ANY_KIND) or settings.when_of(kind)
    return parse(said, settings.time_zone)


def terms_of(timing: Timing, now: datetime) -> tuple[str, datetime | None]:
    """What an upload's row says of when it is announced: the timing's text and its moment; nothing for at once."""
    begins = timing.begins_at(now)
    if timing.mode is Mode.AT_ONCE or begins == now:
        return "", None
    return str(timing), begins


@dataclass(kw_only=True)
class Schedule:
    """Says what an accepted photo's announcement waits for, and announces what has waited long enough."""

    ledger: OrderBook
    clock: Callable[[], datetime]
    settings: IngestSettings
    coming: Coming
    _arranged: set[tuple[str, datetime]] = field(default_factory=set)

    async def announce(self, entered: Entered) -> list[Outgoing]:
        """The announcement of an accepted upload if it waits for nothing; else what opens its window, if any.

        Raises LedgerError.
        """
        upload, run = entered.upload, entered.run
        if run is not None and run.cancelled_at is not None:
            return []  # the notifier gives it its final
        if not upload.waits(run, self.clock() + OPENS_SOON):
            return [Outgoing(message=accepted(upload, run, self.settings))]
        self.coming.changed(upload.run_id)
        if upload.release_at is None:
            return []
        return await self._arranged_for(upload, upload.release_at)

    async def _arranged_for(self, upload: UploadRow, at: datetime) -> list[Outgoing]:
        """The scheduled message, from the first upload of the run that waits for this window and from no other."""
        key = (upload.run_id, at)
        if key in self._arranged:
            return []
        if not await self.ledger.arranges_release(upload.run_id, at, upload.upload_id):
            if len(self._arranged) >= MOST_ARRANGED:
                self._arranged.clear()
            self._arranged.add(key)
            return []
        return [
            Outgoing(message=ReleaseRun(run_id=upload.run_id, supplier=upload.supplier, opens_at=at), enqueue_at=at)
        ]

    async def release(self, order: ReleaseRun) -> Outcome:
        """Announce what waits for this window, or, at people's word, all that waited when they gave it.

        A repeat says the same again.

        Raises LedgerError.
        """
        asked = bool(order.requested_by)
        run = (
            await self.ledger.release_run(order.run_id, self.clock(), by=order.requested_by, lane=order.lane)
            if asked
            else await self.ledger.run(order.run_id)
        )
        if run is None or run.cancelled_at is not None or (not asked and _went_before(run, order.opens_at)):
            _log.info("nothing to release", extra={"run": order.run_id, "known": run is not None})
            return Done()
        uploads = [upload for upload in await self.ledger.uploads(order.run_id) if _is_due(upload)]
        if asked:
            word_at = min(order.opens_at, self.clock()) - SAID_AGAIN
            waiting = [upload for upload in uploads if upload.waits(run, word_at)]
            self.coming.changed(order.run_id)
        else:
            waiting = [upload for upload in uploads if upload.release_at == order.opens_at]
        _log.info("released", extra={"run": order.run_id, "images": len(waiting), "asked_by": order.requested_by})
        return Done(tuple(Outgoing(message=accepted(upload, run, self.settings)) for upload in waiting))


def accepted(upload: UploadRow, run: RunRow | None, settings: IngestSettings) -> ImageAccepted:
    """The announcement of an upload, on its supplier's terms and people's word; only from the rows."""
    assert upload.image is not None, "only images are announced"
    lane = (run.lane if run else None) or upload.lane or settings.lane
    allowed = timedelta(seconds=upload.deadline_seconds or settings.deadline_seconds)
    message = announcement.accepted(upload, upload.image, upload.job_kind or settings.job_kind, lane, allowed)
    begins = upload.begins_at(run)
    # What waited for its window has had no time yet.
    return message if begins is None else msgspec.structs.replace(message, deadline=begins + allowed)


def _is_due(upload: UploadRow) -> bool:
    """Whether it has a window or waits for people, no final, and no earlier upload has brought its photo."""
    return bool(upload.when) and upload.image is not None and upload.final is None and not upload.waits_for


def _went_before(run: RunRow, opens_at: datetime) -> bool:
    """Whether people had the run's photos announced before this window opened."""
    return run.released_at is not None and run.released_at < opens_at
