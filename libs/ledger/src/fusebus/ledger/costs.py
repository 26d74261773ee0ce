"""What the accounts are made of: cost samples of a month, budget alerts that were told, and the bill by day."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import datetime

from fusebus.contracts.identity import digest
from fusebus.ledger.columns import from_columns, to_columns
from fusebus.ledger.rows import BilledDay, CostSample, RunRow
from fusebus.ledger.runs import HEADER, OPENED, inverted
from fusebus.ledger.tables import Row, Tables

SERVICES = ".services"
"""In place of a pool, in samples of what storage and messages cost: no Batch pool can have this name."""


class CostLedger:
    """Read by `fusebus cost` and the dispatcher's budget. Samples are added by DecisionLedger."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def cost_samples(self, month: str) -> AsyncIterator[CostSample]:
        """All samples that started in a month (YYYY-MM, UTC), ordered by pool and start: a partition scan."""
        async for row in self._tables.query("costs", month, "-", "~"):
            yield from_columns(row.columns, CostSample)

    async def budget_alerts(self, month: str) -> frozenset[str]:
        """Marks of the alerts that were told for this month."""
        return frozenset([row.name async for row in self._tables.query("costs", f"{month}:alerts", " ", "~")])

    async def note_budget_alert(self, month: str, mark: str, told_at: datetime) -> bool:
        """Write down that an alert was told; False where that was known already."""
        row = Row(f"{month}:alerts", mark, {"told_at": told_at.isoformat()})
        return await self._tables.insert("costs", row) is not None

    async def write_bill(self, days: Iterable[BilledDay]) -> None:
        """Keep what the bill says; a later reading of the same day and service takes the place of the earlier one."""
        for billed in days:
            await self._write_billed(billed)

    async def bill(self, month: str) -> list[BilledDay]:
        """What was read of a month's (YYYY-MM) bill, by day."""
        rows = self._tables.query("costs", f"{month}:bill", "0", "~")
        return [from_columns(row.columns, BilledDay) async for row in rows]

    async def runs_opened(self, start: datetime, end: datetime) -> list[RunRow]:
        """All suppliers' runs that were opened in `start` <= time < `end`, oldest first."""
        # Names count down: the later a run was opened, the smaller its name.
        names = self._tables.query("current", None, f"{OPENED}{inverted(end)};", f"{OPENED}{inverted(start)};")
        found = sorted([(row.name, str(row.columns["run_id"])) async for row in names], reverse=True)
        return [run for _, run_id in found if (run := await self._run_header(run_id)) is not None]

    async def _run_header(self, run_id: str) -> RunRow | None:
        found = await self._tables.get("runs", run_id, HEADER)
        return from_columns(found.columns, RunRow, version=found.version) if found else None

    async def _write_billed(self, billed: BilledDay) -> None:
        partition, name = f"{billed.day[:7]}:bill", f"{billed.day}:{digest('service', billed.service)[:8]}"
        async for _ in self._tables.tries(f"bill of {billed.day}"):
            found = await self._tables.get("costs", partition, name)
            row = Row(partition, name, to_columns(billed), found.version if found else "")
            if found is not None and from_columns(found.columns, BilledDay).read_at >= billed.read_at:
                return  # our own repeated write, or somebody else's later reading
            if await (self._tables.replace("costs", row) if found else self._tables.insert("costs", row)):
                return
