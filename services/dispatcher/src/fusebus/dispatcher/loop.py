"""The story of one look: see the queues and pools, decide, write down what changed, take the steps, meter the cost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec

from fusebus.bus import BusError
from fusebus.contracts.messages import JobKind, WorkLate
from fusebus.costs import Verdict, Waiting
from fusebus.dispatcher import planner, telemetry
from fusebus.dispatcher.accounts import Accounts, PoolCosts
from fusebus.dispatcher.beside import Beside
from fusebus.dispatcher.ceilings import ceilings
from fusebus.dispatcher.errors import FleetError, LaterTerm, LostLeadership
from fusebus.dispatcher.eyes import Eyes
from fusebus.dispatcher.facts import Facts
from fusebus.dispatcher.hands import Hands
from fusebus.dispatcher.keeping import Keeper
from fusebus.dispatcher.memory import Memory
from fusebus.dispatcher.orders import Orders, obey
from fusebus.dispatcher.ports import Announcer, Books, Depths, Leader, Nodes
from fusebus.dispatcher.reports import decision_on, status_of
from fusebus.dispatcher.settings import DispatcherSettings, PoolSettings
from fusebus.dispatcher.steps import Target
from fusebus.dispatcher.voice import Voice
from fusebus.ledger import LedgerError
from fusebus.planning import Late

SHADOW_SUFFIX = ":shadow"
"""Onto a pool's name in the ledger: what a shadow would have done stands beside what was done."""
LIVENESS_LOOKS = 5  # missed looks after which the process counts as stuck, each as long as its slowest request
GAUGE_LOOKS = 3  # missed looks after which metrics show no value any more
LEAST_PAUSE = 0.2  # of the interval, after a look that took as long: Batch and the ledger count requests
STOP_SECONDS = 10.0  # for the look under way when told to stop
LOG_SECONDS = 5.0  # for one of them: a broken node may not answer
MOST_LOGS_PER_LOOK = 3  # of broken nodes and failed workers: a look stays short

log = logging.getLogger(__name__)


