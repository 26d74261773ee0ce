"""The comparison as one HTML page beside its pictures; needs no server, no script and no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from fusebus.inferencer.comparison.figures import SCORE_BINS, Compared, Figures, VersionFigures

BAR_REM = 24.0  # width of the longest bar
SAME_SPEED = 0.03  # difference of the medians that a repeat may show just as well


class Picture(NamedTuple):
    """One disagreement on the page."""

    file: str
    """Where its JPEG lies, beside the page."""
    name: str
    caption: str


class _Bin(NamedTuple):
    title: str
    first: int
    second: int
    first_width: str
    second_width: str


def render(figures: Figures, shown: Sequence[Picture]) -> bytes:
    """The page in UTF-8; names are escaped."""
    page = _environment().get_template("compare.html")
    return page.render(
        figures=figures, verdict=verdict(figures), rows=rows(figures), bins=_bins(figures), shown=shown
    ).encode()


def verdict(figures: Figures) -> str:
    """The comparison in a sentence or two."""
    first, second = figures.first, figures.second
    if figures.agreement is None:
        return f"Neither found anything in {figures.photos} photos."
    text = (
        f"Of {figures.matched + figures.only_first + figures.only_second} things that either found, both found "
        f"{figures.matched} ({figures.agreement:.1%}), {first.ref} alone {figures.only_first}, {second.ref} alone "
        f"{figures.only_second}. Both counted alike in {figures.same_count} of {figures.photos} photos."
    )
    if figures.mean_iou is not None:
        text += f" Matched masks overlap by {figures.mean_iou:.1%}."
    if figures.speed_ratio is not None:
        text += " " + _speed(figures, figures.speed_ratio)
    return text


def _speed(figures: Figures, ratio: float) -> str:
    """Which is faster, where that is more than the chance of a coin thrown for each photo (two standard deviations)."""
    if abs(2 * figures.second_faster - figures.timed) <= 2 * math.sqrt(figures.timed) or abs(ratio - 1) < SAME_SPEED:
        return f"Neither is faster for certain ({figures.timed} photos, first to second {ratio:.2f})."
    faster, slower = (figures.second, figures.first) if ratio > 1 else (figures.first, figures.second)
    return f"{faster.ref} is {max(ratio, 1 / ratio):.2f} times as fast as {slower.ref}."


def rows(figures: Figures) -> list[tuple[str, str, str]]:
    """Title, first, second: for the page and the terminal."""
    first, second = figures.first, figures.second
    labels = sorted({*first.by_label, *second.by_label})
    table = [("detections", str(first.detections), str(second.detections))]
    if len(labels) > 1:
        table += [
            (f"  {label}", str(first.by_label.get(label, 0)), str(second.by_label.get(label, 0))) for label in labels
        ]
    table += [
        ("found by this one alone", str(figures.only_first), str(figures.only_second)),
        ("photos without any", str(first.photos_without), str(second.photos_without)),
        ("score, 10 / 50 / 90 %", _scores(first), _scores(second)),
        ("ms per photo, median", _milliseconds(first, "p50"), _milliseconds(second, "p50")),
        ("ms per photo, 95 %", _milliseconds(first, "p95"), _milliseconds(second, "p95")),
    ]
    if first.stored or second.stored:
        table.append(("stored results taken", str(first.stored), str(second.stored)))
    return table


def caption(photo: Compared) -> str:
    """What differs, in a line."""
    counts = f"{len(photo.first)} and {len(photo.second)} found, {len(photo.matched.pairs)} by both"
    if photo.matched.pairs:
        counts += f", least overlap {min(pair.iou for pair in photo.matched.pairs):.0%}"
    return counts


def _scores(version: VersionFigures) -> str:
    found = version.score_quantiles
    return " / ".join(f"{found[name]:.2f}" for name in ("p10", "p50", "p90")) if found else "–"


def _milliseconds(version: VersionFigures, name: str) -> str:
    return f"{version.milliseconds[name]:.1f}" if version.milliseconds else "–"


def _bins(figures: Figures) -> list[_Bin]:
    sides = figures.first.score_histogram, figures.second.score_histogram
    longest = max(1, *sides[0], *sides[1])
    return [
        _Bin(
            f"{index / SCORE_BINS:.1f} to {(index + 1) / SCORE_BINS:.1f}",
            first,
            second,
            f"{BAR_REM * first / longest:.2f}",
            f"{BAR_REM * second / longest:.2f}",
        )
        for index, (first, second) in enumerate(zip(*sides, strict=True))
        if first or second
    ]


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("fusebus.inferencer.comparison"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
