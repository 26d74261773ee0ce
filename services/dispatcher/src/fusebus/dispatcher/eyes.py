"""Reads everything a look needs, side by side; what can't be read leaves a gap and never stops the rest."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial

import msgspec

from fusebus.contracts.messages import JobKind
from fusebus.contracts.topology import image_subscriptions
from fusebus.dispatcher.beside import Beside
from fusebus.dispatcher.errors import FleetError
from fusebus.dispatcher.facts import Facts, OpenRun
from fusebus.dispatcher.ports import Books, Depths, Nodes
from fusebus.dispatcher.quota import Quota
from fusebus.dispatcher.seen import PoolSeen
from fusebus.dispatcher.settings import DispatcherSettings
from fusebus.ledger import Controls, LedgerError, RunRow, RunState, UploadRow, Window
from fusebus.planning import LATE_WINDOW

TOPIC = "images"
MOST_RUNS = 1000  # that are looked into in one reading, beside those known to be complete
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
        self._quotas = {account.name: Quota() for account in settings.all_accounts}
        self._quota_until = dict.fromkeys(self._quotas, 0.0)
        self._pools: Beside[PoolSeen] = Beside()
        self._rest: Beside[None] = Beside()
        self._windows: tuple[Window, ...] | None = None
        self._runs: tuple[OpenRun, ...] | None = None
        self._disabled: frozenset[str] = frozenset()  # subscriptions
        self._complete: set[str] = set()  # runs
        self._last: dict[str, tuple[float, PoolSeen]] = {}
        self._work_until = 0.0

    async def look(self, now: datetime) -> Facts:
        """One moment as far as it can be seen; raises nothing of its own."""
        names = [pool.name for pool in self._settings.all_pools]
        rest = [
            self._patiently("pins and pauses", lambda: self._read_controls(now)),
            self._patiently("windows and open runs", lambda: self._read_work(now)),
            *(self._patiently(f"the quota of {name}", partial(self._read_quota, name)) for name in self._quotas),
        ]
        pools, depths, _ = await asyncio.gather(
            asyncio.gather(*(self._pool(name) for name in names)),
            asyncio.gather(*map(self._depth, self._kinds)),
            asyncio.gather(*rest),
        )
        found = dict(zip(names, pools, strict=True))
        unread = self._unread(found)
        return Facts(
            now=now,
            pools=self._remembered(found),
            unread={name: seen for name, (_, seen) in unread.items()},
            unread_seconds={name: self._clock() - at for name, (at, _) in unread.items()},
            problems={name: str(error) for name, error in found.items() if isinstance(error, FleetError)},
            depths=dict(zip(self._kinds, depths, strict=True)),
            disabled=frozenset(kind for kind in self._kinds if self._disabled.issuperset(image_subscriptions(kind))),
            quotas=dict(self._quotas),
            controls=self._controls.at(now) if self._controls is not None else None,
            windows=self._windows,
            open_runs=self._runs,
        )

    def _remembered(self, found: Mapping[str, PoolSeen | FleetError]) -> dict[str, PoolSeen]:
        """Those that were read, kept for when they can't be."""
        pools = {name: seen for name, seen in found.items() if isinstance(seen, PoolSeen)}
        self._last |= {name: (self._clock(), seen) for name, seen in pools.items()}
        return pools

    def _unread(self, found: Mapping[str, PoolSeen | FleetError]) -> dict[str, tuple[float, PoolSeen]]:
        """When the others were seen last and how, as long as it is believed: their nodes are not bought again."""
        since = self._clock() - self._settings.believed_seconds
        missing = {name for name, seen in found.items() if isinstance(seen, FleetError)}
        return {name: last for name, last in self._last.items() if name in missing and last[0] >= since}

    async def close(self) -> None:
        """End what is still being read."""
        await self._pools.close()
        await self._rest.close()

    async def _depth(self, kind: JobKind) -> int | None:
        """Of all its lanes; without those from which workers get nothing, unless they get nothing at all."""
        names = image_subscriptions(kind)
        receiving = [name for name in names if name not in self._disabled] or names
        found = await asyncio.gather(*(self._bus.depth(TOPIC, name) for name in receiving))
        known = [depth.active for depth in found if depth is not None]
        return sum(known) if len(known) == len(found) else None

    async def _pool(self, name: str) -> PoolSeen | FleetError:
        """A reading that takes long goes on beside the looks: the one that finds it done takes what it brought."""
        patience = self._settings.patience_seconds
        try:
            return await self._pools.within(name, lambda: self._fleet.read(name), patience)
        except FleetError as error:
            log.warning("pool %s can't be read: %s", name, error)
            return error
        except TimeoutError:
            log.warning("pool %s is not read yet, the others go on without it", name)
            return FleetError(f"Batch has not answered within {patience:g} s; still waiting")
        except Exception as error:  # whatever it is, the other pools go on costing and working
            log.exception("pool %s can't be read for a reason nobody foresaw", name)
            return FleetError(f"can't be read: {type(error).__name__}")

    async def _patiently(self, what: str, read: Callable[[], Awaitable[None]]) -> None:
        """What is known from before counts until it is there."""
        try:
            await self._rest.within(what, read, self._settings.patience_seconds)
        except TimeoutError:
            log.warning("%s are not read yet, the last ones known count", what)

    async def _read_controls(self, now: datetime) -> None:
        """People's orders; the last known ones where they can't be read, None before the first time."""
        try:
            self._controls = await self._ledger.controls(now)
        except LedgerError as error:
            log.warning("pins and pauses can't be read, the last ones known count: %s", error)
        except Exception:  # such as a row that can't be decoded: it must not stop every look
            log.exception("pins and pauses can't be understood, the last ones known count")

    async def _read_quota(self, account: str) -> None:
        if self._clock() < self._quota_until[account]:
            return
        try:
            self._quotas[account] = await self._fleet.quota(account)
            self._quota_until[account] = self._clock() + self._settings.quota_seconds
        except FleetError as error:
            log.warning("the quota of %s can't be read, the last one known counts: %s", account, error)

    async def _read_work(self, now: datetime) -> None:
        """What changes slowly: announced windows, deliveries that are not over, disabled subscriptions."""
        started = self._clock()
        if started < self._work_until:
            return
        try:
            ahead = timedelta(seconds=self._settings.window_ahead_seconds)
            self._windows = tuple(await self._ledger.windows(now - timedelta(seconds=LATE_WINDOW), now + ahead))
            self._runs = await self._open_runs(now)
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
        names = [name for kind in self._kinds for name in image_subscriptions(kind)]
        states = await asyncio.gather(*(self._bus.receiving(TOPIC, name) for name in names))
        self._disabled = frozenset(
            name
            for name, state in zip(names, states, strict=True)
            if state is False or (state is None and name in self._disabled)
        )

    async def _open_runs(self, now: datetime) -> tuple[OpenRun, ...]:
        """Of every delivery that is not over, however many came after it; a complete one stays complete."""
        newest = await self._ledger.runs(limit=MOST_RUNS, skip=self._complete)
        self._complete |= {run.run_id for run in newest if run.state is RunState.COMPLETE}
        runs = [run for run in newest if run.state is not RunState.COMPLETE]
        found = await asyncio.gather(*(self._ledger.uploads(run.run_id) for run in runs))
        uploads = [begun(run, rows, now) for run, rows in zip(runs, found, strict=True)]
        kind, allowed = self._settings.default_job_kind, self._settings.deadline_seconds
        return tuple(
            part
            for run, rows in zip(runs, uploads, strict=True)
            for part in open_parts(run.run_id, rows, kind, allowed)
        )


def begun(run: RunRow, uploads: Sequence[UploadRow], now: datetime) -> list[UploadRow]:
    """Those that a queue may hold, as if they had arrived when they were released.

    What waits for a window, or for people's word, is in no queue yet; `Facts.windows` says when it will be.
    """
    times = [(row, row.begins_at(run)) for row in uploads if not row.waits(run, now)]
    return [msgspec.structs.replace(row, entered_at=begins or row.entered_at) for row, begins in times]


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
        left = [row.entered_at for row in accepted if row.final is None and not row.waits_for]
        if left:
            oldest, deadline = min(left), min(left) + timedelta(seconds=allowed)
            total = len(accepted)
            found.append(
                OpenRun(
                    run_id=run_id, job_kind=kind, images=len(left), total=total, oldest_at=oldest, deadline=deadline
                )
            )
    return found
