"""What the system looks like now: runs with their uploads, queue depths, the dispatcher's last decision."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime

import msgspec

from fusebus.bus import Bus
from fusebus.contracts.topology import TOPICS
from fusebus.ledger import Decision, Ledger, RunRow, RunState, UploadRow

WAITING = "waiting"
"""State of an upload that has no final yet; the others are named as their final."""
RUNS_SHOWN = 10


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """One subscription's counts; None where they could not be read: unknown is not zero."""

    topic: str
    subscription: str
    active: int | None
    """Waiting and locked messages together."""
    dead_letters: int | None


class RunOverview(msgspec.Struct, frozen=True, kw_only=True):
    """One run with its uploads counted by state."""

    run_id: str
    supplier: str
    state: str
    opened_at: datetime
    uploads: int
    by_state: dict[str, int]


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """Everything `fusebus status` shows."""

    runs: tuple[RunOverview, ...]
    queues: tuple[Queue, ...]
    nodes_wanted: int | None
    workers_wanted: int | None
    because: str
    """The dispatcher's last decision in words; empty before the first."""


def count_by_state(uploads: list[UploadRow]) -> dict[str, int]:
    """How many uploads are in each state, `waiting` for those without a final."""
    return dict(sorted(Counter(row.final.kind.value if row.final else WAITING for row in uploads).items()))


async def look(ledger: Ledger, bus: Bus, pool: str, supplier: str | None = None) -> Overview:
    """Read the ledger and the queues once. Raises LedgerUnavailable where the ledger can't be read."""
    runs, queues, decisions = await asyncio.gather(
        _runs(ledger, supplier), read_queues(bus), ledger.decisions(pool, limit=1)
    )
    last: Decision | None = decisions[0] if decisions else None
    return Overview(
        runs=runs,
        queues=queues,
        nodes_wanted=last.nodes if last else None,
        workers_wanted=last.workers if last else None,
        because=last.because if last else "",
    )


async def read_queues(bus: Bus) -> tuple[Queue, ...]:
    """Every subscription's counts, in the order of the topology."""
    names = [(topic.name, found.name) for topic in TOPICS for found in topic.subscriptions]
    depths = await asyncio.gather(*(bus.depth(topic, name) for topic, name in names))
    return tuple(
        Queue(
            topic=topic,
            subscription=name,
            active=depth.active if depth else None,
            dead_letters=depth.dead_letter if depth else None,
        )
        for (topic, name), depth in zip(names, depths, strict=True)
    )


async def _runs(ledger: Ledger, supplier: str | None) -> tuple[RunOverview, ...]:
    found = await ledger.runs(supplier, limit=RUNS_SHOWN)
    uploads = await asyncio.gather(*(ledger.uploads(run.run_id) for run in found))
    return tuple(_run(run, rows) for run, rows in zip(found, uploads, strict=True))


def _run(run: RunRow, uploads: list[UploadRow]) -> RunOverview:
    return RunOverview(
        run_id=run.run_id,
        supplier=run.supplier,
        state=RunState(run.state).value,
        opened_at=run.opened_at,
        uploads=len(uploads),
        by_state=count_by_state(uploads),
    )
