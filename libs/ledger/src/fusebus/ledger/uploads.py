"""Enters each upload into exactly one run, and only into an open one, however many do so at once.

A supplier's open run is named in table `current`. An upload is bound to a run in `assigned`, then inserted into the run
in one transaction with the run's header under the header's ETag: whoever closes the run changes that ETag.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import datetime, timedelta

import msgspec

from fusebus.contracts import identity
from fusebus.ledger.rows import Entered, RunRow, RunState, UploadEntry, UploadRow
from fusebus.ledger.runs import HEADER, OPENED, RunLedger, header_row, inverted, upload_row
from fusebus.ledger.tables import Row, Tables

MAX_DETAIL = 4_000  # characters of free text that are kept


class UploadLedger(RunLedger):
    """What ingest writes of uploads."""

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables)
        self._headers: dict[str, RunRow] = {}  # by supplier: the open run as last seen; stale ones lose by their ETag
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # our own tasks need not race

    async def find_upload(self, upload_id: str) -> Entered | None:
        """The upload with its verdict as entered; None where it is in no run yet."""
        run_id = await self._assigned_run(upload_id)
        return (await self._look(run_id, upload_id))[1] if run_id else None

    async def enter_upload(self, entry: UploadEntry, now: datetime, *, looked: bool = False) -> Entered:
        """Insert the upload into its supplier's open run, opening one where there is none.

        A repeat returns what is there, with the verdict entered first; `looked`: `find_upload` just found none, which
        saves the look for one. Raises LedgerUnavailable, LedgerError; ValueError for a name that no row can keep.
        """
        entry = msgspec.structs.replace(entry, detail=entry.detail[:MAX_DETAIL])
        if not looked and (found := await self.find_upload(entry.upload_id)):
            return found
        async with self._turns[entry.supplier]:
            run_id = await self._assign(entry, now)
            header = self._headers.get(entry.supplier)
            async for number in self._tables.tries(f"entering upload {entry.upload_id}"):
                if number or header is None or header.run_id != run_id:
                    header, found = await self._look(run_id, entry.upload_id)
                    if found:
                        return found
                if header is not None and header.state is not RunState.OPEN:
                    run_id = await self._reassign(entry, run_id, now)
                elif entered := await self._insert(entry, run_id, header, now):
                    return entered
        raise AssertionError("tries ends with an error")

    async def _look(self, run_id: str, upload_id: str) -> tuple[RunRow | None, Entered | None]:
        """The header and the upload if it is there; where the header is closed, no upload comes after this look.

        One round trip: whoever lost a race must not be slower than those who win with what they remember.
        """
        header, upload = await asyncio.gather(self.run(run_id), self.upload(run_id, upload_id))
        if upload is None and header is not None and header.state is not RunState.OPEN:
            upload = await self.upload(run_id, upload_id)  # a twin of ours may have entered between the two answers
        if upload is None or header is None:
            return header, None
        return header, Entered(upload=upload, opened=header.first_upload_id == upload_id, run=header)

    async def _insert(self, entry: UploadEntry, run_id: str, header: RunRow | None, now: datetime) -> Entered | None:
        """None where the header changed meanwhile, or this is our own success whose answer got lost: look again."""
        upload = UploadRow(**msgspec.structs.asdict(entry), run_id=run_id, entered_at=now)
        if header is None:
            header = RunRow(
                run_id=run_id,
                supplier=entry.supplier,
                state=RunState.OPEN,
                opened_at=now,
                first_upload_id=entry.upload_id,
                last_upload_at=now,
            )
        touched = msgspec.structs.replace(header, last_upload_at=max(now, header.last_upload_at))
        versions = await self._tables.write_together("runs", [header_row(touched), upload_row(upload)])
        if versions is None:
            self._headers.pop(entry.supplier, None)
            return None
        self._headers[entry.supplier] = msgspec.structs.replace(touched, version=versions[0])
        upload = msgspec.structs.replace(upload, version=versions[1])
        return Entered(upload=upload, opened=touched.first_upload_id == entry.upload_id, run=touched)

    async def _assigned_run(self, upload_id: str) -> str | None:
        assigned = await self._tables.get("assigned", upload_id, "upload")
        return str(assigned.columns["run_id"]) if assigned else None

    async def _assign(self, entry: UploadEntry, now: datetime) -> str:
        """The run that this upload is bound to from now on."""
        async for _ in self._tables.tries(f"binding upload {entry.upload_id}"):
            run_id = await self._open_run(entry, now)
            row = Row(entry.upload_id, "upload", {"run_id": run_id})
            if await self._tables.insert("assigned", row) is not None:
                return run_id
            if there := await self._assigned_run(entry.upload_id):
                return there
        raise AssertionError("tries ends with an error")

    async def _reassign(self, entry: UploadEntry, closed: str, now: datetime) -> str:
        """Bind the upload to the next run; where a twin of ours just did, theirs stays."""
        self._headers.pop(entry.supplier, None)
        async for _ in self._tables.tries(f"binding upload {entry.upload_id}"):
            assigned = await self._tables.get("assigned", entry.upload_id, "upload")
            if assigned is None or assigned.columns["run_id"] != closed:
                return str(assigned.columns["run_id"]) if assigned else await self._assign(entry, now)
            run_id = await self._open_run(entry, now)
            if await self._tables.replace(
                "assigned", Row(entry.upload_id, "upload", {"run_id": run_id}, assigned.version)
            ):
                return run_id
        raise AssertionError("tries ends with an error")

    async def _open_run(self, entry: UploadEntry, now: datetime) -> str:
        """The supplier's open run, named anew where the last one is closed.

        Its header comes with its first upload, so that no run is ever empty.
        """
        if known := self._headers.get(entry.supplier):
            return known.run_id
        async for _ in self._tables.tries(f"opening a run for {entry.supplier}"):
            current = await self._tables.get("current", entry.supplier, HEADER)
            if current is not None:
                header = await self.run(current.columns["run_id"])
                if header is None or header.state is RunState.OPEN:
                    return str(current.columns["run_id"])
            if run_id := await self._name_run(entry, current, now):
                return run_id
        raise AssertionError("tries ends with an error")

    async def _name_run(self, entry: UploadEntry, current: Row | None, now: datetime) -> str | None:
        """The next run's name instead of the closed one's; None where a race was lost."""
        run_id = identity.run_id(entry.supplier, now, entry.upload_id)
        while await self.run(run_id) is not None:  # opened and closed within this second: names don't come back
            now += timedelta(seconds=1)
            run_id = identity.run_id(entry.supplier, now, entry.upload_id)
        named = Row(entry.supplier, HEADER, {"run_id": run_id}, current.version if current else "")
        index = Row(entry.supplier, f"{OPENED}{inverted(now)}:{run_id}", {"run_id": run_id})
        return run_id if await self._tables.write_together("current", [named, index]) else None
