"""`fusebus why`, `pools` and `quota`: what the dispatcher decided, what it sees, and what it may have."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fusebus.console.commands import SETTINGS_OPTION
from fusebus.console.explaining import explain, in_force, stale_words
from fusebus.console.moments import back, said, span_said
from fusebus.console.scaling import JSON_OPTION, known_pool, with_ledger
from fusebus.console.tables import count_text
from fusebus.ledger import Controls, Decision, Ledger, PoolStatus, QuotaLine

EXIT_NOTHING = 1
LONGEST_LINE = 400  # characters of a table
SHADOW = ":shadow"


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """What `fusebus why` shows of one pool."""

    pool: str
    decisions: list[Decision]
    """Newest first."""
    status: PoolStatus | None
    controls: Controls
    words: list[str]


class PoolsFound(msgspec.Struct, frozen=True, kw_only=True):
    """What `fusebus pools` shows."""

    pools: list[PoolStatus]
    controls: Controls


@click.command()
@click.option("--pool", help="Which; default: all of them.")
@click.option("--at", metavar="TIME", help="As of then: 20m (ago), 14:05, 2026-11-22T14:05 (UTC); default: now.")
@click.option("--last", type=click.IntRange(1, 100), default=1, show_default=True, help="How many decisions.")
@click.option("--shadow", is_flag=True, help="What a dispatcher in shadow mode would have done.")
@JSON_OPTION
@SETTINGS_OPTION
def why(pool: str | None, at: str | None, last: int, shadow: bool, as_json: bool, settings_file: Path | None) -> None:
    """Explain what the dispatcher decided, with the numbers that it rests on.

    A decision stands until the next one: nothing is written down while nothing changes.

    \b
    Example: fusebus why --pool gpu --at 14:05
             fusebus why --last 10
    Exit codes: 0 shown, 1 nothing was decided by then or the ledger could not be reached, 2 usage.
    """
    now = datetime.now(UTC)
    try:
        moment = back(at, now) if at else now
    except ValueError as error:
        raise click.UsageError(f"--at: {error}") from error
    found = with_ledger(settings_file, lambda ledger: _explained(ledger, pool, moment, last, shadow, now))
    if as_json:
        click.echo(msgspec.json.encode(found))
    for one in [] if as_json else found:
        click.echo("\n".join(one.words))
    if not any(one.decisions for one in found):
        raise SystemExit(EXIT_NOTHING)


@click.command()
@JSON_OPTION
@SETTINGS_OPTION
def pools(as_json: bool, settings_file: Path | None) -> None:
    """Show every pool: what there is, what is wanted, what stands in the way.

    \b
    Example: fusebus pools --json | jq '.pools[] | {pool, nodes}'
    Exit codes: 0 shown, 1 the ledger could not be reached, 2 usage.
    """
    now = datetime.now(UTC)
    found = with_ledger(settings_file, lambda ledger: _pools(ledger, now))
    if as_json:
        click.echo(msgspec.json.encode(found))
    elif not found.pools:
        click.echo("no dispatcher has looked at any pool yet")
    else:
        _show_pools(found, now)


@click.command()
@JSON_OPTION
@SETTINGS_OPTION
def quota(as_json: bool, settings_file: Path | None) -> None:
    """Show how many cores the account may have, and how many the pools use, as the dispatcher read it last.

    A new account's quota may be 0: then nothing can be bought, whatever waits.

    \b
    Example: fusebus quota
    Exit codes: 0 shown, 1 the ledger could not be reached, 2 usage.
    """
    found = with_ledger(settings_file, _quota)
    if as_json:
        click.echo(msgspec.json.encode({"quota": found}))
    elif not found:
        click.echo("no dispatcher has read a quota yet")
    else:
        table = Table("region", "family", "kind", "cores", "in use", "left", box=None)
        for line in found:
            left = None if line.cores is None else max(0, line.cores - line.used)
            kind = "Spot" if line.spot else "dedicated"
            numbers = (count_text(line.cores), str(line.used), count_text(left))
            table.add_row(escape(line.region), escape(line.family or "all"), kind, *numbers)
        _print(table)
        for line in found:
            if line.cores == 0:
                kind = "Spot" if line.spot else "dedicated"
                click.echo(
                    f"{kind} cores of {line.family or 'all families'}: 0, so none can be bought; ask Azure for more"
                )


async def _explained(
    ledger: Ledger, pool: str | None, moment: datetime, last: int, shadow: bool, now: datetime
) -> list[Explained]:
    suffix = SHADOW if shadow else ""
    if pool is not None:
        await known_pool(ledger, pool + suffix)
    statuses = {
        status.pool: status for status in await ledger.pool_statuses() if status.pool.endswith(SHADOW) is shadow
    }
    controls = await ledger.controls(now)
    found = []
    for name in [pool + suffix] if pool else sorted(statuses):
        decisions = await ledger.decisions(name, last, at=moment)
        words = [line for decision in decisions for line in [*explain(decision, now), ""]]
        if not decisions:
            words = [f"nothing was decided for pool {name} by {said(moment, now)}", ""]
        force = in_force(statuses.get(name), controls, name.removesuffix(SHADOW), now)
        found.append(
            Explained(
                pool=name,
                decisions=decisions,
                status=statuses.get(name),
                controls=controls,
                words=[*words[:-1], *force],
            )
        )
    return found


async def _pools(ledger: Ledger, now: datetime) -> PoolsFound:
    return PoolsFound(pools=await ledger.pool_statuses(), controls=await ledger.controls(now))


async def _quota(ledger: Ledger) -> list[QuotaLine]:
    lines: dict[tuple[str, str, bool], QuotaLine] = {}
    for status in await ledger.pool_statuses():
        for line in status.quota:
            lines[line.region, line.family, line.spot] = line
    return [lines[key] for key in sorted(lines)]


def _show_pools(found: PoolsFound, now: datetime) -> None:
    table = Table("pool", "job kind", "VM size", "nodes", "wanted", "workers", "queue", "mode", "seen", box=None)
    for status in found.pools:
        states = ", ".join(f"{count} {state}" for state, count in status.nodes.items()) or "0"
        wanted = f"{status.wanted_dedicated}+{status.wanted_spot} Spot"
        workers = f"{status.running} running, {status.waiting} waiting"
        age = span_said(max(0.0, (now - status.looked_at).total_seconds()))
        cells = (status.job_kind, status.vm_size.removeprefix("Standard_"), states, wanted, workers)
        mode = "pinned" if status.mode == "acting" and status.pool in found.controls.pins else status.mode
        table.add_row(escape(status.pool), *map(escape, cells), count_text(status.depth), mode, f"{age} ago")
    _print(table)
    for status in found.pools:
        for line in in_force(status, found.controls, status.pool.removesuffix(SHADOW), now):
            click.echo(f"{status.pool}: {line}")
    leaders = sorted({f"{status.leader} (term {status.term})" for status in found.pools if status.term})
    if leaders and not all(stale_words(status, now) for status in found.pools):
        click.echo(f"led by {', '.join(leaders)}")


def _print(table: Table) -> None:
    """Lines that are too long for the terminal are left to it: a cut number would be a wrong one."""
    for column in table.columns:
        column.no_wrap = True
    console = Console(soft_wrap=True)
    needed = console.measure(table, options=console.options.update(max_width=LONGEST_LINE)).maximum
    Console(soft_wrap=True, width=max(console.width, needed)).print(table)
