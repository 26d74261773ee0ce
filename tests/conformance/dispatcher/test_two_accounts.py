"""Pools in two Batch accounts of two regions: each is read, bought in and counted by itself, side by side."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from dispatcher_world import World

from fusebus.dispatcher.adapters import Fleets
from fusebus.dispatcher.loop import Dispatcher
from fusebus.dispatcher.settings import BatchAccount, DispatcherSettings, PoolEntry
from fusebus.host import SettingsError, load_settings
from fusebus.localbatch import AccountLimits, LocalBatch, LocalBatchOptions

Settings = Callable[..., DispatcherSettings]
Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
LIMITS = AccountLimits(boot_seconds=0.2, leave_seconds=0.05)
HASTE = {"deadline_seconds": 60, "boot_seconds": 0.5, "margin_seconds": 0.5, "settle_seconds": 0.1}


@pytest.fixture
async def north(tmp_path: Path) -> AsyncIterator[LocalBatch]:
    async with LocalBatch(LocalBatchOptions(work_dir=tmp_path / "north", limits=LIMITS, location="uksouth")) as batch:
        yield batch


@pytest.fixture
async def south(tmp_path: Path) -> AsyncIterator[LocalBatch]:
    async with LocalBatch(
        LocalBatchOptions(work_dir=tmp_path / "south", limits=LIMITS, location="westeurope")
    ) as batch:
        yield batch


@pytest.fixture
def chosen(settings_for: Settings, north: LocalBatch, south: LocalBatch) -> DispatcherSettings:
    return settings_for(
        batch_url="",
        accounts=[
            BatchAccount(name="north", batch_url=north.url, region="uksouth"),
            BatchAccount(name="south", batch_url=south.url, region="westeurope"),
        ],
        pools=[PoolEntry(name="t4-north"), PoolEntry(name="t4-south", batch="south")],
        **HASTE,
    )


def dispatcher_of(settings: DispatcherSettings, fleets: Fleets, world: World) -> Dispatcher:
    return Dispatcher(settings, world, world, world, fleets, world)


async def test_each_pool_lives_in_its_own_account_and_quotas_are_apart(
    chosen: DispatcherSettings, north: LocalBatch, south: LocalBatch
) -> None:
    south.inject("quota", spot=8)
    async with Fleets(chosen) as fleets:
        await fleets.ensure()
        world = World(active=0)
        await dispatcher_of(chosen, fleets, world).look()
    assert (set(north.state.pools), set(south.state.pools)) == ({"t4-north"}, {"t4-south"})
    shown = {name: status.quota[0] for name, status in world.statuses.items()}
    assert {name: line.region for name, line in shown.items()} == {
        "t4-north": "uksouth (north)",
        "t4-south": "westeurope (south)",
    }
    assert shown["t4-south"].cores == 8 != shown["t4-north"].cores


async def test_what_one_region_has_not_the_other_sells(
    chosen: DispatcherSettings, north: LocalBatch, south: LocalBatch, until: Until
) -> None:
    north.inject("quota", spot=0)
    world = World(active=40)
    async with Fleets(chosen) as fleets:
        dispatcher = dispatcher_of(chosen, fleets, world)
        await dispatcher.begin()

        async def bought() -> bool:
            await dispatcher.look()
            return bool(south.state.runs)

        await until(bought)
    assert not north.state.pool("t4-north").nodes_made
    assert {sample.pool for sample in world.samples if sample.node_seconds} <= {"t4-south"}


@pytest.mark.parametrize("trouble", ["silent", "gone"])
async def test_an_account_out_of_reach_holds_up_nothing_in_the_other(
    chosen: DispatcherSettings, north: LocalBatch, south: LocalBatch, until: Until, trouble: str
) -> None:
    accounts = list(chosen.accounts)
    if trouble == "gone":
        accounts[0] = BatchAccount(name="north", batch_url="http://127.0.0.1:9", region="uksouth")
    else:
        north.inject("delay", seconds=30.0, for_seconds=60.0)
    settings = msgspec.structs.replace(chosen, accounts=accounts, patience_seconds=0.5, request_seconds=3.0)
    world, longest = World(active=40), 0.0
    async with Fleets(settings) as fleets:
        dispatcher = dispatcher_of(settings, fleets, world)

        async def bought() -> bool:
            nonlocal longest
            began = time.monotonic()
            await dispatcher.look()
            longest = max(longest, time.monotonic() - began)
            return bool(south.state.runs)

        await until(bought)
        stop = asyncio.Event()
        stop.set()
        await dispatcher.run(stop)
    assert longest < 3.0
    assert "t4-north" not in world.statuses


async def test_an_account_that_comes_back_gets_its_pool_and_job_made_then(
    chosen: DispatcherSettings, north: LocalBatch, south: LocalBatch
) -> None:
    north.inject("error", status=503, next=2)
    world = World(active=0)
    async with Fleets(chosen) as fleets:
        dispatcher = dispatcher_of(chosen, fleets, world)
        await dispatcher.begin()
        assert "t4-north" not in north.state.pools
        for plane in (fleets._accounts["north"]._management, fleets._accounts["north"]._nodes):
            plane._closed_until = 0.0
        for _ in range(3):
            await dispatcher.look()
            for plane in (fleets._accounts["north"]._management, fleets._accounts["north"]._nodes):
                plane._closed_until = 0.0
    assert "t4-north" in north.state.pools and "t4-north-workers" in north.state.jobs


@pytest.mark.parametrize(
    ("accounts", "pools", "said"),
    [
        ('[{"name": "a"}]', "[]", "a: need batch_endpoint"),
        ('[{"name": "a", "batch_url": "http://x"}, {"name": "a", "batch_url": "http://y"}]', "[]", "twice"),
        ('[{"name": "a", "batch_url": "http://x"}]', '[{"name": "p", "batch": "b"}]', "which is none of a"),
        ('[{"name": "a", "batch_url": "http://x", "regio": "y"}]', "[]", "FUSEBUS_DISPATCHER_ACCOUNTS"),
    ],
)
def test_wrong_accounts_are_named(accounts: str, pools: str, said: str) -> None:
    environment = {"FUSEBUS_DISPATCHER_ACCOUNTS": accounts, "FUSEBUS_DISPATCHER_POOLS": pools}
    with pytest.raises(SettingsError, match=said):
        load_settings(DispatcherSettings, "dispatcher", environment)


def test_an_account_of_the_single_settings_is_the_home_of_pools_that_name_none() -> None:
    environment = {
        "FUSEBUS_DISPATCHER_BATCH_URL": "http://localhost:1",
        "FUSEBUS_DISPATCHER_ACCOUNTS": '[{"name": "we", "batch_url": "http://localhost:2", "region": "westeurope"}]',
        "FUSEBUS_DISPATCHER_POOLS": '[{"name": "a"}, {"name": "b", "batch": "we"}, {"name": "c", "batch": "local"}]',
    }
    found = load_settings(DispatcherSettings, "dispatcher", environment).all_pools
    assert [(pool.batch, pool.region) for pool in found] == [("local", ""), ("we", "westeurope"), ("local", "")]


def test_the_accounts_of_the_documentation_are_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "dispatcher.md").read_text()
    file = tmp_path / "settings.toml"
    file.write_text(page.partition("```toml\n[[dispatcher.accounts]]")[2].partition("```")[0])
    file.write_text("[[dispatcher.accounts]]" + file.read_text())
    found = load_settings(DispatcherSettings, "dispatcher", {"FUSEBUS_SETTINGS": str(file)})
    (account,), (pool,) = found.all_accounts, found.all_pools
    assert (account.account, pool.batch, pool.region) == ("fusebuswest", "west", "westeurope")
