"""`fusebus estimate`: what a month of so many images will cost, on each VM size and on each way to buy it."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from fusebus.console.commands import SETTINGS_OPTION
from fusebus.console.prices import cost_settings
from fusebus.costs import SIZES, PriceError, UnknownVmSize, load_prices, vm_size
from fusebus.costs.estimate import Estimate, Workload, explain
from fusebus.costs.estimate import estimate as estimate_month


class _Range(click.ParamType):  # type: ignore[type-arg]  # generic in the type hints only
    """`40-80`."""

    name = "LOW-HIGH"

    def convert(
        self, value: object, parameter: click.Parameter | None, context: click.Context | None
    ) -> tuple[float, float]:
        low, _, high = str(value).partition("-")
        try:
            found = float(low), float(high or low)
        except ValueError:
            self.fail(f"{value!r} is not LOW-HIGH, for example 40-80", parameter, context)
        if not 0 <= found[0] <= found[1]:
            self.fail(f"{value!r} is not a range from low to high", parameter, context)
        return found


_positive = click.FloatRange(min=0, min_open=True)


@click.command()
@click.option("--images-per-day", type=click.FloatRange(min=0), required=True)
@click.option("--megapixels", type=_positive, default=12.0, show_default=True)
@click.option("--windows-per-day", type=click.IntRange(1, 24), default=4, show_default=True)
@click.option("--boot-seconds", type=click.FloatRange(min=0), default=300.0, show_default=True)
@click.option("--idle-seconds", type=click.FloatRange(min=0), default=120.0, show_default=True)
@click.option("--deadline-seconds", type=_positive, default=3600.0, show_default=True, help="Of one window.")
@click.option("--model-seconds", type=_positive, help="Of one image on one node, measured; default: from GPU peaks.")
@click.option("--size", "sizes", multiple=True, help="Only this VM size; may be repeated.")
@click.option("--region", help="Default: that of the settings.")
@click.option("--currency", help="Default: that of the settings.")
@click.option("--against", type=_Range(), help="Explain a stated monthly amount, for example 40-80.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@SETTINGS_OPTION
def estimate(
    images_per_day: float,
    megapixels: float,
    windows_per_day: int,
    boot_seconds: float,
    idle_seconds: float,
    deadline_seconds: float,
    model_seconds: float | None,
    sizes: tuple[str, ...],
    region: str | None,
    currency: str | None,
    against: tuple[float, float] | None,
    as_json: bool,
    settings_file: Path | None,
) -> None:
    """Compare what a month costs on Spot, dedicated, reserved and always-on nodes of each GPU size.

    \b
    Example: fusebus estimate --images-per-day 500 --megapixels 12 --against 40-80
    Exit codes: 0 shown, 1 a price is missing, 2 usage.
    """
    settings = cost_settings(settings_file)
    workload = Workload(
        images_per_day=images_per_day,
        megapixels=megapixels,
        windows_per_day=windows_per_day,
        boot_seconds=boot_seconds,
        idle_seconds=idle_seconds,
        deadline_seconds=deadline_seconds,
        model_seconds=model_seconds,
        keep_days=settings.keep_days,
    )
    try:
        prices = load_prices(settings.price_file).into(currency or settings.currency)
        chosen = [vm_size(size) for size in sizes] or SIZES
    except PriceError as error:
        raise click.ClickException(str(error)) from error
    except UnknownVmSize as error:
        raise click.UsageError(str(error)) from error
    found = estimate_month(workload, prices, region or settings.region, chosen)
    if not found.ways:
        raise click.ClickException(f"the price list of {prices.date} has no GPU size in {found.region}")
    explained = explain(found, *against) if against else []
    if as_json:
        click.echo(msgspec.json.encode({**msgspec.structs.asdict(found), "explained": explained}))
    else:
        Console(soft_wrap=True, highlight=False).print(_shown(found, explained))


def _shown(found: Estimate, explained: list[str]) -> RenderableType:
    title = (
        f"{found.workload.images:,.0f} images a month of {found.workload.megapixels:g} megapixels in {found.region}; "
        f"storage and messages {found.services:,.2f} {found.currency}"
    )
    heads = ("VM size", "bought", "nodes", "hours", "an hour", f"{found.currency} a month", "an image")
    table = Table(*heads, box=None, padding=(0, 1, 0, 0))
    for column in table.columns:
        column.no_wrap = True
    for column in table.columns[2:]:
        column.justify = "right"
    for way in found.ways:
        table.add_row(
            way.vm_size.removeprefix("Standard_"),
            way.name,
            str(way.nodes),
            f"{way.node_hours:,.1f}",
            f"{'~' * way.approximate}{way.per_hour:.4f}",
            f"{way.cost:,.2f}",
            f"{way.per_image:.4f}",
        )
    assumed = [Text(f"assumed: {words}") for words in found.basis]
    return Group(Text(title, style="bold"), table, *assumed, *(Text(words) for words in explained))
