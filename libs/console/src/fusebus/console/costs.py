"""`fusebus cost`: what a month cost, whose it is, what it will become, and what the bill says."""

from __future__ import annotations

import asyncio
import csv
import io
import sys
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fusebus.console.accounts import Accounts, look, take_in_bill
from fusebus.console.commands import SETTINGS_OPTION
from fusebus.costs import month_bounds, month_of
from fusebus.costs.bill import BillError
from fusebus.costs.drift import SETTLING_DAYS, DayDrift
from fusebus.costs.settings import CostSettings
from fusebus.costs.spending import By, Line
from fusebus.host import environment_for_people, load_settings
from fusebus.ledger import Ledger, LedgerError, LedgerSettings

SPENT = "the budget is spent: no new nodes until it is raised, or until"
FORMULA_BEGINS = ("=", "+", "-", "@", "\t", "\r")  # what a sheet of cells would take for a formula
_OF_DRIFT = ("drift", "share", "worth_a_look")  # properties: msgspec writes fields only


class LedgerAndCosts(msgspec.Struct, frozen=True, kw_only=True):
    """What `fusebus cost` needs of the settings."""

    ledger: LedgerSettings
    costs: CostSettings


@click.command()
@click.option("--month", metavar="YYYY-MM", help="Which month, UTC; default: this one.")
@click.option("--by", type=click.Choice([by.value for by in By]), default="day", show_default=True)
@click.option("--read-bill", is_flag=True, help="First read the month's bill from Cost Management (else: each night).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the lines as CSV.")
@SETTINGS_OPTION
def cost(month: str | None, by: str, read_bill: bool, as_json: bool, as_csv: bool, settings_file: Path | None) -> None:
    """Show what a month cost, whose it is, its forecast, its budget, and the bill beside it.

    All cost is metered by us (node-seconds x price) and says so; the bill comes one to three days later.

    \b
    Example: fusebus cost --month 2026-11 --by supplier --csv
    Exit codes: 0 shown, 1 ledger or bill not readable, 2 usage.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    now = datetime.now(UTC)
    month = month or month_of(now)
    try:
        month_bounds(month)
    except ValueError as error:
        raise click.UsageError(f"--month {month!r} is not YYYY-MM") from error
    settings = load_settings(LedgerAndCosts, "console", environment_for_people(settings_file))
    if read_bill and not settings.costs.bill_scope:
        raise click.UsageError("--read-bill: FUSEBUS_COSTS_BILL_SCOPE names no scope")
    try:
        found = asyncio.run(_look(settings, month, By(by), read_bill, now))
    except LedgerError as error:
        raise click.ClickException(f"the ledger can't be read: {error}; is the stack up (fusebus up)?") from error
    except BillError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(msgspec.json.encode(as_json_object(found)))
    elif as_csv:
        sys.stdout.write(as_csv_text(found))
    else:
        Console(soft_wrap=True).print(tables(found))


async def _look(settings: LedgerAndCosts, month: str, by: By, read_bill: bool, now: datetime) -> Accounts:
    async with Ledger(settings.ledger) as ledger:
        if read_bill:
            await take_in_bill(ledger, settings.costs, month, now)
        return await look(ledger, settings.costs, month, by, now)


def as_json_object(found: Accounts) -> dict[str, Any]:
    """Everything, with what the lines and drifts say by themselves: cost per image, difference, share, warning."""
    lines = [_with(line, ("per_image",)) for line in found.report.lines]
    report = {**msgspec.to_builtins(found.report), "lines": lines, "total": _with(found.report.total, ("per_image",))}
    return {
        **msgspec.to_builtins(found),
        "report": report,
        "drift": [_with(day, _OF_DRIFT) for day in found.drift],
        "nodes_drift": _with(found.nodes_drift, _OF_DRIFT),
        "services_drift": _with(found.services_drift, _OF_DRIFT),
    }


def _with(struct: Line | DayDrift, properties: tuple[str, ...]) -> dict[str, Any]:
    return {**msgspec.to_builtins(struct), **{name: getattr(struct, name) for name in properties}}


def as_csv_text(found: Accounts) -> str:
    """The lines and the total; numbers with a point, names quoted so that no sheet takes them for a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [found.report.by.value, "cost", "currency", "nodes", "services", "node_hours", "images", "cost_per_image"]
    )
    for line in (*found.report.lines, found.report.total):
        name = f"'{line.name}" if line.name.startswith(FORMULA_BEGINS) else line.name
        per_image = "" if line.per_image is None else f"{line.per_image:.6f}"
        numbers = f"{line.nodes:.6f}", f"{line.cost - line.nodes:.6f}", f"{line.node_hours:.4f}"
        writer.writerow([name, f"{line.cost:.6f}", found.report.currency, *numbers, line.images, per_image])
    return text.getvalue()


