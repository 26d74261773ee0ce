"""What people told the dispatcher (pins, pauses), what work is announced, and how each pool was when last looked at."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from fusebus.ledger.columns import from_columns, to_columns
from fusebus.ledger.runs import microseconds
from fusebus.ledger.tables import Row, Tables

CONTROLS = "controls"
"""Name of a table and of its only partition: all that people set is read by one short scan."""
PIN = "pin:"
PAUSE = "pause:"
EVERYTHING = "pause"
NOW = "now"
MEMORY = "memory"


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """A person's word on how many nodes a pool has until then."""

    pool: str
    nodes: int
    until: datetime
    set_by: str
    set_at: datetime
    reason: str = ""


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """A person's word that a pool, or all of them, is left alone, or emptied."""

    pool: str = ""
    """Empty: all pools."""
    to_zero: bool = False
    """The kill switch: buy nothing, let workers give their work back, remove every node."""
    until: datetime | None = None
    """None: until it is lifted."""
    set_by: str
    set_at: datetime
    reason: str = ""


class Controls(msgspec.Struct, frozen=True):
    """All that is in force at one moment."""

    pins: Mapping[str, Pin] = {}
    """By pool."""
    pauses: Mapping[str, Pause] = {}
    """By pool; empty name: all of them."""

    def at(self, now: datetime) -> Controls:
        """What of it is still in force then."""
        pins = {name: pin for name, pin in self.pins.items() if now < pin.until}
        return Controls(pins, {name: one for name, one in self.pauses.items() if one.until is None or now < one.until})

    def pause_of(self, pool: str) -> Pause | None:
        """What holds this pool; of two pauses the one that empties it."""
        found = [self.pauses[name] for name in ("", pool) if name in self.pauses]
        return next((pause for pause in found if pause.to_zero), found[0] if found else None)


class QuotaLine(msgspec.Struct, frozen=True, kw_only=True):
    """Cores of one family that the account may have in its region; nodes of several pools may share them."""

    region: str
    family: str
    """Empty: all families together."""
    spot: bool
    cores: int | None
    """None where it could not be read."""
    used: int = 0
    """By the nodes of our pools."""


class PoolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A pool at the dispatcher's last look: what there is, what is wanted, and what stands in the way."""

    pool: str
    looked_at: datetime
    job_kind: str
    vm_size: str
    region: str = ""
    mode: str = "acting"
    """`acting`, `shadow` (decides only), `paused` or `emptied` (kill switch)."""
    leader: str = ""
    term: int = 0
    """How often leadership changed hands so far."""
    nodes: dict[str, int] = {}
    """By state as Batch names it, each at least 1."""
    dedicated: int = 0
    """Nodes in the pool that are not leaving, of each kind."""
    spot: int = 0
    wanted_dedicated: int = 0
    wanted_spot: int = 0
    wanted_workers: int = 0
    running: int = 0
    """Worker tasks on a node."""
    waiting: int = 0
    """Worker tasks without one."""
    depth: int | None = None
    """Messages of its job kind, locked ones included; None where it could not be read."""
    max_nodes: int = 0
    steady: bool = True
    because: str = ""
    problem: str = ""
    """What Batch refused or why it could not be read; empty where all went well."""
    breaker: str = ""
    """Why nothing new is bought for now; empty where nothing is wrong."""
    quota: list[QuotaLine] = []


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """What the dispatcher that led in `term` had learnt of one subject (a pool, a job kind), in its own words."""

    subject: str
    term: int
    kept_at: datetime
    notes: str
    """At most 32,768 UTF-16 units."""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Work that will be released at a known time: Service Bus holds it back until then."""

    job_kind: str
    opens_at: datetime
    deadline: datetime
    images: int
    name: str = ""
    """Who announces it; a later word of the same name on the same window takes the place of the earlier."""


class FleetLedger:
    """Controls are written by people's commands, windows by whoever schedules work, statuses by the dispatcher."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def set_pin(self, pin: Pin) -> None:
        """In force at once, in place of any earlier one for the pool."""
        await self._put(CONTROLS, Row(CONTROLS, PIN + pin.pool, to_columns(pin)))

    async def set_pause(self, pause: Pause) -> None:
        """In force at once, in place of any earlier one for the same pool or for all."""
        await self._put(CONTROLS, Row(CONTROLS, _pause_name(pause.pool), to_columns(pause)))

    async def lift_pin(self, pool: str, now: datetime) -> bool:
        """Whether there was one in force."""
        found = await self._tables.get(CONTROLS, CONTROLS, PIN + pool)
        pin = from_columns(found.columns, Pin) if found else None
        if pin is None or pin.until <= now:
            return False
        await self.set_pin(msgspec.structs.replace(pin, until=now))
        return True

    async def lift_pause(self, pool: str, now: datetime) -> bool:
        """Whether there was one in force; the pause of all pools (empty name) is another than that of each."""
        found = await self._tables.get(CONTROLS, CONTROLS, _pause_name(pool))
        pause = from_columns(found.columns, Pause) if found else None
        if pause is None or (pause.until is not None and pause.until <= now):
            return False
        await self.set_pause(msgspec.structs.replace(pause, until=now))
        return True

    async def controls(self, now: datetime) -> Controls:
        """What is in force: one short partition scan."""
        pins: dict[str, Pin] = {}
        pauses: dict[str, Pause] = {}
        async for row in self._tables.query(CONTROLS, CONTROLS, "pause", "pin;"):
            if row.name.startswith(PIN):
                pin = from_columns(row.columns, Pin)
                pins[pin.pool] = pin
            else:
                pause = from_columns(row.columns, Pause)
                pauses[pause.pool] = pause
        return Controls(pins, pauses).at(now)

    async def write_pool_status(self, status: PoolStatus) -> None:
        """In place of the pool's earlier one."""
        columns = {"looked_at": status.looked_at, "status": msgspec.json.encode(status).decode()}
        await self._put("pools", Row(status.pool, NOW, columns))

    async def pool_statuses(self) -> list[PoolStatus]:
        """The last one of each pool, by name."""
        found = [
            msgspec.json.decode(row.columns["status"], type=PoolStatus)
            async for row in self._tables.query("pools", None, NOW, NOW + "!")
        ]
        return sorted(found, key=lambda status: status.pool)

    async def remember(self, notes: Remembered) -> int:
        """Keep it in place of what an earlier term, or this one, kept. The term whose notes stand then: a later one's
        are left as they are."""
        row = Row(notes.subject, MEMORY, to_columns(notes))
        async for _ in self._tables.tries(f"notes on {notes.subject}"):
            found = await self._tables.get("pools", notes.subject, MEMORY)
            before = from_columns(found.columns, Remembered) if found else None
            if before is not None and before.term > notes.term:
                return before.term
            version = found.version if found else ""
            named = msgspec.structs.replace(row, version=version)
            if await (self._tables.replace("pools", named) if found else self._tables.insert("pools", row)):
                break
        return notes.term

    async def remembered(self, subject: str) -> Remembered | None:
        """What was kept last; None where nothing was."""
        found = await self._tables.get("pools", subject, MEMORY)
        return from_columns(found.columns, Remembered) if found else None

    async def announce_window(self, window: Window) -> None:
        """Say how much comes when, so that nodes are warm by then; a repeat changes nothing."""
        name = f"{microseconds(window.opens_at):018d}:{window.name}"
        await self._put("windows", Row(window.job_kind, name, to_columns(window)))

    async def windows(self, after: datetime, before: datetime) -> list[Window]:
        """All that open in that time, the earliest first."""
        start, end = f"{microseconds(after):018d}", f"{microseconds(before):018d}"
        found = [from_columns(row.columns, Window) async for row in self._tables.query("windows", None, start, end)]
        return sorted(found, key=lambda window: window.opens_at)

    async def _put(self, table: str, row: Row) -> None:
        """Insert or replace: the last word counts."""
        async for _ in self._tables.tries(f"writing {table} {row.partition} {row.name}"):
            found = await self._tables.get(table, row.partition, row.name)
            if found is None and await self._tables.insert(table, row):
                return
            if found is not None and await self._tables.replace(
                table, Row(row.partition, row.name, row.columns, found.version)
            ):
                return


def _pause_name(pool: str) -> str:
    return PAUSE + pool if pool else EVERYTHING
