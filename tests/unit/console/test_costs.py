"""`fusebus cost`, `prices` and `estimate`: what they print, for people and for machines."""

import asyncio
import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from fusebus.console.__main__ import fusebus
from fusebus.console.accounts import Accounts
from fusebus.console.costs import as_csv_text, as_json_object, tables
from fusebus.costs.drift import Billed, Metered, compare, total
from fusebus.costs.spending import By, Line, Report


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(fusebus, [str(argument) for argument in arguments])


@pytest.mark.parametrize("name", [["cost"], ["estimate"], ["prices"], ["prices", "show"], ["prices", "refresh"]])
def test_every_command_explains_itself_with_an_example_and_its_exit_codes(run, name: list[str]) -> None:
    result = run(*name, "--help")
    assert result.exit_code == 0
    assert "Example: fusebus" in result.output and "Exit codes:" in result.output


def test_the_price_list_is_shown_with_date_currency_source_and_doubts(run) -> None:
    shown = run("prices", "show", "--region", "uksouth", "--currency", "GBP").output
    assert "NC4as_T4_v3        4  28 uksouth   ~0.4859 ~0.1422" in shown
    assert "2025-01-01, GBP an hour. Starting list" in shown
    assert "westeurope " not in shown
    listed = json.loads(run("prices", "show", "--size", "NC4as_T4_v3", "--json").output)
    assert (listed["currency"], listed["date"], len(listed["prices"])) == ("USD", "2025-01-01", 16)
    assert "can be turned into" in run("prices", "show", "--currency", "XXX").output


async def test_a_refreshed_list_is_written_and_then_used(run, retail_prices, monkeypatch) -> None:
    monkeypatch.setenv("FUSEBUS_COSTS_RETAIL_PRICES_URL", retail_prices.url)
    result = await asyncio.to_thread(run, "prices", "refresh", "--currency", "USD", "--region", "eastus")
    assert result.exit_code == 0, result.output
    assert "8 prices written to .fusebus/prices.json" in result.output
    assert "the API has no price for: NC24ads_A100_v4 eastus dedicated" in result.output
    assert "FUSEBUS_COSTS_PRICE_FILE=.fusebus/prices.json" in result.output
    monkeypatch.setenv("FUSEBUS_COSTS_PRICE_FILE", ".fusebus/prices.json")
    assert "eastus 0.5000 0.1500 0.3000 0.2000" in " ".join(run("prices", "show").output.split())
    assert "read 20" in run("prices", "show").output


async def test_a_refresh_that_fails_leaves_the_list_as_it_is(run, retail_prices, monkeypatch) -> None:
    monkeypatch.setenv("FUSEBUS_COSTS_RETAIL_PRICES_URL", retail_prices.url)
    retail_prices.items = []
    result = await asyncio.to_thread(run, "prices", "refresh", "--currency", "USD", "--region", "eastus")
    assert result.exit_code == 1 and "has no price for" in result.output
    assert not Path(".fusebus").exists()


