"""Queue, pools, books, publisher and lease of a dispatcher in memory: plain ports, each able to fail."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from fusebus.blobs import BlobSettings
from fusebus.bus import BusSettings, Depth, PublishFailed
from fusebus.contracts.messages import BudgetCrossed, FleetChanged, JobKind, WorkLate
from fusebus.contracts.outcomes import Outgoing
from fusebus.costs.settings import CostSettings
from fusebus.dispatcher.errors import FleetError, PoolChanged, Refused
from fusebus.dispatcher.loop import Dispatcher
from fusebus.dispatcher.quota import Quota
from fusebus.dispatcher.seen import NodeSeen, PoolSeen, WorkerSeen, WorkerState
from fusebus.dispatcher.settings import DispatcherSettings, PoolEntry
from fusebus.dispatcher.steps import AddWorkers, Resize, Step
from fusebus.ledger import (
    Controls,
    CostSample,
    Decision,
    LedgerSettings,
    LedgerUnavailable,
    PoolStatus,
    Remembered,
    RunRow,
    UploadRow,
    Window,
)

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def workers(running: int = 0, waiting: int = 0, failed: int = 0) -> tuple[WorkerSeen, ...]:
    states = [WorkerState.RUNNING] * running + [WorkerState.WAITING] * waiting + [WorkerState.ENDED] * failed
    return tuple(
        WorkerSeen(id=f"worker-{number}", state=state, since=NOW, failed=state is WorkerState.ENDED, node=f"n{number}")
        for number, state in enumerate(states, start=1)
    )


def nodes(*states: str) -> tuple[NodeSeen, ...]:
    return tuple(NodeSeen(id=f"n{number}", state=state) for number, state in enumerate(states, start=1))


def empty(name: str = "gpu", term: int = 1) -> PoolSeen:
    return PoolSeen(name=name, steady=True, term=term)


@dataclass
class World:
    """Queue, pools, books, publisher and lease in memory, each able to fail."""

    name: str = "tester"
    now: datetime = NOW
    active: int | None = 10
    receives: bool | None = True
    pools: dict[str, PoolSeen] = field(default_factory=lambda: {"gpu": empty()})
    broken: set[str] = field(default_factory=set)
    allowed: Quota | None = None
    surprises: int = 0
    """So many writings of a decision end in an error nobody foresaw."""
    steps: list[Step] = field(default_factory=list)
    claims: list[tuple[str, int]] = field(default_factory=list)
    written: list[Decision] = field(default_factory=list)
    samples: list[CostSample] = field(default_factory=list)
    statuses: dict[str, PoolStatus] = field(default_factory=dict)
    told: list[FleetChanged] = field(default_factory=list)
    alerts: list[WorkLate] = field(default_factory=list)
    crossed: list[BudgetCrossed] = field(default_factory=list)
    marks: set[str] = field(default_factory=set)
    """Of budget alerts that were told."""
    notes: dict[str, Remembered] = field(default_factory=dict)
    ends_by_reading: bool = False
    """The lease is lost while the pools are read."""
    slow: dict[str, asyncio.Event] = field(default_factory=dict)
    """What takes until its event is set: `read POOL`, `step POOL`, `controls`, `costs`, `notes`."""
    orders: Controls = field(default_factory=Controls)
    deliveries: list[RunRow] = field(default_factory=list)
    """The newest first."""
    looked_into: list[str] = field(default_factory=list)
    """Deliveries whose uploads were read."""
    announced: list[Window] = field(default_factory=list)
    leads: int | None = 1
    met: int = 0
    """The later term for which leadership was given up."""
    leads_after_steps: int | None = None
    """Steps after which the lease is lost."""

    async def depth(self, topic: str, subscription: str) -> Depth | None:
        if self.active is None:
            return None
        other_lane = "-" in subscription
        return Depth(active=0 if other_lane else self.active, dead_letter=0, scheduled=0)

    async def receiving(self, topic: str, subscription: str) -> bool | None:
        return self.receives

    async def publish(self, outgoing: Sequence[Outgoing]) -> None:
        self._fail("bus", PublishFailed("fleet"))
        self.told += [one.message for one in outgoing if isinstance(one.message, FleetChanged)]
        self.crossed += [one.message for one in outgoing if isinstance(one.message, BudgetCrossed)]
        self.alerts += [one.message for one in outgoing if isinstance(one.message, WorkLate)]

    async def remember(self, notes: Remembered) -> int:
        self._fail("ledger", LedgerUnavailable("pools"))
        await self._wait("notes")
        before = self.notes.get(notes.subject)
        if before is not None and before.term > notes.term:
            return before.term
        self.notes[notes.subject] = notes
        return notes.term

    async def remembered(self, subject: str) -> Remembered | None:
        self._fail("ledger", LedgerUnavailable("pools"))
        return self.notes.get(subject)

    async def write_decision(self, decision: Decision) -> None:
        self._fail("ledger", LedgerUnavailable("decisions"))
        if self.surprises:
            self.surprises -= 1
            raise ZeroDivisionError("float division by zero")
        self.written.append(decision)

    async def decisions(self, pool: str, limit: int = 20, at: datetime | None = None) -> list[Decision]:
        return [found for found in self.written[::-1] if found.pool == pool][:limit]

    async def add_cost_sample(self, sample: CostSample) -> None:
        self._fail("ledger", LedgerUnavailable("costs"))
        await self._wait("costs")
        self.samples.append(sample)

    async def cost_samples(self, month: str) -> AsyncIterator[CostSample]:
        for sample in self.samples:
            if f"{sample.started_at:%Y-%m}" == month:
                yield sample

    async def budget_alerts(self, month: str) -> frozenset[str]:
        return frozenset(self.marks)

    async def note_budget_alert(self, month: str, mark: str, told_at: datetime) -> bool:
        self.marks.add(mark)
        return True

    async def write_pool_status(self, status: PoolStatus) -> None:
        self._fail("ledger", LedgerUnavailable("pools"))
        self.statuses[status.pool] = status

    async def controls(self, now: datetime) -> Controls:
        self._fail("ledger", LedgerUnavailable("controls"))
        await self._wait("controls")
        return self.orders

    async def windows(self, after: datetime, before: datetime) -> list[Window]:
        return [window for window in self.announced if after <= window.opens_at < before]

    async def runs(
        self, supplier: str | None = None, limit: int = 100, skip: Collection[str] = frozenset()
    ) -> list[RunRow]:
        self._fail("row", msgspec.ValidationError("Expected `str`, got `null`"))
        return [run for run in self.deliveries if run.run_id not in skip][:limit]

    async def uploads(self, run_id: str) -> list[UploadRow]:
        self.looked_into.append(run_id)
        return []

    async def ensure(self) -> None:
        """Nothing is missing."""

    async def read(self, name: str) -> PoolSeen:
        self._fail(f"batch {name}", FleetError("503"))
        self._fail(f"surprise {name}", ZeroDivisionError("float division by zero"))
        await self._wait(f"read {name}")
        if self.ends_by_reading:
            self.leads = None
        return self.pools[name]

    async def claim(self, seen: PoolSeen, term: int) -> None:
        self._fail("claim", PoolChanged("412"))
        self.claims.append((seen.name, term))
        self.pools[seen.name] = msgspec.structs.replace(seen, term=term)

    async def quota(self, account: str) -> Quota:
        if self.allowed is None:
            raise FleetError("not known here")
        return self.allowed

    async def carry_out(self, seen: PoolSeen, step: Step, author: str) -> None:
        self._fail("step", FleetError("500"))
        await self._wait(f"step {seen.name}")
        self._fail(f"step {seen.name}", PoolChanged("412"))
        self._fail(type(step).__name__, Refused("409 JobCompleted"))
        self.steps.append(step)
        if self.leads_after_steps is not None and len(self.steps) >= self.leads_after_steps:
            self.leads = None

    async def tidy(self, seen: PoolSeen, now: datetime) -> None:
        """Nothing is old."""

    async def node_log(self, name: str, node_id: str) -> str:
        return f"{node_id}: no such driver"

    async def worker_log(self, name: str, task_id: str) -> str:
        return f"{task_id}: no such module"

    def term(self) -> int | None:
        return self.leads

    def step_down(self, met: int) -> None:
        self.leads, self.met = None, met

    async def _wait(self, what: str) -> None:
        if what in self.slow:
            await self.slow[what].wait()

    def _fail(self, what: str, error: Exception) -> None:
        if what in self.broken:
            raise error


def settings_with(**more: Any) -> DispatcherSettings:
    return DispatcherSettings(
        bus=BusSettings(),
        ledger=LedgerSettings(),
        blobs=BlobSettings(),
        batch_url="http://localhost:1",
        **{"costs": CostSettings(), **more},
    )


def dispatcher_in(world: World, **more: Any) -> Dispatcher:
    return Dispatcher(settings_with(**more), world, world, world, world, world, clock=lambda: world.now)


GROW = [AddWorkers(1), Resize(0, 1)]
TWO = {"pools": [PoolEntry(name="gpu"), PoolEntry(name="cpu", job_kind=JobKind.CONVERT, buy="dedicated")]}
