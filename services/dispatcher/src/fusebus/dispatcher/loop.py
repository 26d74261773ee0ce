"""The story of one look: see the queues and pools, decide, write down what changed, take the steps, meter the cost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

import msgspec

from fusebus.bus import BusError
from fusebus.contracts.messages import JobKind, WorkLate
from fusebus.costs import Verdict, Waiting
from fusebus.dispatcher import planner, telemetry
from fusebus.dispatcher.accounts import Accounts, PoolCosts
from fusebus.dispatcher.beside import Beside
from fusebus.dispatcher.ceilings import ceilings
from fusebus.dispatcher.errors import FleetError, LaterTerm, LostLeadership, PoolBusy, PoolChanged, Throttled
from fusebus.dispatcher.eyes import Eyes
from fusebus.dispatcher.facts import Facts
from fusebus.dispatcher.keeping import Keeper
from fusebus.dispatcher.memory import Memory
from fusebus.dispatcher.orders import Orders, obey
from fusebus.dispatcher.ports import Announcer, Books, Depths, Leader, Nodes
from fusebus.dispatcher.reports import decision_on, status_of
from fusebus.dispatcher.seen import PoolSeen
from fusebus.dispatcher.settings import DispatcherSettings, PoolSettings
from fusebus.dispatcher.steps import AddWorkers, Resize, Step, Target, overdue, steps
from fusebus.dispatcher.voice import Voice
from fusebus.ledger import LedgerError
from fusebus.planning import Late

SHADOW_SUFFIX = ":shadow"
"""Onto a pool's name in the ledger: what a shadow would have done stands beside what was done."""
LIVENESS_LOOKS = 5  # missed looks after which the process counts as stuck, each as long as its slowest request
GAUGE_LOOKS = 3  # missed looks after which metrics show no value any more
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
        self._acting: Beside[str] = Beside()
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
            look = asyncio.create_task(self._look_and_log())
            await asyncio.wait({look, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not look.done():  # a look is short, unless Batch does not answer
                await asyncio.wait({look}, timeout=STOP_SECONDS)
                look.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await look
            self._looked = time.monotonic()
            await asyncio.wait({stopping}, timeout=self._settings.interval_seconds)
        await self._eyes.close()
        await self._acting.close()
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
        budget = await self._count(facts)
        await self._listen(facts)
        targets, late = self._decide(facts, budget)
        await self._keep(term, facts.now)  # before the first step: who takes over must know why there was none
        self._gauges.show(facts, targets, self._memory, self._accounts)
        problems = dict(facts.problems)
        try:
            problems |= await self._act(term, facts, targets)
        finally:
            await self._show(term, facts, targets, problems)
            await self._voice.say()
        await self._alert(late)
        return targets

    def _term(self) -> int | None:
        return 0 if self._settings.shadow else self._leader.term()

    async def _take_office(self, term: int, now: datetime) -> None:
        """Once in a term: what the leader before decided stands, what it learnt is known, its accounts go on."""
        if self._office != term:
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
        """Write what is counted; whoever leads next counts on from there."""
        if self._office is not None and not self._settings.shadow:
            await self._accounts.close(self._clock())
        self._office = None
        self._gauges.clear()

    async def _keep(self, term: int, now: datetime) -> None:
        """Write down what was learnt. Raises LostLeadership where a later leader has done so already."""
        if self._settings.shadow:
            return
        try:
            await self._keeper.keep(self._memory, term, now, time.monotonic())
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
        plan = planner.plan(self._settings, facts, self._memory, self._accounts.rates, budget)
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

    async def _act(self, term: int, facts: Facts, targets: dict[str, Target]) -> dict[str, str]:
        """Take every pool's steps, side by side; what went wrong, by pool. Raises LostLeadership.

        Steps that take long go on beside the looks: until they are done their pool gets no others.
        """
        if self._settings.shadow:
            return {}
        patience = self._settings.patience_seconds
        found = await asyncio.gather(
            *(
                self._acting.within(name, partial(self._act_on, term, facts, name, target), patience)
                for name, target in targets.items()
            ),
            return_exceptions=True,
        )
        problems, lost = {}, list[LostLeadership]()
        for name, outcome in zip(targets, found, strict=True):
            if isinstance(outcome, LostLeadership):
                lost.append(outcome)
            elif isinstance(outcome, TimeoutError):
                problems[name] = "steps are still under way: Batch takes its time"
            elif isinstance(outcome, Exception):  # whatever it is, the other pools' steps are taken
                log.error("pool %s: steps failed in a way nobody foresaw", name, exc_info=outcome)
                problems[name] = f"steps failed: {type(outcome).__name__}"
            elif isinstance(outcome, BaseException):
                raise outcome
            elif outcome:
                problems[name] = outcome
        if lost:
            raise lost[0]
        return problems

    async def _act_on(self, term: int, facts: Facts, name: str, target: Target) -> str:
        """One pool's steps; what went wrong, in words. Raises LostLeadership."""
        seen = facts.pools[name]
        try:
            if not await self._in_office(term, seen):
                return ""
            late = overdue(seen, facts.now, self._memory.pools[name].boot.p95)
            await self._carry_out(term, seen, steps(target, seen, late))
            await self._fleet.tidy(seen, facts.now)
        except (PoolChanged, PoolBusy) as error:
            log.info("pool %s changed meanwhile, the next look sees it: %s", name, error)
        except FleetError as error:
            log.warning("pool %s: %s", name, error)
            return str(error)
        return ""

    async def _carry_out(self, term: int, seen: PoolSeen, wanted: Sequence[Step]) -> None:
        """One after the other; where one fails, what only ends workers and nodes is done all the same.

        Raises LostLeadership, and FleetError for the first that failed.
        """
        failed: FleetError | None = None
        for step in wanted:
            self._must_lead(term)
            if failed is not None and isinstance(step, AddWorkers | Resize):
                continue  # nodes without workers would only cost
            log.info("pool %s: %s", seen.name, step)
            try:
                await self._fleet.carry_out(seen, step, f"{self._leader.name} term {term}")
            except (PoolChanged, Throttled):
                raise  # what was seen is not so any more, or Batch asked for a pause
            except FleetError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    async def _in_office(self, term: int, seen: PoolSeen) -> bool:
        """Whether the pool carries our term already. Raises LostLeadership where it carries a later one."""
        self._must_lead(term)
        if seen.term > term:
            self._leader.step_down(seen.term)
            raise LostLeadership(f"pool {seen.name} belongs to term {seen.term}, ours is {term}")
        if seen.term < term:
            await self._fleet.claim(seen, term)
            return False  # what was seen is out of date by our own claim: act on the next look
        return True

    def _must_lead(self, term: int) -> None:
        if self._leader.term() != term:
            raise LostLeadership(f"the lease of term {term} is not certain any more")

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
        self._accounts.waiting = tuple(
            Waiting(images=run.images, deadline=run.deadline) for run in facts.open_runs or ()
        )
        return await self._accounts.settle(facts.now)
