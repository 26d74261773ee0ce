"""One inferencer's run as pictures: its rate over time, how full its stages are, and how many images wait and are held.

    python tests/benchmarks/plots.py [TIMELINE [FOLDER]]

The timeline is what `inferencer_bench.py --timeline` writes.
"""

from __future__ import annotations

import json
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only: no display is needed
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

WINDOW_SECONDS = 1.0  # of the rate
STEP_SECONDS = 0.1
BLUE, ORANGE, GREY = "#1f6fb4", "#e07b00", "#777777"
Timeline = dict[str, Any]


def rate(times: Sequence[float], start: float, end: float) -> tuple[list[float], list[float]]:
    """Seconds since `start`, and how many of these times (in order) a second lie in the window around."""
    moments, rates = [], []
    for number in range(int((end - start) / STEP_SECONDS) + 1):
        middle = start + number * STEP_SECONDS
        first, last = max(start, middle - WINDOW_SECONDS / 2), min(end, middle + WINDOW_SECONDS / 2)
        moments.append(middle - start)
        rates.append((bisect_right(times, last) - bisect_left(times, first)) / (last - first))
    return moments, rates


def draw(timeline: Timeline, folder: Path) -> list[Path]:
    """Three PNGs. Raises ValueError where the run has no samples."""
    if not timeline["samples"] or not timeline["finals"]:
        raise ValueError("the run has no samples")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {"rate.png": _rate(timeline), "stages.png": _stages(timeline), "queue.png": _queue(timeline)}
    for name, figure in drawn.items():
        figure.savefig(folder / name, dpi=120)
        pyplot.close(figure)
    return [folder / name for name in drawn]


def _span(timeline: Timeline) -> tuple[float, float]:
    """From the first model call to the last final."""
    return timeline["calls"][0][0], timeline["finals"][-1]


def _rate(timeline: Timeline) -> Figure:
    start, end = _span(timeline)
    figure, axes = pyplot.subplots(figsize=(9, 4), layout="constrained")
    axes.plot(*rate(timeline["finals"], start, end), color=BLUE, label=f"finals, over {WINDOW_SECONDS:g} s")
    alone = 1 / timeline["model_seconds"]
    axes.axhline(alone, color=GREY, linestyle="--", label=f"the model alone: {alone:.1f}")
    mean = len(timeline["finals"]) / (end - start)
    axes.axhline(mean, color=ORANGE, linewidth=1, label=f"whole run: {mean:.1f}")
    axes.set(xlabel="seconds since the first model call", ylabel="images a second", xlim=(0, end - start))
    axes.set_ylim(bottom=0)
    axes.set_title(f"{timeline['what']}: {len(timeline['finals'])} images")
    axes.legend(loc="lower center", ncols=3)
    return figure


def _stages(timeline: Timeline) -> Figure:
    start, end = _span(timeline)
    samples = [one for one in timeline["samples"] if start <= one[0] <= end]
    times = [one[0] - start for one in samples]
    stages = timeline["stages"]
    figure, panels = pyplot.subplots(len(stages), 1, figsize=(9, 9), sharex=True, layout="constrained")
    for number, (axes, (name, places)) in enumerate(zip(panels, stages, strict=True)):
        inside, waiting = [one[2][number] for one in samples], [one[3][number] for one in samples]
        _stage(axes, times, inside, waiting, name, places)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    panels[-1].set(xlabel="seconds since the first model call", xlim=(0, end - start))
    figure.suptitle(f"{timeline['what']}: images in each stage")
    return figure


def _stage(
    axes: Axes, times: Sequence[float], inside: Sequence[int], waiting: Sequence[int], name: str, places: int
) -> None:
    axes.fill_between(times, inside, step="post", color=BLUE, alpha=0.35, linewidth=0, label="inside")
    axes.plot(times, waiting, drawstyle="steps-post", color=ORANGE, linewidth=1, label="in front of it")
    axes.axhline(places, color=GREY, linestyle="--", linewidth=1, label="places")
    full = sum(one >= places for one in inside) / max(1, len(inside))
    axes.set_title(f"{name}: {places} places, all taken in {100 * full:.0f} % of the samples", loc="left", fontsize=9)
    axes.set_ylim(0, max(places, *inside, *waiting, 1) * 1.15)
    axes.set_ylabel("images")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def _queue(timeline: Timeline) -> Figure:
    start, end = _span(timeline)
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(9, 6), sharex=True, layout="constrained")
    depths = [(time - start, depth) for time, depth in timeline["depths"] if start <= time <= end]
    above.plot(*zip(*depths, strict=True), color=BLUE, marker=".") if depths else None
    above.set(ylabel="messages", title=f"{timeline['what']}: in the queue, those under a lock included")
    above.set_ylim(bottom=0)
    samples = [one for one in timeline["samples"] if start <= one[0] <= end]
    times = [one[0] - start for one in samples]
    held = [sum(one[2]) + one[3][0] for one in samples]  # who waits further on keeps the place before
    below.plot(times, [one[1] for one in samples], color=GREY, linestyle="--", drawstyle="steps-post", label="slots")
    below.fill_between(times, held, step="post", color=BLUE, alpha=0.35, linewidth=0, label="held by the worker")
    below.set(xlabel="seconds since the first model call", ylabel="images", xlim=(0, end - start))
    below.set_ylim(bottom=0)
    figure.legend(*below.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def main() -> None:
    """Read, draw."""
    timeline = Path(sys.argv[1] if len(sys.argv) > 1 else "out/bench/timeline.json")
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else timeline.parent
    for path in draw(json.loads(timeline.read_text()), folder):
        print(path)


if __name__ == "__main__":
    main()
