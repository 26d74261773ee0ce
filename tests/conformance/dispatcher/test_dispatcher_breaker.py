"""Nodes that never work, on a local Batch: the breaker opens, says why with the node's own words, and outlives us."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from dispatcher_world import World

from fusebus.dispatcher.adapters import Fleets
from fusebus.dispatcher.loop import Dispatcher
from fusebus.dispatcher.settings import DispatcherSettings
from fusebus.ledger import Ledger, LedgerSettings
from fusebus.localbatch import LocalBatch

MOST_BROKEN = 3


@pytest.mark.parametrize(("fault", "said"), [("start-task", "injected failure"), ("unusable", "")])
@pytest.mark.long
async def test_nodes_that_break_stop_the_buying_also_of_the_next_dispatcher(
    batch: LocalBatch,
    settings_for: Callable[..., DispatcherSettings],
    ledger_settings: LedgerSettings,
    until: Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]],
    fault: str,
    said: str,
) -> None:
    chosen = settings_for(
        max_nodes=1, boot_seconds=0.5, settle_seconds=0.1, deadline_seconds=30, most_broken_nodes=MOST_BROKEN
    )
    world = World(active=20)

    async def breaker(ledger: Ledger) -> str:
        return next((status.breaker for status in await ledger.pool_statuses()), "")

    async with Ledger(ledger_settings) as ledger, Fleets(chosen) as fleets:
        await ledger.create_tables()
        dispatcher = Dispatcher(chosen, world, world, ledger, fleets, world)
        await dispatcher.begin()
        batch.state.update_pool("gpu", {"startTask": {"commandLine": "true", "waitForSuccess": True}})
        batch.inject(fault, pool="gpu", next=100)

        async def open_() -> bool:
            await dispatcher.look()
            return bool(await breaker(ledger))

        await until(open_)
        made = batch.state.pool("gpu").nodes_made
        assert made <= MOST_BROKEN + 1
        words = await breaker(ledger)
        assert f"{MOST_BROKEN} nodes in a row turned out unusable" in words and "last words of" in words
        assert said in words
        decisions = await ledger.decisions("gpu", 1)
        assert "turned out unusable" in decisions[0].because
        again = Dispatcher(chosen, world, world, ledger, fleets, world)
        for _ in range(5):
            await again.look()
        assert batch.state.pool("gpu").nodes_made == made, "a new process bought what does not work"


async def test_a_command_that_fails_at_once_is_not_started_for_ever(
    batch: LocalBatch,
    settings_for: Callable[..., DispatcherSettings],
    ledger_settings: LedgerSettings,
    until: Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]],
) -> None:
    command = "sh -c 'echo no such model AccountKey=abc123 >&2; exit 3'"
    chosen = settings_for(
        worker_command=command, max_nodes=1, boot_seconds=0.5, settle_seconds=0.1, deadline_seconds=30, most_failures=3
    )
    world, found = World(active=20), dict[str, Any]()
    async with Ledger(ledger_settings) as ledger, Fleets(chosen) as fleets:
        await ledger.create_tables()
        dispatcher = Dispatcher(chosen, world, world, ledger, fleets, world)
        await dispatcher.begin()

        async def open_() -> bool:
            await dispatcher.look()
            found["status"] = next(iter(await ledger.pool_statuses()), None)
            return bool(found["status"] and found["status"].breaker)

        await until(open_)
        tasks = len(batch.state.job("workers").tasks)
        for _ in range(5):
            await dispatcher.look()
        assert len(batch.state.job("workers").tasks) == tasks
    assert "3 workers failed within 120 s" in found["status"].breaker
    assert "no such model" in found["status"].breaker and "abc123" not in found["status"].breaker
