"""Several Batch accounts as one: each pool is read and changed in its own, and none waits for another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from types import TracebackType
from typing import Self

from fusebus.dispatcher.adapters.batch import BatchFleet
from fusebus.dispatcher.errors import FleetError
from fusebus.dispatcher.quota import Quota
from fusebus.dispatcher.seen import PoolSeen
from fusebus.dispatcher.settings import DispatcherSettings
from fusebus.dispatcher.steps import Step

log = logging.getLogger(__name__)


class Fleets:
    """All pools, wherever they are. Every method raises FleetError and nothing of azure's."""

    def __init__(self, settings: DispatcherSettings) -> None:
        self._accounts = {account.name: BatchFleet(settings, account) for account in settings.all_accounts}
        self._of: Mapping[str, BatchFleet] = {pool.name: self._accounts[pool.batch] for pool in settings.all_pools}
        self._closing = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for fleet in self._accounts.values():
            await self._closing.enter_async_context(fleet)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._closing.aclose()

    async def ensure(self) -> None:
        """Make what is missing, wherever it can be; an account out of reach is left to its pools' next reading."""
        found = await asyncio.gather(*(one.ensure() for one in self._accounts.values()), return_exceptions=True)
        for name, error in zip(self._accounts, found, strict=True):
            if isinstance(error, FleetError):
                log.warning("account %s is not ready, each look tries again: %s", name, error)
            elif error is not None:
                raise error

    async def read(self, name: str) -> PoolSeen:
        """One pool as it is."""
        return await self._of[name].read(name)

    async def claim(self, seen: PoolSeen, term: int) -> None:
        """Leave our term on the pool."""
        await self._of[seen.name].claim(seen, term)

    async def carry_out(self, seen: PoolSeen, step: Step, author: str) -> None:
        """Do one step on what was seen."""
        await self._of[seen.name].carry_out(seen, step, author)

    async def tidy(self, seen: PoolSeen, now: datetime) -> None:
        """Delete old worker tasks."""
        await self._of[seen.name].tidy(seen, now)

    async def quota(self, account: str) -> Quota:
        """What one account may have."""
        return await self._accounts[account].quota()

    async def node_log(self, name: str, node_id: str) -> str:
        """The end of a node's start task log."""
        return await self._of[name].node_log(name, node_id)

    async def worker_log(self, name: str, task_id: str) -> str:
        """The end of a worker's log."""
        return await self._of[name].worker_log(name, task_id)
