"""Reads everything a look needs, side by side; what can't be read leaves a gap and never stops the rest."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from fusebus.contracts.messages import JobKind
from fusebus.dispatcher.errors import FleetError
from fusebus.dispatcher.facts import Facts, OpenRun
from fusebus.dispatcher.ports import Books, Depths, Nodes
from fusebus.dispatcher.quota import Quota
from fusebus.dispatcher.seen import PoolSeen
from fusebus.dispatcher.settings import DispatcherSettings
from fusebus.ledger import Controls, LedgerError, RunState, UploadRow, Window
from fusebus.planning import LATE_WINDOW

TOPIC = "images"
LEAST_REST = 20.0  # times as long as reading the open runs took, until they are read again: scans grow with deliveries

log = logging.getLogger(__name__)


class Eyes:
    """Keeps what is believed for a while: quota, windows, open runs, and the last known pins and pauses."""

    def __init__(
        self,
        settings: DispatcherSettings,
        bus: Depths,
        ledger: Books,
        fleet: Nodes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._bus, self._ledger, self._fleet, self._clock = bus, ledger, fleet, clock
        self._kinds = tuple(dict.fromkeys(pool.job_kind for pool in settings.all_pools))
        self._controls: Controls | None = None
        self._quota = Quota()
        self._quota_until = 0.0
        self._windows: tuple[Window, ...] | None = None
        self._runs: tuple[OpenRun, ...] | None = None
        self._disabled: frozenset[JobKind] = frozenset()
        self._work_until = 0.0

    async def look(self, now: datetime) -> Facts:
        """One moment as far as it can be seen; raises nothing of its own."""
        names = [pool.name for pool in self._settings.all_pools]
        pools, depths, controls, _, _ = await asyncio.gather(
            asyncio.gather(*(self._pool(name) for name in names)),
            asyncio.gather(*(self._bus.depth(TOPIC, kind.value) for kind in self._kinds)),
            self._read_controls(now),
            self._read_quota(),
            self._read_work(now),
        )
        found = dict(zip(names, pools, strict=True))
        return Facts(
            now=now,
            pools={name: seen for name, seen in found.items() if isinstance(seen, PoolSeen)},
            problems={name: str(error) for name, error in found.items() if isinstance(error, FleetError)},
            depths={kind: depth.active if depth else None for kind, depth in zip(self._kinds, depths, strict=True)},
            disabled=self._disabled,
            quota=self._quota,
            controls=controls,
            windows=self._windows,
            open_runs=self._runs,
        )

    async def _pool(self, name: str) -> PoolSeen | FleetError:
        try:
            return await self._fleet.read(name)
        except FleetError as error:
            log.warning("pool %s can't be read: %s", name, error)
            return error

    async def _read_controls(self, now: datetime) -> Controls | None:
        """People's orders; the last known ones where they can't be read, None before the first time."""
        try:
            self._controls = await self._ledger.controls(now)
        except LedgerError as error:
            log.warning("pins and pauses can't be read, the last ones known count: %s", error)
            self._controls = self._controls.at(now) if self._controls is not None else None
        except Exception:  # such as a row that can't be decoded: it must not stop every look
            log.exception("pins and pauses can't be understood, the last ones known count")
            self._controls = self._controls.at(now) if self._controls is not None else None
        return self._controls

    async def _read_quota(self) -> None:
        if self._clock() < self._quota_until:
            return
        try:
            self._quota = await self._fleet.quota()
            self._quota_until = self._clock() + self._settings.quota_seconds
        except FleetError as error:
            log.warning("the quota can't be read, the last one known counts: %s", error)

    async def _read_work(self, now: datetime) -> None:
        """What changes slowly: announced windows, deliveries that are not over, disabled subscriptions."""
        started = self._clock()
        if started < self._work_until:
            return
        try:
            ahead = timedelta(seconds=self._settings.window_ahead_seconds)
            self._windows = tuple(await self._ledger.windows(now - timedelta(seconds=LATE_WINDOW), now + ahead))
            self._runs = await self._open_runs()
        except LedgerError as error:
            log.warning("windows and open runs can't be read: %s", error)
            self._windows = self._runs = None
        except Exception:  # such as a row that can't be decoded: it must not stop every look
            log.exception("windows and open runs can't be understood")
            self._windows = self._runs = None
        await self._read_disabled()
        rest = max(self._settings.ledger_seconds, LEAST_REST * (self._clock() - started))
        self._work_until = self._clock() + rest

    async def _read_disabled(self) -> None:
        """A state that can't be read stays as it was."""
        states = await asyncio.gather(*(self._bus.receiving(TOPIC, kind.value) for kind in self._kinds))
        self._disabled = frozenset(
            kind
            for kind, state in zip(self._kinds, states, strict=True)
            if state is False or (state is None and kind in self._disabled)
        )

    async def _open_runs(self) -> tuple[OpenRun, ...]:
        runs = [run for run in await self._ledger.runs() if run.state is not RunState.COMPLETE]
        uploads = await asyncio.gather(*(self._ledger.uploads(run.run_id) for run in runs))
        kind, allowed = self._settings.default_job_kind, self._settings.deadline_seconds
        return tuple(
            part
            for run, rows in zip(runs, uploads, strict=True)
            for part in open_parts(run.run_id, rows, kind, allowed)
        )


def open_parts(
    run_id: str, uploads: Sequence[UploadRow], default_kind: JobKind, default_seconds: float
) -> list[OpenRun]:
    """The delivery as far as workers have to do with it, by job kind and time allowed; the defaults count where a
    supplier has no terms of its own."""
    parts: dict[tuple[JobKind, float], list[UploadRow]] = {}
    for row in uploads:
        if row.image is not None:
            terms = (row.job_kind or default_kind, row.deadline_seconds or default_seconds)
            parts.setdefault(terms, []).append(row)
    found = []
    for (kind, allowed), accepted in parts.items():
        left = [row.entered_at for row in accepted if row.final is None]
        if left:
            oldest, deadline = min(left), min(left) + timedelta(seconds=allowed)
            total = len(accepted)
            found.append(
                OpenRun(
                    run_id=run_id, job_kind=kind, images=len(left), total=total, oldest_at=oldest, deadline=deadline
                )
            )
    return found
