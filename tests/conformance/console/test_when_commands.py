"""`fusebus supplier add|set --when` on a ledger in Azurite."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fusebus.console.__main__ import fusebus
from fusebus.ledger import Ledger, LedgerSettings

Run = Callable[..., Result]


@pytest.fixture
def run(ledger_settings: LedgerSettings, monkeypatch: pytest.MonkeyPatch) -> Run:
    for section in ("LEDGER", "BLOBS"):
        monkeypatch.setenv(f"FUSEBUS_{section}_CONNECTION", ledger_settings.connection.reveal())
    monkeypatch.setenv("FUSEBUS_LEDGER_TABLE_PREFIX", ledger_settings.table_prefix)
    monkeypatch.delenv("FUSEBUS_SETTINGS", raising=False)

    async def create() -> None:
        async with Ledger(ledger_settings) as ledger:
            await ledger.create_tables()

    asyncio.run(create())
    return lambda *arguments: CliRunner().invoke(fusebus, ["supplier", *arguments])


def answer(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_when_a_suppliers_photos_are_processed_is_set_by_job_kind_and_unset(run: Run, supplier: str) -> None:
    added = answer(run("add", supplier, "--when", "windows", "--when", "convert=off-peak  22:00-06:00", "--json"))
    assert added["when"] == {"any": "windows", "convert": "off-peak 22:00-06:00"}
    assert "processed any: windows; convert: off-peak 22:00-06:00" in run("show", supplier).output
    changed = answer(run("set", supplier, "--when", "detect=on-command", "--json"))
    assert changed["when"] == {"detect": "on-command"}, "all of it anew"
    assert answer(run("set", supplier, "--unset", "when", "--json"))["when"] == {}
    assert answer(run("show", supplier, "--json"))["supplier"]["when"] == {}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("sometimes", "begins with none of at-once, windows, off-peak, on-command"),
        ("windows 25:00", "windows is followed by 02:00,08:00 Europe/London"),
        ("windows 02:00 Europe/Atlantis", "there is no time zone 'Europe/Atlantis'"),
        ("dream=windows", "'dream' is none of any, detect, convert"),
    ],
)
def test_a_timing_that_says_nothing_ends_with_2_and_says_what_is_right(
    run: Run, supplier: str, given: str, words: str
) -> None:
    found = run("add", supplier, "--when", given)
    assert (found.exit_code, words in found.output) == (2, True), found.output
