"""Takes the steps of every pool, side by side, as long as we lead: one pool's trouble leaves the others alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import partial

from fusebus.dispatcher.beside import Beside
from fusebus.dispatcher.errors import FleetError, LostLeadership, PoolBusy, PoolChanged, Throttled
from fusebus.dispatcher.facts import Facts
from fusebus.dispatcher.memory import Memory, PoolMemory
from fusebus.dispatcher.ports import Leader, Nodes
from fusebus.dispatcher.seen import PoolSeen
from fusebus.dispatcher.settings import DispatcherSettings
from fusebus.dispatcher.steps import AddWorkers, Resize, Step, Target, overdue, steps

log = logging.getLogger(__name__)


class Hands:
    """Leadership is asked for again before each single step."""

    def __init__(self, settings: DispatcherSettings, fleet: Nodes, leader: Leader) -> None:
        self._settings, self._fleet, self._leader = settings, fleet, leader
        self._under_way: Beside[str] = Beside()

    async def close(self) -> None:
        """End what is under way: its outcome is seen by the next look, whoever takes it."""
        await self._under_way.close()

    async def act(self, term: int, facts: Facts, targets: Mapping[str, Target], memory: Memory) -> dict[str, str]:
        """Take every pool's steps, side by side; what went wrong, by pool. Raises LostLeadership.

        Steps that take long go on beside the looks: until they are done their pool gets no others.
        """
        patience = self._settings.patience_seconds
        found = await asyncio.gather(
            *(
                self._under_way.within(
                    name, partial(self._act_on, term, facts, target, memory.pools[name], name), patience
                )
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

    async def _act_on(self, term: int, facts: Facts, target: Target, memory: PoolMemory, name: str) -> str:
        """One pool's steps; what went wrong, in words. Raises LostLeadership."""
        seen = facts.pools[name]
        try:
            if not await self._in_office(term, seen):
                return ""
            late = overdue(seen, facts.now, memory.boot.p95)
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
