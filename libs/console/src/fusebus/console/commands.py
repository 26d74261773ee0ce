"""`fusebus upload` and `fusebus status`: they speak to whatever the settings name."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live
from rich.progress import Progress

from fusebus.blobs import Blobs, StorageError
from fusebus.blobs.layout import supplier_container
from fusebus.bus import Bus
from fusebus.console.answers import json_text
from fusebus.console.overview import Overview, look
from fusebus.console.photos import NothingToSend, Photo, photos_in
from fusebus.console.settings import ConsoleSettings, console_settings
from fusebus.console.tables import overview_tables
from fusebus.console.uploading import Sent, Upload, upload_photos
from fusebus.ledger import Ledger, LedgerError
from fusebus.upload.command import upload_folder

EXIT_FAILED = 1
EXIT_USAGE = 2
SAS_SECONDS = 3600.0
SAS_VARIABLE = "FUSEBUS_UPLOAD_SAS"  # what stands in an option every process of the machine can read
WATCH_SECONDS = 1.0

SETTINGS_OPTION = click.option(
    "--settings",
    "settings_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file with addresses and credentials; default: FUSEBUS_SETTINGS, or .fusebus/settings.toml here.",
)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--supplier", help="Who delivers: 2 to 60 lower-case letters, digits and single dashes.")
@click.option(
    "--sas",
    metavar="URL",
    help=f"Send with this link, as a supplier does: no settings needed, with a receipt; better in {SAS_VARIABLE}.",
)
@click.option("--prefix", default="", help="With --sas: folder to put everything into.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of words.")
@SETTINGS_OPTION
def upload(
    folder: Path, supplier: str | None, sas: str | None, prefix: str, as_json: bool, settings_file: Path | None
) -> None:
    """Send every file below FOLDER as SUPPLIER's delivery, or with a grant's link; nothing is ever overwritten.

    \b
    Example: fusebus upload photos --supplier acme
             fusebus upload photos --sas 'https://…?…&sig=…'
             read -rs FUSEBUS_UPLOAD_SAS && export FUSEBUS_UPLOAD_SAS && fusebus upload photos
    Exit codes: 0 all sent or already there, 1 some are not (they failed, or other content has their name),
                2 usage, 3 the link is refused.
    """
    sas = sas or ("" if supplier else os.environ.get(SAS_VARIABLE, ""))
    if sas:
        if supplier:
            raise click.UsageError("--sas says already who delivers: leave --supplier out")
        sys.exit(upload_folder(folder, sas, prefix=prefix, as_json=as_json))
    if not supplier:
        raise click.UsageError(f"Missing option '--supplier' (or '--sas', or the variable {SAS_VARIABLE})")
    try:
        supplier_container(supplier)
        photos = photos_in(folder)
    except (ValueError, NothingToSend) as error:
        raise click.UsageError(str(error)) from error
    settings = console_settings(settings_file)
    try:
        outcomes = asyncio.run(_upload(settings, supplier, photos, quiet=as_json))
    except StorageError as error:
        raise click.ClickException(f"storage can't be reached: {error}; is the stack up (fusebus up)?") from error
    say_uploaded(outcomes, supplier, as_json)
    sys.exit(0 if all(outcome.is_there for outcome in outcomes) else EXIT_FAILED)


@click.command()
@click.option("--watch", is_flag=True, help="Show it anew each second, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; with --watch one a line.")
@SETTINGS_OPTION
def status(watch: bool, as_json: bool, settings_file: Path | None) -> None:
    """Show runs with their uploads, queue depths and the fleet.

    \b
    Example: fusebus status --json | jq '.runs[0].by_state'
    Exit codes: 0 shown, 1 the system could not be reached, 2 usage.
    """
    settings = console_settings(settings_file)
    try:
        asyncio.run(_status(settings, watch, as_json))
    except LedgerError as error:
        raise click.ClickException(f"the ledger can't be read: {error}; is the stack up (fusebus up)?") from error
    except KeyboardInterrupt:
        sys.exit(0)


async def send_photos(
    blobs: Blobs, supplier: str, photos: list[Photo], on_upload: Callable[[Upload], None]
) -> list[Upload]:
    """Make the supplier's container, and upload with nothing but a create-only SAS for it."""
    container = supplier_container(supplier)
    await blobs.create_container(container)

    async def is_there(name: str, data: bytes) -> bool:
        return await blobs.holds(container, name, data)

    return await upload_photos(await blobs.supplier_sas(supplier, SAS_SECONDS), photos, is_there, on_upload)


async def _upload(settings: ConsoleSettings, supplier: str, photos: list[Photo], quiet: bool) -> list[Upload]:
    async with Blobs(settings.blobs) as blobs:
        with Progress(console=Console(stderr=True), disable=quiet) as progress:
            task = progress.add_task("uploading", total=len(photos))
            return await send_photos(blobs, supplier, photos, lambda _: progress.advance(task))


def say_uploaded(outcomes: list[Upload], supplier: str, as_json: bool) -> None:
    """What became of each file, for a script or for people."""
    counts = Counter(outcome.sent for outcome in outcomes)
    if as_json:
        files = [
            {"name": outcome.photo.name, "outcome": outcome.sent.value, "error": outcome.error} for outcome in outcomes
        ]
        click.echo(json_text({"supplier": supplier, "files": files}))
        return
    for outcome in outcomes:
        if not outcome.is_there:
            click.echo(f"not sent: {outcome.photo.name!r}: {outcome.error}", err=True)
    words = ", ".join(f"{counts[kind]} {kind.value}" for kind in Sent if counts[kind])
    click.echo(f"{len(outcomes)} files for {supplier}: {words}; follow them with: fusebus status --watch")


async def _status(settings: ConsoleSettings, watch: bool, as_json: bool) -> None:
    async with Ledger(settings.ledger) as ledger, Bus(settings.bus) as bus:
        overview = await look(ledger, bus, settings.pool)
        if as_json:
            await _print_json(overview, ledger, bus, settings.pool, watch)
        elif not watch:
            Console().print(overview_tables(overview))
        else:
            with Live(overview_tables(overview), console=Console(), auto_refresh=False) as live:
                while True:
                    await asyncio.sleep(WATCH_SECONDS)
                    live.update(overview_tables(await look(ledger, bus, settings.pool)), refresh=True)


async def _print_json(overview: Overview, ledger: Ledger, bus: Bus, pool: str, watch: bool) -> None:
    click.echo(json_text(overview))
    while watch:
        await asyncio.sleep(WATCH_SECONDS)
        click.echo(json_text(await look(ledger, bus, pool)))
