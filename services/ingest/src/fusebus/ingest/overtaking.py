"""Looks into the others' containers itself while events of a flood lie before theirs.

Event Grid's events have no lane and are read in their order: behind an hour's backlog of one supplier, another's ten
would wait until all of it is read. Their photos lie in storage, though, and so many containers are listed sooner.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from fusebus.bus import Lately
from fusebus.contracts.topology import FEW_UPLOADS
from fusebus.host import until_stopped
from fusebus.ingest.fairness import Turns
from fusebus.ingest.settings import IngestSettings

REST = 0.5
"""Of the time that a search takes, how long the pause behind it is at least: the flood goes on in it."""

LULL_SECONDS = 0.15
"""How much longer that pause may be while the first lane has any: they should not share the cores with a search."""
HUSH_SECONDS = 0.3
"""Of a search, in which a flood's uploads begin no further step."""
CALM_SECONDS = 2.0
"""Without an event that waited: no more are expected."""

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Overtaking:
    """Searches while it is told of events that waited."""

    search: Callable[[Callable[[str], bool]], Awaitable[int]]
    """Announces the few of every supplier that is not said to flood; how many uploads that were."""
    arrived: Lately
    """Events without a lane, by supplier."""
    turns: Turns
    """Of the uploads that are dealt with."""
    settings: IngestSettings
    clock: Callable[[], datetime]
    monotonic: Callable[[], float] = time.monotonic
    _waited: asyncio.Event = field(default_factory=asyncio.Event)
    _resting: bool = True
    _found: asyncio.Event = field(default_factory=asyncio.Event)
    """Set but from when a search is due until it ends."""

    def __post_init__(self) -> None:
        self._found.set()

    async def let_pass(self, enqueued_at: datetime | None) -> None:
        """Hold a flood's event back if it waited long: for the search, and until what that found is dealt with.

        At most `pile_yield_seconds`. One that came just now goes on: held, it would hold up what came behind it.
        """
        most = self.settings.pile_seconds
        if not most or enqueued_at is None or (self.clock() - enqueued_at).total_seconds() < most:
            return
        self._waited.set()
        if not self._resting:
            self._found.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.pile_yield_seconds):
                await self._found.wait()
                await self.turns.lull()

    async def run(self, stop: asyncio.Event) -> None:
        """Search whenever an event waited too long, until `stop`, which breaks off a search."""
        await until_stopped(self._searches(), stop)

    async def _searches(self) -> None:
        while True:
            self._resting = False
            await self._told()
            self._found.clear()
            began = self.monotonic()
            try:
                with self.turns.expecting(HUSH_SECONDS):
                    found = await self.search(self._floods)
                if found:
                    _log.info("events pile up: others' uploads were found by listing", extra={"uploads": found})
            except Exception:  # their events come all the same, later
                _log.exception("the search for others' uploads failed")
            finally:
                self._resting = True
                self._found.set()
            await asyncio.sleep(max(self.settings.pile_search_seconds, REST * (self.monotonic() - began)))
            with suppress(TimeoutError):
                async with asyncio.timeout(LULL_SECONDS):
                    await self.turns.lull()

    async def _told(self) -> None:
        """Return when an event waited too long; where none does, floods get all places back meanwhile."""
        try:
            async with asyncio.timeout(CALM_SECONDS):
                await self._waited.wait()
        except TimeoutError:
            self.turns.beware(False)
            await self._waited.wait()
        self.turns.beware(True)
        self._waited.clear()

    def _floods(self, supplier: str) -> bool:
        return self.arrived.of(supplier) > FEW_UPLOADS