class Dispatcher:
    """Keeps between looks only what can be lost: see Memory, Voice, and the cost samples under way."""

    def __init__(
        self,
        settings: DispatcherSettings,
        bus: Depths,
        publisher: Announcer,
        ledger: Books,
        fleet: Nodes,
        leader: Leader,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._pools = {pool.name: pool for pool in settings.all_pools}
        self._ledger, self._fleet, self._leader = ledger, fleet, leader
        self._clock = clock
        self._eyes = Eyes(settings, bus, ledger, fleet)
        self._memory, self._keeper = Memory(settings), Keeper(ledger)
        self._hands = Hands(settings, fleet, leader)
        self._settling: Beside[Verdict] = Beside()
        self._keeping: Beside[None] = Beside()
        self._voice = Voice(ledger, publisher, SHADOW_SUFFIX if settings.shadow else "")
        self._accounts = Accounts(
            settings.costs,
            ledger,
            publisher,
            [PoolCosts(pool.name, pool.vm_size, pool.job_kind.value, pool.region) for pool in self._pools.values()],
            settings.cost_sample_seconds,
        )
        self._gauges = telemetry.Gauges(GAUGE_LOOKS * (settings.interval_seconds + settings.request_seconds))
        self._office: int | None = None  # the term for which the books were opened
        self._looked = time.monotonic()
        self._stumbles = 0  # looks that ended in an error nobody foresaw

    async def run(self, stop: asyncio.Event) -> None:
        """Look again and again until `stop`; a look that fails is logged, and the next one tries again."""
        stopping = asyncio.create_task(stop.wait())
        while not stop.is_set():
            began = time.monotonic()
            look = asyncio.create_task(self._look_and_log())
            await asyncio.wait({look, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not look.done():  # a look is short, unless Batch does not answer
                await asyncio.wait({look}, timeout=STOP_SECONDS)
                look.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await look
            self._looked = time.monotonic()
            interval = self._settings.interval_seconds
            pause = max(interval - (time.monotonic() - began), LEAST_PAUSE * interval)
            await asyncio.wait({stopping}, timeout=pause)
        await self._eyes.close()
        await self._hands.close()
        await self._leave_office()

    async def _look_and_log(self) -> None:
        try:
            with telemetry.look():
                await self.look()
        except LostLeadership as error:
            log.warning("nothing more is done in this look: %s", error)
        except (FleetError, LedgerError, BusError) as error:
            log.warning("this look failed, the next one tries again: %s", error)
        except Exception:  # whatever one look stumbles over, nodes go on costing: the next one must come
            self._stumbles += 1
            log.exception(
                "this look failed in a way nobody foresaw, the next one tries again (%d so far)", self._stumbles
            )

    @property
    def accounts(self) -> Accounts:
        """For what is done once a day."""
        return self._accounts

    def is_alive(self) -> bool:
        """Whether looks still happen, successful or not."""
        one = self._settings.interval_seconds + self._settings.request_seconds
        return time.monotonic() - self._looked < LIVENESS_LOOKS * one

    async def begin(self) -> None:
        """Make what is missing, as far as it can be reached: what is not made now is made once it can be read."""
        if not self._settings.shadow:
            await self._fleet.ensure()

    async def look(self) -> dict[str, Target]:
        """One look: the targets by pool, empty while another dispatcher leads.

        Raises LostLeadership, LedgerError, BusError; whatever was not said is said by the next. What Batch refuses of
        one pool is logged, shown in its status, and leaves the others alone.
        """
        term = self._term()
        if term is None:
            await self._leave_office()
            return {}
        now = self._clock()
        await self._take_office(term, now)
        facts = await self._eyes.look(now)
        self._memory.observe(facts, time.monotonic())
        if self._term() != term:
            raise LostLeadership(f"the lease of term {term} ended during the look")
        budget = await self._count(facts)
        await self._listen(facts)
        targets, late = self._decide(facts, budget)
        await self._keep(term, facts.now)  # before the first step: who takes over must know why there was none
        self._gauges.show(facts, targets, self._memory, self._accounts)
        problems = dict(facts.problems)
        try:
            if not self._settings.shadow:
                problems |= await self._hands.act(term, facts, targets, self._memory)
        finally:
            if self._term() == term:  # else the one who leads now says what there is
                await self._show(term, facts, targets, problems)
                await self._voice.say()
        await self._alert(late)
        return targets

    def _term(self) -> int | None:
        return 0 if self._settings.shadow else self._leader.term()

    async def _take_office(self, term: int, now: datetime) -> None:
        """Once in a term: what the leader before decided stands, what it learnt is known, its accounts go on."""
        if self._office != term:
            await self._settling.close()
            await self._keeping.close()
            if self._office is not None:
                self._accounts.forget()
            self._memory = Memory(self._settings)  # of an earlier term of ours: it may be out of date
            try:
                await self._voice.remember(list(self._pools))
            except LedgerError as error:
                # What was decided before may be said once more: better than not to act at all.
                log.warning("the last decisions can't be read: %s", error)
            await self._accounts.begin(now)
            self._office = term
        if not self._settings.shadow:
            await self._keeper.recall(self._memory, term, now, time.monotonic())

    async def _leave_office(self) -> None:
        """Write what is counted, and whoever leads next counts on from there; not where that one may count already."""
        await self._settling.close()
        await self._keeping.close()
        if self._office is not None and not self._settings.shadow:
            if self._leader.term() == self._office:
                await self._accounts.close(self._clock())
            else:
                self._accounts.forget()
        self._office = None
        self._gauges.clear()

    async def _keep(self, term: int, now: datetime) -> None:
        """Write down what was learnt. Raises LostLeadership where a later leader has done so already."""
        if self._settings.shadow:
            return
        keep = partial(self._keeper.keep, self._memory, term, now, time.monotonic())
        try:
            await self._keeping.within("the notes", keep, self._settings.patience_seconds)
        except TimeoutError:
            log.warning("what was learnt is not written yet, the look goes on")
        except LaterTerm as error:
            self._leader.step_down(error.term)
            raise

    async def _alert(self, late: Sequence[Late]) -> None:
        """Tell once that work will be late. Raises BusError, and the next look tells it."""
        for one in late:
            kind = self._memory.kinds[JobKind(one.kind)]
            if not kind.late.due or kind.late.since is None or self._settings.shadow:
                continue
            await self._voice.alert(
                WorkLate(
                    job_kind=JobKind(one.kind),
                    since=kind.late.since,
                    images=one.images,
                    because=one.because,
                    late_seconds=one.seconds if math.isfinite(one.seconds) else None,
                )
            )
            kind.late = msgspec.structs.replace(kind.late, told=True)

    def _decide(self, facts: Facts, budget: Verdict) -> tuple[dict[str, Target], Sequence[Late]]:
        """The policy's targets, with people's orders, the ceiling and the breaker above them."""
        accounts = self._accounts
        coming = accounts.coming(facts.now)
        plan = planner.plan(self._settings, facts, self._memory, accounts.rates, budget, coming)
        for late in plan.late:
            log.warning("late: %s", late.because)
        self._memory.observe_late([late.kind for late in plan.late], facts)
        wanted = planner.targets(self._settings, plan)
        targets: dict[str, Target] = {}
        for name, seen in facts.pools.items():
            orders = self._orders(self._pools[name], facts)
            if orders.pin is not None:
                limits = ceilings(self._pools[name], self._settings, facts, {**wanted, **targets}, budget)
                orders = msgspec.structs.replace(orders, ceilings=limits)
            targets[name] = obey(wanted[name], seen, orders, self._memory.pools[name].breaker, facts.now)
            if not targets[name].hold or orders.mode != "acting":
                decision = decision_on(
                    self._pools[name],
                    targets[name],
                    seen,
                    facts,
                    self._memory,
                    mode=self._mode(orders),
                    rates=self._accounts.rates[name],
                    budget=budget,
                )
                if self._voice.note(name, decision):
                    log.info("pool %s: %d nodes, because %s", name, targets[name].nodes, targets[name].because)
        return targets, plan.late

    def _orders(self, pool: PoolSettings, facts: Facts) -> Orders:
        controls = facts.controls
        return Orders(
            known=controls is not None,
            kill_switch=self._settings.kill_switch,
            pause=controls.pause_of(pool.name) if controls else None,
            pin=controls.pins.get(pool.name) if controls else None,
            max_nodes=pool.max_nodes,
            may_spot=pool.may_spot,
            may_dedicated=pool.may_dedicated,
        )

    def _mode(self, orders: Orders) -> str:
        return "shadow" if self._settings.shadow else orders.mode

    async def _listen(self, facts: Facts) -> None:
        """Fetch what broken nodes and failed workers said last, before they are gone."""
        unheard = self._memory.unheard(facts)[:MOST_LOGS_PER_LOOK]
        await asyncio.gather(*(self._hear(facts, *one) for one in unheard))

    async def _hear(self, facts: Facts, pool: str, name: str, is_node: bool) -> None:
        fetch = self._fleet.node_log if is_node else self._fleet.worker_log
        said = ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOG_SECONDS):
                said = await fetch(pool, name)
        seen = facts.pools[pool]
        found = [one for one in (seen.nodes if is_node else seen.workers) if one.id == name]
        words = "; ".join(text for text in (found[0].problem, said) if text)
        self._memory.hear(pool, name, words)
        log.warning("pool %s: %s %s failed: %s", pool, "node" if is_node else "worker", name, words)

    async def _show(self, term: int, facts: Facts, targets: dict[str, Target], problems: dict[str, str]) -> None:
        statuses = [
            status_of(
                self._pools[name],
                facts.pools[name],
                target,
                facts,
                self._memory,
                mode=self._mode(self._orders(self._pools[name], facts)),
                leader=self._leader.name,
                term=term,
                problem=problems.get(name, ""),
                pools=self._pools,
            )
            for name, target in targets.items()
        ]
        await self._voice.show(statuses)
        for name, problem in facts.problems.items():
            await self._voice.regret(name, problem, facts.now)

    async def _count(self, facts: Facts) -> Verdict:
        """Meter every node; without sight of a pool its last nodes go on costing. What the budget leaves."""
        if self._settings.shadow:
            return self._accounts.verdict(facts.now)
        for name, pool in self._pools.items():
            self._accounts.check_region(name, facts.quota_of(pool).region)
        for name in self._pools:
            seen = facts.pools.get(name)
            self._accounts.saw(name, seen.nodes if seen else None, facts.now)
        self._accounts.waiting = self._waiting(facts)
        settle = partial(self._accounts.settle, facts.now)
        try:
            return await self._settling.within("the books", settle, self._settings.patience_seconds)
        except TimeoutError:
            log.warning("the books are not settled yet, the look goes on")
            return self._accounts.verdict(facts.now)

    def _waiting(self, facts: Facts) -> tuple[Waiting, ...]:
        """What waits by deadline: as the ledger knows it, and what of the queues it does not account for."""
        found = [Waiting(images=run.images, deadline=run.deadline) for run in facts.open_runs or ()]
        allowed = timedelta(seconds=self._settings.deadline_seconds)
        for kind, depth in facts.depths.items():
            unknown = (depth or 0) - sum(run.images for run in facts.runs_of(kind))
            age = self._memory.kinds[kind].ages.oldest(unknown) if unknown > 0 else None
            if age is not None:
                found.append(Waiting(images=unknown, deadline=facts.now - timedelta(seconds=age) + allowed))
        return tuple(found)
