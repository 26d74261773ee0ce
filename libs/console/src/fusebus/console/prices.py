"""`fusebus prices`: the price list that everything is counted with, and its refresh from Azure's public API."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from fusebus.console.commands import SETTINGS_OPTION
from fusebus.costs import SIZES, PriceError, PriceList, Term, full_name, load_prices, save_prices
from fusebus.costs.retail import Refreshed
from fusebus.costs.retail import refresh as refresh_list
from fusebus.costs.settings import CostSettings
from fusebus.host import environment_for_people, load_settings

DEFAULT_FILE = Path(".fusebus/prices.json")
MOST_MISSING_SHOWN = 12


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What these commands need of the settings."""

    costs: CostSettings


def cost_settings(file: Path | None) -> CostSettings:
    """From the environment and `file`. Raises SettingsError."""
    return load_settings(Costs, "console", environment_for_people(file)).costs


@click.group()
def prices() -> None:
    """Show or refresh the price list: what an hour of each VM size costs, where, and on which terms.

    \b
    Example: fusebus prices refresh --currency GBP --region uksouth
    Exit codes: 0 done, 1 prices can't be read or written, 2 usage.
    """


@prices.command()
@click.option("--region", "regions", multiple=True, help="Only this region; may be repeated.")
@click.option("--size", "sizes", multiple=True, help="Only this VM size; may be repeated.")
@click.option("--currency", help="Turned into this currency at the list's own approximate rate.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole list as one JSON object.")
@SETTINGS_OPTION
def show(
    regions: tuple[str, ...], sizes: tuple[str, ...], currency: str | None, as_json: bool, settings_file: Path | None
) -> None:
    """Show the price list with its date, currency and source; a ~ marks what is approximate.

    \b
    Example: fusebus prices show --region uksouth --currency GBP
    Exit codes: 0 shown, 1 the list can't be read, 2 usage.
    """
    try:
        found = load_prices(cost_settings(settings_file).price_file)
        found = found.into(currency) if currency else found
    except PriceError as error:
        raise click.ClickException(str(error)) from error
    wanted = {full_name(size) for size in sizes}
    kept = [
        price
        for price in found.prices
        if (not regions or price.region in regions) and (not wanted or price.vm_size in wanted)
    ]
    found = msgspec.structs.replace(found, prices=tuple(kept))
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    console = Console(soft_wrap=True, highlight=False)
    console.print(_table(found))
    console.print(f"{found.date}, {found.currency} an hour. {found.source}", markup=False)


@prices.command()
@click.option("--region", "regions", multiple=True, help="Which regions; default: that of the settings.")
@click.option("--size", "sizes", multiple=True, help="A VM size besides those that are known; may be repeated.")
@click.option("--currency", help="Default: that of the settings; Azure's own price is in USD.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"Where to write it; default: FUSEBUS_COSTS_PRICE_FILE, or {DEFAULT_FILE}.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be written.")
@SETTINGS_OPTION
def refresh(
    regions: tuple[str, ...],
    sizes: tuple[str, ...],
    currency: str | None,
    out: Path | None,
    dry_run: bool,
    settings_file: Path | None,
) -> None:
    """Read all VM prices from the Azure Retail Prices API into a new list. No login is needed.

    \b
    Example: fusebus prices refresh --currency GBP --region uksouth --region westeurope
    Exit codes: 0 written, 1 the API can't be read (the list stays as it is), 2 usage.
    """
    settings = cost_settings(settings_file)
    file = out or Path(settings.price_file or DEFAULT_FILE)
    try:
        before = load_prices(settings.price_file if settings.price_file and Path(settings.price_file).exists() else "")
        found = asyncio.run(
            refresh_list(
                settings.retail_prices_url,
                before,
                regions=regions or (settings.region,),
                currency=currency or settings.currency,
                now=datetime.now(UTC),
                sizes=list(dict.fromkeys([*(size.name for size in SIZES), *(full_name(size) for size in sizes)])),
            )
        )
        if not dry_run:
            save_prices(found.prices, file)
    except PriceError as error:
        raise click.ClickException(str(error)) from error
    _say(found, file, dry_run, in_force=str(file) == settings.price_file)


def _say(found: Refreshed, file: Path, dry_run: bool, in_force: bool) -> None:
    console = Console(soft_wrap=True, highlight=False)
    console.print(_table(found.prices))
    for words in found.suspicious:
        console.print(f"changed a lot, please check: {words}", markup=False, style="yellow")
    if found.missing:
        more = f" and {len(found.missing) - MOST_MISSING_SHOWN} more" * (len(found.missing) > MOST_MISSING_SHOWN)
        shown = "; ".join(found.missing[:MOST_MISSING_SHOWN])
        console.print(f"the API has no price for: {shown}{more}", markup=False)
    done = "would be written to" if dry_run else "written to"
    console.print(f"{len(found.prices.prices)} prices {done} {file}", markup=False)
    if not dry_run and not in_force:
        console.print(f"to use them: FUSEBUS_COSTS_PRICE_FILE={file}", markup=False)


def _table(found: PriceList) -> Table:
    heads = ["dedicated", "Spot", "1 year", "3 years"]
    table = Table("VM size", "vCPU", "GiB", "region", *heads, box=None, padding=(0, 1, 0, 0))
    for column in table.columns:
        column.no_wrap = True
    for number in (1, 2, *range(4, 4 + len(heads))):
        table.columns[number].justify = "right"
    sizes = {size.name: size for size in SIZES}
    places = dict.fromkeys((price.vm_size, price.region) for price in found.prices)
    for vm_size, region in places:
        size = sizes.get(vm_size)
        facts = (str(size.vcpus), str(size.memory_gib)) if size else ("?", "?")
        table.add_row(
            vm_size.removeprefix("Standard_"), *facts, region, *(_cell(found, vm_size, region, term) for term in Term)
        )
    return table


def _cell(found: PriceList, vm_size: str, region: str, term: Term) -> str:
    price = found.find(vm_size, region, term)
    return "?" if price is None else f"{'~' * price.approximate}{price.per_hour:.4f}"
