"""People's commands and the dispatcher, over real tables and a local Batch: what is ordered is done, and explained."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import CliRunner, Result
from dispatcher_world import World

from fusebus.console.__main__ import fusebus
from fusebus.dispatcher.adapters import Fleets
from fusebus.dispatcher.loop import Dispatcher
from fusebus.dispatcher.settings import DispatcherSettings
from fusebus.ledger import Ledger, LedgerSettings
from fusebus.localbatch import LocalBatch

DONE, NOTHING, USAGE = 0, 1, 2


@dataclass
class Desk:
    """A dispatcher that looks when told to, and a person with a terminal."""

    dispatcher: Dispatcher
    world: World
    batch: LocalBatch

    async def run(self, *words: str, exit_code: int = DONE) -> Result:
        result = await asyncio.to_thread(CliRunner().invoke, fusebus, list(words))
        assert result.exit_code == exit_code, result.output
        return result

    async def json(self, *words: str, exit_code: int = DONE) -> Any:
        return json.loads((await self.run(*words, "--json", exit_code=exit_code)).stdout)


@pytest.fixture
async def desk(
    batch: LocalBatch,
    settings_for: Callable[..., DispatcherSettings],
    ledger_settings: LedgerSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Desk]:
    monkeypatch.setenv("FUSEBUS_LEDGER_CONNECTION", ledger_settings.connection.reveal())
    monkeypatch.setenv("FUSEBUS_LEDGER_TABLE_PREFIX", ledger_settings.table_prefix)
    chosen = settings_for(max_nodes=3, boot_seconds=0.5, settle_seconds=0.1, deadline_seconds=30)
    world = World(active=0)
    async with Ledger(ledger_settings) as ledger, Fleets(chosen) as fleets:
        await ledger.create_tables()
        dispatcher = Dispatcher(chosen, world, world, ledger, fleets, world)
        await dispatcher.begin()
        yield Desk(dispatcher, world, batch)


async def looks_until(desk: Desk, until: Callable[..., Awaitable[None]], holds: Callable[[], bool]) -> None:
    async def look() -> bool:
        await desk.dispatcher.look()
        return holds()

    await until(look)


async def test_before_any_dispatcher_looked_every_command_says_so(desk: Desk) -> None:
    assert "no dispatcher has looked" in (await desk.run("pools")).output
    assert "no dispatcher has read a quota" in (await desk.run("quota")).output
    await desk.run("why", exit_code=NOTHING)
    assert "there is no pool 'gpu'" in (await desk.run("scale", "gpu", "1", "--until", "1h", exit_code=USAGE)).output


async def test_a_pin_is_carried_out_explained_and_taken_back(desk: Desk, until: Any) -> None:
    await desk.dispatcher.look()
    said = await desk.json("scale", "gpu", "2", "--until", "90m", "--reason", "a demo", "--by", "ops")
    assert said["pin"]["nodes"] == 2
    await looks_until(desk, until, lambda: len(desk.batch.state.pool("gpu").nodes) == 2)
    why = (await desk.run("why", "--pool", "gpu")).output
    assert "pinned to 2 nodes by ops" in why and "a demo" in why
    (pool,) = (await desk.json("pools"))["pools"]
    assert (pool["wanted_spot"], pool["term"], pool["leader"]) == (2, 1, "tester")
    assert "pinned" in (await desk.run("pools")).output
    assert "dispatcher's again" in (await desk.run("scale", "gpu", "auto")).output
    await looks_until(desk, until, lambda: not desk.batch.state.pool("gpu").nodes)


async def test_a_pause_holds_still_the_kill_switch_empties_and_resume_lifts_both(desk: Desk, until: Any) -> None:
    desk.world.active = 50
    await looks_until(desk, until, lambda: bool(desk.batch.state.runs))
    await desk.run("pause", "gpu", "--until", "2h", "--reason", "maintenance")
    desk.world.active = 0
    await desk.dispatcher.look()
    assert "paused by" in (await desk.run("why")).output
    assert desk.batch.state.runs
    await desk.run("pause", "--to-zero", "--reason", "driver bug")
    await looks_until(desk, until, lambda: not desk.batch.state.runs and not desk.batch.state.pool("gpu").nodes)
    assert (await desk.json("pools"))["pools"][0]["mode"] == "emptied"
    lifted = await desk.json("resume")
    assert sorted(lifted["lifted"]) == ["", "gpu"]
    await desk.dispatcher.look()
    assert (await desk.json("pools"))["pools"][0]["mode"] == "acting"
    assert "nothing was paused" in (await desk.run("resume")).output


async def test_the_decision_of_a_moment_is_found_with_its_numbers(desk: Desk, until: Any) -> None:
    before = datetime.now(UTC)
    desk.world.active = 50
    await looks_until(desk, until, lambda: bool(desk.batch.state.runs))
    (found,) = await desk.json("why", "--pool", "gpu")
    assert found["decisions"][0]["facts"]["depth"] == 50
    text = (await desk.run("why", "--pool", "gpu")).output
    for words in ("50 detect images", "50 messages of detect", "quota of 12 spot cores", "GBP an hour", "budget"):
        assert words in text
    await desk.run("why", "--at", f"{before:%Y-%m-%dT%H:%M}", exit_code=NOTHING)
    await desk.run("why", "--at", "yesterday", exit_code=USAGE)


async def test_the_quota_is_shown_as_it_was_read_and_said_where_it_is_0(desk: Desk) -> None:
    await desk.dispatcher.look()
    (line,) = (await desk.json("quota"))["quota"]
    assert (line["spot"], line["cores"], line["used"]) == (True, 12, 0)
    desk.batch.inject("quota", nodes=0)
    desk.dispatcher._eyes._quota_until = {"local": 0.0}
    await desk.dispatcher.look()
    assert "none can be bought; ask Azure for more" in (await desk.run("quota")).output


async def test_a_shadow_is_explained_beside_the_leader_and_touches_nothing(
    desk: Desk, settings_for: Callable[..., DispatcherSettings], ledger_settings: LedgerSettings
) -> None:
    await desk.dispatcher.look()
    chosen, watcher = settings_for(shadow=True, max_nodes=1), World(active=50, leads=None)
    async with Ledger(ledger_settings) as ledger, Fleets(chosen) as fleets:
        shadow = Dispatcher(chosen, watcher, watcher, ledger, fleets, watcher)
        await shadow.begin()
        await shadow.look()
    (found,) = await desk.json("why", "--shadow")
    assert (found["pool"], found["decisions"][0]["mode"], found["decisions"][0]["nodes"]) == ("gpu:shadow", "shadow", 1)
    assert "50 detect images" in (await desk.run("why", "--shadow")).output
    assert desk.batch.state.pool("gpu").nodes_made == 0 and not desk.batch.state.job("workers").tasks


async def test_what_can_not_be_ends_with_exit_code_2_and_changes_nothing(desk: Desk) -> None:
    await desk.dispatcher.look()
    for words in (
        "scale gpu two --until 1h",
        "scale gpu 2",
        "scale gpu 9 --until 1h",
        "scale gpu 1 --until 60d",
        "pause nobody",
        "resume nobody",
        "pools --wrong",
    ):
        await desk.run(*words.split(), exit_code=USAGE)
    controls = (await desk.json("pools"))["controls"]
    assert controls == {"pins": {}, "pauses": {}}


async def test_a_ledger_out_of_reach_ends_with_exit_code_1(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    away = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YQ==;TableEndpoint=http://127.0.0.1:9/a;"
    monkeypatch.setenv("FUSEBUS_LEDGER_CONNECTION", away)
    monkeypatch.setenv("FUSEBUS_LEDGER_RETRIES", "0")
    for words in (["why"], ["pools"], ["quota"], ["scale", "gpu", "1", "--until", "1h"], ["pause"], ["resume"]):
        assert "the ledger can't be reached" in (await desk.run(*words, exit_code=NOTHING)).output
