"""Nodes, queue and cost over time as a PNG; needs the extra `plots`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusebus.planning.simulation.run import Outcome

SIZE = (10, 8)  # inches
DOTS = 110  # an inch
MOST_POINTS = 1500  # of a line: more are not seen
HOUR, DAY = 3600.0, 86_400.0
IN_DAYS = 3 * DAY  # what lasts longer is drawn in days
OURS, COLOURS = "ours", {"ours": "tab:blue", "keda": "tab:orange", "batch-formula": "tab:green"}
PANELS = ((1, "billed nodes"), (2, "images in the queue"), (3, "cost so far (currency of the prices)"))


class PlotsUnavailable(Exception):
    """matplotlib is not installed."""


def plot(outcomes: Sequence[Outcome], folder: Path) -> list[Path]:
    """One picture a scenario, every policy a line, times without Spot in grey. Raises PlotsUnavailable, OSError."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotsUnavailable("drawing needs matplotlib: pip install 'fusebus-planning[plots]'") from error
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for scenario in dict.fromkeys(outcome.scenario for outcome in outcomes):
        figure = Figure(figsize=SIZE, dpi=DOTS, layout="constrained")
        shown = [outcome for outcome in outcomes if outcome.scenario == scenario]
        _draw(figure.subplots(len(PANELS), 1, sharex=True), shown)
        figure.suptitle(f"{scenario}: {shown[0].says}" if shown[0].says != scenario else scenario)
        path = folder / f"{scenario}.png"
        figure.savefig(path)
        written.append(path)
    return written


def _draw(axes: Sequence[Any], outcomes: Sequence[Outcome]) -> None:
    end = max((outcome.timeline[-1][0] for outcome in outcomes if outcome.timeline), default=0.0)
    unit, name = (DAY, "days") if end > IN_DAYS else (HOUR, "hours")
    for axis, (column, label) in zip(axes, PANELS, strict=True):
        for outcome in sorted(outcomes, key=lambda outcome: outcome.policy == OURS):  # ours on top
            points = [*thinned(outcome.timeline, column, end), (end, _last(outcome, column))]
            ours = outcome.policy == OURS
            axis.step(
                [at / unit for at, _ in points],
                [value for _, value in points],
                where="post",
                label=f"{outcome.policy}: {outcome.cost:.3g}, {100 * outcome.hit_share:.4g} % in time",
                color=COLOURS.get(outcome.policy),
                linewidth=1.8 if ours else 1.2,
                alpha=1.0 if ours else 0.7,
            )
        for begin, until in outcomes[0].storms:
            if min(until, end) > max(begin, 0.0):
                axis.axvspan(max(begin, 0.0) / unit, min(until, end) / unit, color="grey", alpha=0.15)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].set_ylim(top=1.45 * axes[0].get_ylim()[1])  # room for the legend
    axes[0].legend(loc="upper right")
    axes[-1].set_xlabel(f"{name} (grey: no Spot)" if outcomes[0].storms else name)


def _last(outcome: Outcome, column: int) -> float:
    return outcome.timeline[-1][column] if outcome.timeline else 0.0


def thinned(timeline: Sequence[tuple[float, int, int, float]], column: int, end: float) -> list[tuple[float, float]]:
    """Time and value; of many points in a span the first, the least, the most and the last: no peak is lost."""
    if len(timeline) <= MOST_POINTS:
        return [(point[0], point[column]) for point in timeline]
    spans: dict[int, list[tuple[float, float]]] = {}
    for point in timeline:
        spans.setdefault(int(point[0] / max(end, 1.0) * MOST_POINTS / 4), []).append((point[0], point[column]))
    found = []
    for span in spans.values():
        ends = {span[0], span[-1], min(span, key=lambda one: one[1]), max(span, key=lambda one: one[1])}
        found += sorted(ends)
    return found
