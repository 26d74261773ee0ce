"""Says what was decided: into the ledger, onto the bus, and as each pool's status; what fails is said again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

import msgspec

from fusebus.contracts.messages import FleetChanged, WorkLate
from fusebus.contracts.outcomes import Outgoing
from fusebus.dispatcher.ports import Announcer, Books
from fusebus.ledger import Decision, LedgerError, PoolStatus

STATUS_SECONDS = 60.0  # a status that says nothing new is written this often: its time shows that somebody looks
LONGEST_REASON = 4000  # characters

log = logging.getLogger(__name__)


class Voice:
    """Remembers each pool's last decision, and what could not be said yet."""

    def __init__(self, ledger: Books, publisher: Announcer, suffix: str = "") -> None:
        """`suffix` goes onto the pools' names in the ledger; with one, nothing is published."""
        self._ledger, self._publisher, self._suffix = ledger, publisher, suffix
        self._last: dict[str, Decision] = {}
        self._unsaid: dict[str, Decision] = {}
        self._status: dict[str, PoolStatus] = {}

    async def remember(self, pools: Sequence[str]) -> None:
        """Read each pool's last decision, so that a restart does not repeat it. Raises LedgerError."""
        self._unsaid.clear()  # of an earlier term of ours: somebody else has decided since
        for pool in pools:
            found = await self._ledger.decisions(pool + self._suffix, 1)
            self._last.pop(pool, None)
            if found:
                self._last[pool] = found[0]

    def note(self, pool: str, decision: Decision) -> bool:
        """Keep a decision that differs from the last one until it has been said; whether it differs."""
        before = self._last.get(pool)
        calm = "shadow" if self._suffix else "acting"  # an empty pool of which nobody orders anything is no news
        had = (before.nodes, before.dedicated, before.workers, before.mode) if before else (0, 0, 0, calm)
        unchanged = (decision.nodes, decision.dedicated, decision.workers, decision.mode) == had
        # That work will be late is told when it is first seen; that it will not, with the next change.
        alarming = decision.late and not (before is not None and before.late)
        if unchanged and not alarming:
            return False
        because = decision.because[:LONGEST_REASON]
        named = msgspec.structs.replace(decision, pool=pool + self._suffix, because=because)
        self._last[pool] = self._unsaid[pool] = named
        return True

    async def say(self) -> None:
        """Write, then publish; both may be repeated without effect. Raises LedgerError, BusError."""
        for pool, decision in list(self._unsaid.items()):
            await self._ledger.write_decision(decision)
            if not self._suffix:
                changed = FleetChanged(
                    pool=decision.pool,
                    nodes=decision.nodes,
                    workers=decision.workers,
                    because=decision.because,
                    decided_at=decision.decided_at,
                )
                await self._publisher.publish([Outgoing(message=changed)])
            self._unsaid.pop(pool, None)

    async def alert(self, message: WorkLate) -> None:
        """Publish it; a repeat is recognised. Raises BusError."""
        await self._publisher.publish([Outgoing(message=message)])

    async def regret(self, pool: str, problem: str, now: datetime) -> None:
        """A pool that can't be read keeps its last known status, with what is wrong."""
        before = self._status.get(pool + self._suffix)
        if before is not None:
            shown = msgspec.structs.replace(before, pool=pool, looked_at=now, problem=problem)
            await self.show([shown])

    async def show(self, statuses: Sequence[PoolStatus]) -> None:
        """Write the statuses that say something new, or are due."""
        for status in statuses:
            named = msgspec.structs.replace(status, pool=status.pool + self._suffix)
            before = self._status.get(named.pool)
            if before is not None and not _worth_writing(before, named):
                continue
            try:
                await self._ledger.write_pool_status(named)
                self._status[named.pool] = named
            except LedgerError as error:
                log.warning("the status of pool %s could not be written: %s", status.pool, error)


def _worth_writing(before: PoolStatus, after: PoolStatus) -> bool:
    """A depth and the sentence with it change all the time: they come with the next minute."""
    if (after.looked_at - before.looked_at).total_seconds() >= STATUS_SECONDS:
        return True

    def gist(status: PoolStatus) -> PoolStatus:
        unchanging: datetime = before.looked_at
        return msgspec.structs.replace(status, looked_at=unchanging, depth=None, because="")

    return gist(before) != gist(after)
