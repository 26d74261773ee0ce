"""`fusebus simulate`: what the fleet would cost and which deadlines it would meet, under our policy and two others."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from fusebus.planning.limits import STORMS_PER_HOUR
from fusebus.planning.simulation import POLICIES, Outcome, Scenario, scenarios
from fusebus.planning.simulation import simulate as run
from fusebus.planning.simulation.plots import PlotsUnavailable, plot
from fusebus.planning.simulation.report import as_json, missed, table, verdict
from fusebus.planning.simulation.trace import TraceError, read_trace

EXIT_MISSED = 3


@click.command()
@click.option(
    "--scenario", "names", multiple=True, metavar="S", help="A named scenario; repeatable. Default: all quick ones."
)
@click.option("--all", "everything", is_flag=True, help="All named scenarios, those of a minute too.")
@click.option(
    "--trace", type=click.Path(dir_okay=False, path_type=Path), help="Arrivals from a CSV file: at,images[,kind]."
)
@click.option(
    "--deadline", default=6.0, show_default=True, type=click.FloatRange(0.1, 720), help="Hours, with --trace."
)
@click.option("--policy", default=",".join(POLICIES), show_default=True, help="Which to run, comma-separated.")
@click.option(
    "--insure", default=STORMS_PER_HOUR, show_default=True, type=click.FloatRange(0, 100), metavar="N",
    help="Our policy insures itself against N losses of all Spot an hour (the dispatcher's storms_per_hour); 0: not.",
)  # fmt: skip
@click.option("--plots", type=click.Path(file_okay=False, path_type=Path), help="Write a PNG a scenario there.")
@click.option("--why", is_flag=True, help="Also print every decision of our policy with its reason.")
@click.option("--list", "listing", is_flag=True, help="Name the scenarios and end.")
@click.option(
    "--json", "as_text", is_flag=True, help="Print one JSON object; with --why it has timelines and decisions."
)
def simulate(
    names: tuple[str, ...],
    everything: bool,
    trace: Path | None,
    deadline: float,
    policy: str,
    insure: float,
    plots: Path | None,
    why: bool,
    listing: bool,
    as_text: bool,
) -> None:
    """Run the dispatcher's policy on virtual time, beside KEDA and the Batch autoscale formula.

    The same arrivals, boots, evictions and prices for everyone; × bound is the cost by what no policy can undercut.

    \b
    Example: fusebus simulate --scenario spot-storm --policy ours,keda --plots out/plots
    Exit codes: 0 no mark missed but known ones (the last lines say which marks were checked), 3 another was missed (all
    are named), 2 usage, 1 a file could not be read or written.
    """
    named = scenarios()
    if listing:
        click.echo("\n".join(f"{name:16} {scenario.says}" for name, scenario in named.items()))
        return
    policies = _policies(policy)
    chosen = [
        msgspec.structs.replace(scenario, storms_per_hour=insure)
        for scenario in _chosen(named, names, everything, trace, deadline)
    ]
    outcomes = [outcome for scenario in chosen for outcome in run(scenario, policies)]
    short = missed(outcomes)
    click.echo(as_json(outcomes, timelines=why).decode() if as_text else _words(outcomes, why))
    if plots is not None:
        try:
            plot(outcomes, plots)
        except (PlotsUnavailable, OSError) as error:
            raise click.ClickException(str(error)) from error
    sys.exit(EXIT_MISSED if short else 0)


def _words(outcomes: Sequence[Outcome], why: bool) -> str:
    """The table, decisions where they are asked for, alerts, and what came of the marks."""
    lines = [table(outcomes)]
    for outcome in outcomes:
        if why and outcome.reasons:
            lines.append(f"\n{outcome.scenario}")
            lines += [f"{at / 60:9.2f} min  {because}" for at, because in outcome.reasons]
        if outcome.late:
            lines.append(f"alert in {outcome.scenario}: {outcome.late}")
    return "\n".join([*lines, *verdict(outcomes)])


def _policies(text: str) -> list[str]:
    found = [name.strip() for name in text.split(",")]
    for name in found:
        if name not in POLICIES:
            raise click.UsageError(f"--policy: {name!r} is none of {', '.join(POLICIES)}")
    return found


def _chosen(
    named: dict[str, Scenario], names: tuple[str, ...], everything: bool, trace: Path | None, deadline: float
) -> list[Scenario]:
    if trace is not None:
        if names or everything:
            raise click.UsageError("--trace and --scenario exclude each other")
        try:
            return [read_trace(trace, deadline * 3600)]
        except (TraceError, OSError) as error:
            raise click.ClickException(str(error)) from error
    for name in names:
        if name not in named:
            raise click.UsageError(f"--scenario: {name!r} is none of {', '.join(named)}")
    return [named[name] for name in names] or [s for s in named.values() if everything or not s.long]
