"""Nodes, queue and cost over time as a PNG; needs the extra `plots`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fusebus.planning.simulation.run import Outcome

SIZE = (10, 8)  # inches
DOTS = 110  # an inch
MOST_POINTS = 4000  # of a line: more are not seen
SECONDS_PER_HOUR = 3600.0


class PlotsUnavailable(Exception):
    """matplotlib is not installed."""


def plot(outcomes: Sequence[Outcome], folder: Path) -> list[Path]:
    """One picture a scenario, every policy a line. Raises PlotsUnavailable, OSError."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotsUnavailable("drawing needs matplotlib: pip install 'fusebus-planning[plots]'") from error
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for scenario in dict.fromkeys(outcome.scenario for outcome in outcomes):
        figure = Figure(figsize=SIZE, dpi=DOTS)
        _draw(figure.subplots(3, 1, sharex=True), [o for o in outcomes if o.scenario == scenario])
        figure.suptitle(scenario)
        path = folder / f"{scenario}.png"
        figure.savefig(path)
        written.append(path)
    return written


def _draw(axes: Sequence[object], outcomes: Sequence[Outcome]) -> None:
    for axis, column, label in zip(
        axes, (1, 2, 3), ("billed nodes", "images in the queue", "cost so far"), strict=True
    ):
        for outcome in outcomes:
            points = outcome.timeline[:: max(1, len(outcome.timeline) // MOST_POINTS)]
            hours = [point[0] / SECONDS_PER_HOUR for point in points]
            axis.step(hours, [point[column] for point in points], where="post", label=outcome.policy)  # type: ignore[attr-defined]
        axis.set_ylabel(label)  # type: ignore[attr-defined]
        axis.grid(alpha=0.3)  # type: ignore[attr-defined]
    axes[0].legend()  # type: ignore[attr-defined]
    axes[-1].set_xlabel("hours")  # type: ignore[attr-defined]
