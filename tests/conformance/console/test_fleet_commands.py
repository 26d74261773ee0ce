"""scale, pause, resume, why, pools and quota on a ledger in Azurite."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fusebus.console.__main__ import fusebus
from fusebus.ledger import Controls, Decision, Ledger, LedgerSettings, PoolStatus, QuotaLine

Run = Callable[..., Result]


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def run(ledger_settings: LedgerSettings, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("FUSEBUS_LEDGER_CONNECTION", ledger_settings.connection.reveal())
    monkeypatch.setenv("FUSEBUS_LEDGER_TABLE_PREFIX", ledger_settings.table_prefix)
    monkeypatch.delenv("FUSEBUS_SETTINGS", raising=False)
    return lambda *arguments: CliRunner().invoke(fusebus, list(arguments))


@pytest.fixture
def looked(ledger_settings: LedgerSettings) -> None:
    """A dispatcher has looked at two pools and decided on one."""
    quota = [QuotaLine(region="uksouth", family="", spot=True, cores=0)]
    status = PoolStatus(
        pool="gpu", looked_at=now(), job_kind="detect", vm_size="Standard_NC4as_T4_v3", max_nodes=4, quota=quota
    )

    async def write() -> None:
        async with Ledger(ledger_settings) as ledger:
            await ledger.create_tables()
            await ledger.write_pool_status(status)
            await ledger.write_pool_status(PoolStatus(pool="cpu", looked_at=now(), job_kind="convert", vm_size="x"))
            decision = Decision(pool="gpu", decided_at=now(), nodes=1, workers=1, because="work", facts={"depth": 3})
            await ledger.write_decision(decision)

    asyncio.run(write())


def controls(settings: LedgerSettings) -> Controls:
    async def read() -> Controls:
        async with Ledger(settings) as ledger:
            return await ledger.controls(now())

    return asyncio.run(read())


def answer(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_pool_is_pinned_and_handed_back(run: Run, looked: None, ledger_settings: LedgerSettings) -> None:
    found = run("scale", "gpu", "3", "--until", "2h", "--reason", "a  demo\nfor all", "--by", "me")
    assert (found.exit_code, "pool gpu is pinned to 3 nodes until" in found.output) == (0, True)
    pin = controls(ledger_settings).pins["gpu"]
    assert (pin.nodes, pin.set_by, pin.reason) == (3, "me", "a demo for all")
    assert answer(run("scale", "gpu", "auto", "--json")) == {"pool": "gpu", "pinned": False, "was_pinned": True}
    assert "was not pinned" in run("scale", "gpu", "auto").output
    assert controls(ledger_settings).pins == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["scale", "gpu", "3"], "--until is missing"),
        (["scale", "gpu", "many", "--until", "2h"], "NODES is a number or `auto`"),
        (["scale", "gpu", "-1", "--until", "2h"], "No such option"),
        (["scale", "gpu", "5", "--until", "2h"], "at most 4 nodes"),
        (["scale", "gpu", "1", "--until", "soon"], "is no time"),
        (["scale", "gpu", "1", "--until", "2020-01-01"], "is over already"),
        (["scale", "gpu", "1", "--until", "99d"], "more than 31 days"),
        (["scale", "gpus", "1", "--until", "2h"], "known are cpu, gpu"),
        (["pause", "gpus"], "there is no pool 'gpus'"),
        (["resume", "gpus"], "there is no pool 'gpus'"),
        (["why", "--pool", "gpus"], "there is no pool 'gpus'"),
        (["why", "--at", "whenever"], "is no time"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_right(
    run: Run, looked: None, arguments: list[str], words: str
) -> None:
    found = run(*arguments)
    assert found.exit_code == 2
    assert words in found.output


def test_pauses_are_set_and_lifted_apart(run: Run, looked: None, ledger_settings: LedgerSettings) -> None:
    assert "pool gpu is emptied until fusebus resume" in run("pause", "gpu", "--to-zero").output
    assert "every pool is left as it is until" in run("pause", "--until", "1h", "--reason", "Batch works").output
    assert controls(ledger_settings).pauses["gpu"].to_zero
    assert "all pools are paused by" in run("resume", "gpu").output
    assert answer(run("resume", "--json")) == {"lifted": [""], "still_paused": False}
    assert "nothing was paused here" in run("resume").output
    assert controls(ledger_settings).pauses == {}


def test_why_tells_the_decision_its_numbers_and_what_holds(run: Run, looked: None) -> None:
    run("pause", "--reason", "maintenance", "--by", "ops")
    found = run("why", "--pool", "gpu")
    assert found.exit_code == 0
    for words in ("should have 1 node (0 dedicated, 1 Spot) and 1 worker", "because work", "3 messages", "maintenance"):
        assert words in found.output
    whole = answer(run("why", "--json"))
    assert [(one["pool"], len(one["decisions"])) for one in whole] == [("cpu", 0), ("gpu", 1)]


def test_why_before_anything_was_decided_ends_with_1(run: Run, looked: None) -> None:
    found = run("why", "--pool", "gpu", "--at", "1h")
    assert found.exit_code == 1
    assert "nothing was decided for pool gpu by" in found.output


def test_pools_and_quota_are_shown(run: Run, looked: None) -> None:
    found = run("pools")
    assert found.exit_code == 0
    assert "NC4as_T4_v3" in found.output and "cpu" in found.output
    assert [pool["pool"] for pool in answer(run("pools", "--json"))["pools"]] == ["cpu", "gpu"]
    found = run("quota")
    assert "Spot cores of all families: 0, so none can be bought" in found.output
    assert answer(run("quota", "--json"))["quota"][0]["cores"] == 0


def test_a_ledger_without_tables_is_an_error_with_a_way_out(run: Run) -> None:
    for arguments in (["pools"], ["quota"], ["why"], ["pause"], ["resume"], ["scale", "gpu", "1", "--until", "1h"]):
        found = run(*arguments)
        assert found.exit_code == 1, arguments
        assert "is the stack up" in found.output
