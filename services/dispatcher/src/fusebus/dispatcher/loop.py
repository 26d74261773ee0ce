"""The story of one look: read the queue and the fleet, decide, say what changed, take the steps, meter the cost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from fusebus.bus import BusError, Depth
from fusebus.contracts.messages import FleetChanged, JobKind
from fusebus.contracts.outcomes import Outgoing
from fusebus.dispatcher.adapters import FleetError
from fusebus.dispatcher.meter import Meter
from fusebus.dispatcher.policy import Demand, Fleet, Limits, Plan, Step, decide, steps
from fusebus.dispatcher.rate import Rate
from fusebus.dispatcher.settings import DispatcherSettings
from fusebus.ledger import CostSample, Decision, LedgerError

TOPIC = "images"
LIVENESS_LOOKS = 5  # missed looks after which the process counts as stuck
LIVENESS_SECONDS = 120.0  # at least
STOP_SECONDS = 10.0  # for the look under way when told to stop

log = logging.getLogger(__name__)


class Depths(Protocol):
    """The bus, as far as it is needed here."""

    async def depth(self, topic: str, subscription: str) -> Depth | None:
        """How much waits; None where it could not be read."""


class Announcer(Protocol):
    """The publisher."""

    async def publish(self, outgoing: Sequence[Outgoing]) -> None:
        """Send all, or raise BusError."""


class Books(Protocol):
    """The ledger, as far as it is needed here; raises LedgerError."""

    async def write_decision(self, decision: Decision) -> None:
        """Add it; a repeat adds nothing."""

    async def decisions(self, pool: str, limit: int = 20) -> list[Decision]:
        """The newest first."""

    async def add_cost_sample(self, sample: CostSample) -> None:
        """Add it; a repeat adds nothing."""


class Nodes(Protocol):
    """The Batch pool; raises FleetError."""

    async def ensure(self) -> None:
        """Make what is missing."""

    async def read(self, now: datetime) -> Fleet:
        """As it is."""

    async def quota_nodes(self) -> int | None:
        """What the account may have, if that is known."""

    async def carry_out(self, step: Step) -> None:
        """Do one step."""


class Dispatcher:
    """Keeps between looks only what can be lost: the measured rate, the cost sample under way, the last decision."""

    def __init__(
        self,
        settings: DispatcherSettings,
        bus: Depths,
        publisher: Announcer,
        ledger: Books,
        fleet: Nodes,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._bus, self._publisher, self._ledger, self._fleet = bus, publisher, ledger, fleet
        self._clock = clock
        self._rate = Rate(seconds_per_image=settings.assumed_seconds_per_image)
        self._meter = Meter(
            settings.pool, settings.price_per_node_hour, settings.currency, settings.cost_sample_seconds
        )
        self._last: Decision | None = None
        self._unsaid: Decision | None = None  # decided, not yet both written and published
        self._unwritten: list[CostSample] = []
        self._looked = time.monotonic()

    async def run(self, stop: asyncio.Event) -> None:
        """Look again and again until `stop`; a look that fails is logged, and the next one tries again."""
        stopping = asyncio.create_task(stop.wait())
        while not stop.is_set():
            look = asyncio.create_task(self._look_and_log())
            await asyncio.wait({look, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not look.done():  # a look is short, unless Batch does not answer
                await asyncio.wait({look}, timeout=STOP_SECONDS)
                look.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await look
            self._looked = time.monotonic()
            await asyncio.wait({stopping}, timeout=self._settings.interval_seconds)
        await self._record(self._meter.close(self._clock()))

    async def _look_and_log(self) -> None:
        try:
            await self.look()
        except (FleetError, LedgerError, BusError) as error:
            log.warning("this look failed, the next one tries again: %s", error)

    def is_alive(self) -> bool:
        """Whether looks still happen, successful or not."""
        limit = max(LIVENESS_SECONDS, LIVENESS_LOOKS * self._settings.interval_seconds)
        return time.monotonic() - self._looked < limit

    async def begin(self) -> None:
        """Make what is missing, and remember the last decision so that a restart does not repeat it."""
        await self._fleet.ensure()
        found = await self._ledger.decisions(self._settings.pool, 1)
        self._last = found[0] if found else None

    async def look(self) -> Plan:
        """One look. Raises FleetError, LedgerError, BusError; whatever was not said is said by the next."""
        now = self._clock()
        depth = await self._bus.depth(TOPIC, JobKind.DETECT.value)
        fleet = await self._read(now)
        active = None if depth is None else depth.active
        self._rate = self._rate.observe(time.monotonic(), active, fleet.running)
        demand = Demand(depth=active, seconds_per_image=self._rate.seconds_per_image, measured=self._rate.measured)
        limits = await self._limits()
        plan = decide(fleet, demand, limits, now)
        self._note(plan, fleet, demand, limits, now)
        try:
            for step in steps(plan, fleet):
                log.info("%s, because %s", step, plan.because)
                await self._fleet.carry_out(step)
        finally:
            await self._say()
        return plan

    async def _read(self, now: datetime) -> Fleet:
        """The fleet, metered; without sight of it the last number of nodes goes on costing."""
        try:
            fleet = await self._fleet.read(now)
        except FleetError:
            await self._record(self._meter.observe(now, None))
            raise
        await self._record(self._meter.observe(now, fleet.billed))
        return fleet

    async def _limits(self) -> Limits:
        settings = self._settings
        return Limits(
            max_nodes=settings.max_nodes,
            quota_nodes=await self._fleet.quota_nodes(),
            deadline_seconds=settings.deadline_seconds,
            boot_seconds=settings.boot_seconds,
            retry_resize_seconds=settings.retry_resize_seconds,
            most_failures=settings.most_failures,
        )

    def _note(self, plan: Plan, fleet: Fleet, demand: Demand, limits: Limits, now: datetime) -> None:
        """Keep a decision that differs from the last one until it has been said."""
        before = (self._last.nodes, self._last.workers) if self._last else (0, 0)
        if plan.hold or (plan.nodes, plan.workers) == before:
            return
        facts: dict[str, str | int | float | bool | None] = {
            "depth": demand.depth,
            "seconds_per_image": round(demand.seconds_per_image, 3),
            "measured": demand.measured,
            "busy": fleet.busy,
            "idle": len(fleet.idle),
            "coming": fleet.coming,
            "max_nodes": limits.max_nodes,
            "quota_nodes": limits.quota_nodes,
        }
        self._last = self._unsaid = Decision(
            pool=self._settings.pool,
            decided_at=now,
            nodes=plan.nodes,
            workers=plan.workers,
            because=plan.because,
            facts={name: value for name, value in facts.items() if value is not None},
        )

    async def _say(self) -> None:
        """Write, then publish; both may be repeated without effect, so a failure leaves them for the next look."""
        decision = self._unsaid
        if decision is None:
            return
        await self._ledger.write_decision(decision)
        changed = FleetChanged(
            pool=decision.pool,
            nodes=decision.nodes,
            workers=decision.workers,
            because=decision.because,
            decided_at=decision.decided_at,
        )
        await self._publisher.publish([Outgoing(message=changed)])
        self._unsaid = None

    async def _record(self, sample: CostSample | None) -> None:
        """Samples that could not be written wait for the next look: sizing must not depend on the books."""
        if sample is not None:
            self._unwritten.append(sample)
        try:
            while self._unwritten:
                await self._ledger.add_cost_sample(self._unwritten[0])
                self._unwritten.pop(0)
        except LedgerError as error:
            log.warning("%d cost samples wait to be written: %s", len(self._unwritten), error)
