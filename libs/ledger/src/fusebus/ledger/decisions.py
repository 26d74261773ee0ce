"""What the dispatcher decided and what its nodes cost: rows that are only ever added."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime

import msgspec

from fusebus.contracts.identity import digest
from fusebus.ledger.columns import from_columns, to_columns
from fusebus.ledger.rows import CostOfMonth, CostSample, Decision
from fusebus.ledger.runs import inverted, microseconds
from fusebus.ledger.tables import Row, Tables


class DecisionLedger:
    """Decisions by pool, cost samples by month."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def write_decision(self, decision: Decision) -> None:
        """Add it; a repeat of the same decision adds nothing."""
        content = digest(msgspec.json.encode(decision, order="deterministic"))
        name = f"{inverted(decision.decided_at)}:{content[:8]}"
        await self._tables.insert("decisions", Row(decision.pool, name, to_columns(decision)))

    async def decisions(self, pool: str, limit: int = 20, at: datetime | None = None) -> list[Decision]:
        """The newest decisions for a pool, newest first; with `at` only those made by then."""
        start = inverted(at) if at else "0"
        rows = self._tables.query("decisions", pool, start, ":", limit)
        return [from_columns(row.columns, Decision) async for row in rows]

    async def add_cost_sample(self, sample: CostSample) -> None:
        """Add it to the month in which it started; the first sample of a pool and start stays."""
        name = f"{sample.pool}:{microseconds(sample.started_at):018d}"
        await self._tables.insert("costs", Row(month_of(sample), name, to_columns(sample)))

    async def cost_of_month(self, month: str) -> CostOfMonth:
        """The sum of a month's (YYYY-MM, UTC) samples: a partition scan."""
        samples, node_seconds, estimated = 0, 0.0, False
        cost: defaultdict[str, float] = defaultdict(float)
        async for row in self._tables.query("costs", month, "-", "~"):
            sample = from_columns(row.columns, CostSample)
            samples += 1
            node_seconds += sample.node_seconds
            cost[sample.currency] += sample.cost
            estimated |= sample.estimated
        return CostOfMonth(
            month=month, samples=samples, node_seconds=node_seconds, cost=dict(cost), estimated=estimated
        )


def month_of(sample: CostSample) -> str:
    """YYYY-MM, UTC."""
    return f"{sample.started_at.astimezone(UTC):%Y-%m}"
