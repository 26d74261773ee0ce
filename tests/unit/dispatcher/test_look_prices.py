"""What a look makes of prices that change with the hour, and of pools in several regions."""

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from dispatcher_world import NOW, World, dispatcher_in, empty

from fusebus.costs import DailyHours, DailyPrice, Term, save_prices, starting_prices
from fusebus.costs.settings import CostSettings
from fusebus.dispatcher.quota import Quota
from fusebus.dispatcher.seen import PoolSeen
from fusebus.dispatcher.settings import BatchAccount, PoolEntry
from fusebus.dispatcher.steps import Resize


@pytest.fixture
def night(tmp_path: Path) -> CostSettings:
    """Spot is cheap from an hour after the first look on."""
    price = DailyPrice(
        vm_size="Standard_NC4as_T4_v3", region="uksouth", term=Term.SPOT, per_hour=0.02,
        hours=DailyHours(begins="01:00", ends="05:00"),
    )  # fmt: skip
    save_prices(msgspec.structs.replace(starting_prices(), daily=(price,)), tmp_path / "prices.json")
    return CostSettings(price_file=str(tmp_path / "prices.json"), currency="USD")


async def test_work_that_has_time_waits_for_the_night_and_is_bought_when_it_comes(night: CostSettings) -> None:
    world = World(active=4000)
    dispatcher = dispatcher_in(world, costs=night, deadline_seconds=8 * 3600.0)
    found = await dispatcher.look()
    assert found["gpu"].nodes == 0
    assert "a lower price comes in 60 min" in found["gpu"].because
    world.now = NOW + timedelta(hours=1)
    await dispatcher.look()  # sees the price, which holds from this look on
    world.now += timedelta(seconds=15)
    assert (await dispatcher.look())["gpu"].spot == 1
    assert world.written[-1].facts["price_spot"] == 0.02


async def test_work_that_is_due_before_the_night_is_bought_at_once(night: CostSettings) -> None:
    world = World(active=1000)
    assert (await dispatcher_in(world, costs=night, deadline_seconds=1800.0).look())["gpu"].spot >= 1


async def test_another_regions_account_takes_over_where_home_has_no_quota() -> None:
    class Regions(World):
        async def quota(self, account: str) -> Quota:
            home = account == "home"
            region, cores = ("uksouth", 0) if home else ("westeurope", 100)
            return Quota(region=region, spot=cores, dedicated=cores)

    world = Regions(pools={"t4": empty("t4"), "t4-far": empty("t4-far")}, active=500)
    accounts = [
        BatchAccount(name="home", batch_url="http://localhost:1", region="uksouth"),
        BatchAccount(name="far", batch_url="http://localhost:2", region="westeurope"),
    ]
    pools = [PoolEntry(name="t4", batch="home"), PoolEntry(name="t4-far", batch="far")]
    found = await dispatcher_in(world, accounts=accounts, pools=pools, max_nodes=5).look()
    assert (found["t4"].nodes, found["t4-far"].spot) == (0, 1)
    assert "westeurope" in found["t4-far"].because
    assert Resize(0, 1) in world.steps


async def test_spot_that_is_refused_at_home_is_bought_in_the_other_region() -> None:
    asked = NOW - timedelta(minutes=5)
    refused = PoolSeen(name="t4", steady=True, term=1, target_spot=1, resized_at=asked, shortfall="AllocationFailed")
    world = World(pools={"t4": refused, "t4-far": empty("t4-far")}, active=500)
    accounts = [
        BatchAccount(name="home", batch_url="http://localhost:1", region="uksouth"),
        BatchAccount(name="far", batch_url="http://localhost:2", region="westeurope"),
    ]
    pools = [PoolEntry(name="t4", batch="home"), PoolEntry(name="t4-far", batch="far")]
    found = await dispatcher_in(world, accounts=accounts, pools=pools, max_nodes=5).look()
    assert (found["t4"].nodes, found["t4-far"].spot) == (0, 1)