def tables(found: Accounts) -> RenderableType:
    """For people."""
    report = found.report
    days = {line.day: line for line in found.drift if line.kind == "nodes"} if report.by is By.DAY else {}
    heads = [report.by.value, report.currency, "nodes", "services", "hours", "images", "an image"]
    table = Table(*heads, *(["billed", "drift"] if days else []), box=None, padding=(0, 1, 0, 0))
    for column in table.columns:
        column.no_wrap = True
        column.justify = "right"
    table.columns[0].justify = "left"
    for line in _with_billed_days(report.lines, days):
        table.add_row(*_cells(line), *(_drift_cells(days.get(line.name)) if days else ()))
    table.add_section()
    table.add_row(*_cells(report.total))
    head = Text(f"{report.month}, by {report.by.value}: metered, an estimate until the bill", style="bold")
    return Group(head, table, *(Text(words) for words in _words(found)))


def _with_billed_days(lines: Sequence[Line], days: Collection[str]) -> list[Line]:
    """Also the days that only the bill knows: those are the ones to ask about."""
    known = {line.name for line in lines}
    return sorted(
        [*lines, *(Line(name=day, cost=0.0, nodes=0.0) for day in days if day not in known)],
        key=lambda line: line.name,
    )


def _cells(line: Line) -> tuple[str, ...]:
    per_image = "" if line.per_image is None else f"{line.per_image:.4f}"
    numbers = (line.cost, line.nodes, line.cost - line.nodes, line.node_hours)
    return (escape(line.name), *(f"{number:,.2f}" for number in numbers), f"{line.images:,}", per_image)


def _drift_cells(line: DayDrift | None) -> tuple[str, str]:
    if line is None or line.billed is None:
        return "?", ""
    share = "" if line.share is None else f"{line.share:+.0%}"
    return f"{line.billed:,.2f}", share + ("" if line.settled else " (may change)") + (" !" * line.worth_a_look)


def _words(found: Accounts) -> list[str]:
    report, words = found.report, []
    if not report.lines:
        words.append("nothing was metered in this month")
    if found.forecast is not None:
        words.append(f"forecast for the whole month: {found.forecast:,.2f} {report.currency}")
    if found.budget:
        share = report.total.cost / found.budget
        told = ", ".join(found.alerts) or "none"
        words.append(f"budget: {share:.0%} of {found.budget:,.2f} {report.currency}; alerts told: {told}")
        if found.capped:
            words.append(
                f"{SPENT} {month_bounds(report.month)[1]:%-d %B %Y} 00:00 UTC; what is due before will be late"
            )
    if report.other_currencies:
        words.append(f"left out: samples in {', '.join(report.other_currencies)}")
    words += _bill_words(found)
    return words


def _bill_words(found: Accounts) -> list[str]:
    if found.bill_read_at is None:
        return ["bill: not read yet (FUSEBUS_COSTS_BILL_SCOPE, then each night or --read-bill)"]
    words = [f"bill as read {found.bill_read_at:%Y-%m-%d %H:%M} UTC; days change for {SETTLING_DAYS} days:"]
    if found.bill_currencies:
        words.append(f"  it has lines in {', '.join(found.bill_currencies)}, which can't be compared")
    for name, line in (("nodes", found.nodes_drift), ("storage, messages and others", found.services_drift)):
        if line.billed is not None:
            share = "" if line.share is None else f" ({line.share:+.0%})"
            words.append(f"  {name}: {line.billed:,.2f} billed, {line.metered:,.2f} metered by then{share}")
    return words
