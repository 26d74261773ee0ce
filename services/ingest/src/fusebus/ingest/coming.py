"""Tells the dispatcher what is coming: how many images of each run every window will release, kept in the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

from fusebus.contracts.messages import JobKind
from fusebus.host import until_stopped
from fusebus.ingest.settings import IngestSettings
from fusebus.ledger import LedgerError, RunRow, RunState, UploadRow, Window

LAST_WORD_SECONDS = 5.0
"""For what changed last, once told to stop."""
WINDOWS_AHEAD = timedelta(days=2)
"""Further ahead opens none: each timing has a window a day, and the change from summer time makes one of 25 hours."""
RUNS_AT_ONCE = 200
"""That a start reads together, beside those that it has read already."""

_log = logging.getLogger(__name__)


class Windows(Protocol):
    """What is read and written of the ledger."""

    async def run(self, run_id: str) -> RunRow | None: ...

    async def runs(
        self, supplier: str | None = None, limit: int = 100, skip: Collection[str] = frozenset()
    ) -> list[RunRow]: ...

    async def uploads(self, run_id: str) -> list[UploadRow]: ...

    async def announce_window(self, window: Window) -> None: ...

    async def windows(self, after: datetime, before: datetime) -> list[Window]: ...


class _Opening(NamedTuple):
    job_kind: JobKind
    at: datetime


def windows_of(run: RunRow, uploads: Iterable[UploadRow], settings: IngestSettings) -> list[Window]:
    """Every window that the run's uploads have to do with, and how many images it releases; 0: none any more.

    One that has opened is told like one to come: nodes that were warmed for it are kept some minutes.
    """
    counts: defaultdict[_Opening, int] = defaultdict(int)
    allowed: dict[_Opening, float] = {}
    for upload in uploads:
        if upload.release_at is None or upload.image is None:
            continue
        opening = _Opening(upload.job_kind or settings.job_kind, upload.release_at)
        seconds = upload.deadline_seconds or settings.deadline_seconds
        allowed[opening] = min(seconds, allowed.get(opening, seconds))
        is_due = upload.final is None and not upload.waits_for and run.cancelled_at is None
        counts[opening] += is_due and upload.begins_at(run) == upload.release_at
    return [
        Window(
            job_kind=opening.job_kind.value,
            opens_at=opening.at,
            deadline=opening.at + timedelta(seconds=seconds),
            images=counts[opening],
            name=run.run_id,
        )
        for opening, seconds in allowed.items()
    ]


@dataclass(kw_only=True)
class Coming:
    """One process's view: runs whose windows changed are counted anew, at most so often.

    A start counts all unfinished runs. Those with a window ahead are counted again and again, for what others change:
    people cancel a run, a photo gets a final before its window.
    """

    ledger: Windows
    settings: IngestSettings
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _changed: set[str] = field(default_factory=set)

    def changed(self, run_id: str) -> None:
        """What the run's windows release may be more or less than before."""
        self._changed.add(run_id)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`, which breaks off what storage does not answer; then what changed last is told too."""
        await until_stopped(self._rounds(), stop)
        with contextlib.suppress(TimeoutError):  # the next start counts all runs
            async with asyncio.timeout(LAST_WORD_SECONDS):
                await self.tell()

    async def _rounds(self) -> None:
        is_recalled, recount_at = False, 0.0
        while True:
            is_recalled = is_recalled or await self._recall()
            if time.monotonic() >= recount_at:
                recount_at = time.monotonic() + self.settings.coming_recount_seconds
                await self.recount()
            await self.tell()
            await asyncio.sleep(self.settings.coming_seconds)

    async def recount(self) -> None:
        """Have the runs counted anew that are told to release something in a window ahead."""
        now = self.clock()
        try:
            windows = await self.ledger.windows(now, now + WINDOWS_AHEAD)
        except LedgerError as error:
            _log.warning("runs with a window ahead are not counted again yet: %s", error)
        except Exception:  # a row that can't be decoded must not end the rounds, and ingest with them
            _log.exception("windows ahead can't be read")
        else:
            self._changed.update(window.name for window in windows if window.images)

    async def tell(self) -> None:
        """Count the runs that changed and announce their windows. What fails is tried again the next time."""
        changed, self._changed = self._changed, set()
        for run_id in sorted(changed):
            try:
                await self._tell(run_id)
            except asyncio.CancelledError:
                self._changed |= changed
                raise
            except LedgerError as error:
                _log.warning("the windows of %s are not told yet: %s", run_id, error)
                self._changed.add(run_id)
            except Exception:  # one run's rows must not keep the others' windows from the dispatcher
                _log.exception("the windows of %s can't be told", run_id)

    async def _tell(self, run_id: str) -> None:
        run = await self.ledger.run(run_id)
        if run is None:
            return
        for window in windows_of(run, await self.ledger.uploads(run_id), self.settings):
            await self.ledger.announce_window(window)

    async def _recall(self) -> bool:
        """Have every unfinished run counted: whatever a process before this one had not told. False: try again."""
        seen: set[str] = set()
        try:
            while runs := await self.ledger.runs(limit=RUNS_AT_ONCE, skip=seen):
                seen.update(run.run_id for run in runs)
                self._changed.update(run.run_id for run in runs if run.state is not RunState.COMPLETE)
        except LedgerError as error:
            _log.warning("earlier runs' windows are not told yet: %s", error)
            return False
        return True
