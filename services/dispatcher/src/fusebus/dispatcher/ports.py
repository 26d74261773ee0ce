"""What the control loop needs of the world; the adapters and the libraries fit these."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

from fusebus.bus import Depth
from fusebus.contracts.outcomes import Outgoing
from fusebus.dispatcher.accounts import AccountBooks
from fusebus.dispatcher.keeping import NoteBooks
from fusebus.dispatcher.quota import Quota
from fusebus.dispatcher.seen import PoolSeen
from fusebus.dispatcher.steps import Step
from fusebus.ledger import Controls, Decision, PoolStatus, RunRow, UploadRow, Window


class Depths(Protocol):
    """The bus, as far as it is needed here."""

    async def depth(self, topic: str, subscription: str) -> Depth | None:
        """How much waits; None where it could not be read."""

    async def receiving(self, topic: str, subscription: str) -> bool | None:
        """Whether consumers get anything; None where it could not be read."""


class Announcer(Protocol):
    """The publisher."""

    async def publish(self, outgoing: Sequence[Outgoing]) -> None:
        """Send all, or raise BusError."""


class Books(AccountBooks, NoteBooks, Protocol):
    """The ledger, as far as it is needed here; raises LedgerError."""

    async def write_decision(self, decision: Decision) -> None:
        """Add it; a repeat adds nothing."""

    async def decisions(self, pool: str, limit: int = 20, at: datetime | None = None) -> list[Decision]:
        """The newest first."""

    async def write_pool_status(self, status: PoolStatus) -> None:
        """In place of the earlier one."""

    async def controls(self, now: datetime) -> Controls:
        """Pins and pauses in force."""

    async def windows(self, after: datetime, before: datetime) -> list[Window]:
        """Announced work."""

    async def runs(
        self, supplier: str | None = None, limit: int = 100, skip: Collection[str] = frozenset()
    ) -> list[RunRow]:
        """The newest runs but those to skip."""

    async def uploads(self, run_id: str) -> list[UploadRow]:
        """All of a run."""


class Nodes(Protocol):
    """The Batch account; raises FleetError."""

    async def ensure(self) -> None:
        """Make what is missing."""

    async def read(self, name: str) -> PoolSeen:
        """One pool as it is."""

    async def claim(self, seen: PoolSeen, term: int) -> None:
        """Leave our term on the pool."""

    async def carry_out(self, seen: PoolSeen, step: Step, author: str) -> None:
        """Do one step on what was seen."""

    async def tidy(self, seen: PoolSeen, now: datetime) -> None:
        """Delete old worker tasks."""

    async def quota(self, account: str) -> Quota:
        """What one Batch account may have."""

    async def node_log(self, name: str, node_id: str) -> str:
        """The end of a node's start task log."""

    async def worker_log(self, name: str, task_id: str) -> str:
        """The end of a worker's log."""


class Leader(Protocol):
    """Whether this process is the one that acts."""

    name: str

    def term(self) -> int | None:
        """The term in which we lead; None where we don't."""

    def step_down(self, met: int) -> None:
        """A later term was met: the next one of ours must be later still."""
