"""`fusebus ingest`: a search by hand for uploads that no event announced."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from fusebus.arrivals import Report, search
from fusebus.blobs import Blobs, StorageError
from fusebus.blobs.layout import supplier_container
from fusebus.bus import Bus, PublishFailed
from fusebus.console.answers import json_text
from fusebus.console.commands import SETTINGS_OPTION
from fusebus.console.moments import back, said
from fusebus.console.settings import ConsoleSettings, console_settings
from fusebus.contracts import display
from fusebus.ledger import Ledger, LedgerError

EXIT_IN_PART = 3
MOST_SHOWN = 20  # uploads that are named; --json names all


@click.command()
@click.option(
    "--since", default="1d", show_default=True, help="Uploads written since: 90m, 2h, 18:30, 2026-11-22T06:00 (UTC)."
)
@click.option("--supplier", help="Only this supplier's; default: all.")
@click.option("--dry-run", is_flag=True, help="Announce nothing, only say what would be.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of words.")
@SETTINGS_OPTION
def ingest(since: str, supplier: str | None, dry_run: bool, as_json: bool, settings_file: Path | None) -> None:
    """Find uploads whose event never came, and announce them now; what is in a run already is left alone.

    \b
    Example: fusebus ingest --since 6h --supplier acme --dry-run
    Exit codes: 0 nothing is missing any more (with --dry-run: looked everywhere), 1 storage, ledger or bus could not
                be reached, 2 usage (an unknown supplier too), 3 announced what was found, but not everything could be
                listed.
    """
    now = datetime.now(UTC)
    try:
        begin = back(since, now)
        containers = [supplier_container(supplier)] if supplier else []
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        report = asyncio.run(_search(console_settings(settings_file), begin, now, containers, dry_run))
    except (StorageError, LedgerError, PublishFailed) as error:
        raise click.ClickException(f"{error}; is the stack up (fusebus up)?") from error
    if as_json:
        click.echo(json_text(report))
    else:
        _say(report, now)
    sys.exit(EXIT_IN_PART if report.not_listed else 0)


async def _search(
    settings: ConsoleSettings, since: datetime, now: datetime, containers: list[str], dry_run: bool
) -> Report:
    async with Blobs(settings.blobs) as blobs, Ledger(settings.ledger) as ledger, Bus(settings.bus) as bus:
        for container in containers:
            if not await blobs.container_exists(container):
                hint = "fusebus supplier list names all"
                raise click.UsageError(f"no such supplier: there is no container {container} ({hint})")
        outbox = None if dry_run else bus.publisher()
        return await search(blobs, ledger, outbox, since=since, now=now, containers=containers)


def _say(report: Report, now: datetime) -> None:
    for one in report.missing[:MOST_SHOWN]:
        name = display.name(one.name)
        click.echo(f"{one.supplier}: {name}, {one.size} bytes, uploaded {said(one.uploaded_at, now)}")
    if len(report.missing) > MOST_SHOWN:
        click.echo(f"and {len(report.missing) - MOST_SHOWN} more (--json names all)")
    done = "would be announced" if report.dry_run else "announced"
    rest = [
        f"{count} {what}"
        for count, what in (
            (report.known, "in a run already"),
            (report.held, "held (fusebus supplier list)"),
            (report.copying, "still being copied"),
        )
        if count
    ]
    click.echo(
        f"{report.uploads} uploads since {said(report.since, now)} in {report.containers} containers: "
        + ", ".join([f"{len(report.missing)} {done}", *rest])
    )
    for hidden in report.not_listed:
        names = ", ".join(repr(display.name(name)) for name in hidden.names)
        unseen = f"names that begin with {names} may be unseen" if names else "the rest is unseen"
        click.echo(f"could not list {hidden.container} whole, {unseen}: {display.one_line(hidden.why)}", err=True)