def test_an_estimate_compares_and_explains(run) -> None:
    result = run("estimate", "--images-per-day", 500, "--megapixels", 12, "--against", "40-80")
    assert result.exit_code == 0, result.output
    assert "15,000 images a month of 12 megapixels in uksouth" in result.output
    for words in ("Spot", "dedicated", "always on", "reserved 1 year", "reserved 3 years", "assumed: prices of 2025"):
        assert words in result.output
    assert "40 to 80 GBP for 15,000 images: 0.0027 to 0.0053 an image" in result.output
    found = json.loads(run("estimate", "--images-per-day", 500, "--size", "NC4as_T4_v3", "--json").output)
    assert len(found["ways"]) == 5 and found["explained"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["estimate"], "Missing option '--images-per-day'"),
        (["estimate", "--images-per-day", "5", "--size", "NC6s_v3"], "not known here"),
        (["estimate", "--images-per-day", "5", "--against", "x"], "is not LOW-HIGH"),
        (["cost", "--month", "November"], "is not YYYY-MM"),
        (["cost", "--month", "2026-1"], "is not YYYY-MM"),
        (["cost", "--json", "--csv"], "exclude each other"),
        (["cost", "--by", "weather"], "Invalid value for '--by'"),
        (["cost", "--read-bill"], "FUSEBUS_COSTS_BILL_SCOPE"),
    ],
)
def test_wrong_usage_ends_with_exit_code_2_and_says_what_is_wrong(run, arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2 and said in result.output


@pytest.fixture
def accounts() -> Accounts:
    lines = (
        Line(name="2026-11-17", cost=10.5, nodes=10.0, node_hours=20.0, images=100),
        Line(name="=cmd|x", cost=1.0, nodes=1.0),
    )
    metered = {"2026-11-17": Metered(nodes=10, services=0.5), "2026-11-20": Metered(nodes=1)}
    bill = [Billed(day="2026-11-17", service="Virtual Machines", cost=12.5, currency="GBP")]
    drift, _ = compare(metered, bill, "GBP", datetime(2026, 11, 21, tzinfo=UTC).date())
    return Accounts(
        report=Report(
            month="2026-11",
            by=By.DAY,
            currency="GBP",
            lines=lines,
            total=Line(name="total", cost=11.5, nodes=11.0, node_hours=20, images=100),
            other_currencies=("USD",),
        ),
        forecast=20.0,
        budget=40.0,
        alerts=("1-of-40-GBP",),
        capped=True,
        drift=tuple(drift),
        nodes_drift=total(drift, "2026-11", "nodes"),
        services_drift=total(drift, "2026-11", "services"),
        bill_read_at=datetime(2026, 11, 21, 3, tzinfo=UTC),
        bill_currencies=(),
    )


def printed(accounts: Accounts) -> str:
    console = Console(width=120, file=io.StringIO())
    console.print(tables(accounts))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_people_see_cost_per_image_forecast_budget_and_drift(accounts: Accounts) -> None:
    shown = printed(accounts)
    for words in (
        "2026-11-17 10.50 10.00     0.50 20.00    100   0.1050  12.50 +25% !",
        "forecast for the whole month: 20.00 GBP",
        "budget: 29% of 40.00 GBP; alerts told: 1-of-40-GBP",
        "no new nodes until it is raised, or until 1 December 2026 00:00 UTC",
        "left out: samples in USD",
        "nodes: 12.50 billed, 10.00 metered by then (+25%)",
    ):
        assert words in shown, shown


def test_a_day_that_is_billed_but_not_metered_at_all_has_its_row(accounts: Accounts) -> None:
    billed = [Billed(day="2026-11-16", service="Virtual Machines", cost=7.5, currency="GBP")]
    drift, _ = compare({}, billed, "GBP", datetime(2026, 11, 21, tzinfo=UTC).date())
    shown = printed(msgspec.structs.replace(accounts, drift=(*accounts.drift, *drift)))
    assert "2026-11-16 0.00 0.00 0.00 0.00 0 7.50 !" in " ".join(shown.split())


def test_json_has_what_the_tables_have(accounts: Accounts) -> None:
    found = json.loads(msgspec.json.encode(as_json_object(accounts)))
    assert [line["per_image"] for line in found["report"]["lines"]] == [0.105, None]
    assert found["report"]["total"]["per_image"] == 0.115
    day, other = (line for line in found["drift"] if line["kind"] == "nodes")
    assert (day["drift"], day["share"], day["worth_a_look"]) == (2.5, 0.25, True)
    assert (other["drift"], other["share"], other["worth_a_look"]) == (None, None, False)
    assert found["nodes_drift"]["share"] == 0.25 and found["services_drift"]["drift"] == -0.5
    assert found["forecast"] == 20.0 and found["report"]["lines"][0]["name"] == "2026-11-17"


def test_csv_has_plain_numbers_and_no_formulas(accounts: Accounts) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv_text(accounts))))
    assert rows[0]["day"] == "2026-11-17" and float(rows[0]["cost_per_image"]) == 0.105
    assert rows[1]["day"] == "'=cmd|x" and rows[1]["cost_per_image"] == ""
    assert rows[2]["day"] == "total" and float(rows[2]["cost"]) == 11.5


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t"])
def test_no_cell_of_the_csv_begins_like_a_formula(accounts: Accounts, sign: str) -> None:
    line = Line(name=f"{sign}1", cost=1.0, nodes=1.0)
    report = msgspec.structs.replace(accounts.report, lines=(line,))
    text = as_csv_text(msgspec.structs.replace(accounts, report=report))
    assert next(csv.DictReader(io.StringIO(text, newline="")))["day"] == f"'{sign}1"
