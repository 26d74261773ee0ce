"""What a comparison says in numbers; everything in it is in compare.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np

from fusebus.inferencer.comparison.matching import Matched, disagreement, match
from fusebus.inferencer.result import ResultDetection as Found

SCORE_BINS = 10


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One photo under both versions."""

    name: str
    first: tuple[Found, ...]
    second: tuple[Found, ...]
    first_seconds: float | None
    """Of the model call for this one photo; None where a stored result was read."""
    second_seconds: float | None
    matched: Matched
    disagreement: float


class VersionFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One version's side."""

    ref: str
    detections: int
    by_label: dict[str, int]
    photos_without: int
    """Photos in which it found nothing."""
    score_histogram: tuple[int, ...]
    """Detections by score, SCORE_BINS bins from 0 to 1."""
    score_quantiles: dict[str, float] | None
    """p10, p50, p90; None where it found nothing."""
    milliseconds: dict[str, float] | None
    """Of a model call for one photo: mean, p50, p95; None where every result was stored."""
    stored: int
    """Photos whose stored result was taken."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The whole comparison."""

    photos: int
    first: VersionFigures
    second: VersionFigures
    same_count: int
    """Photos in which both found equally many."""
    matched: int
    only_first: int
    only_second: int
    agreement: float | None
    """Pairs as a share of everything that either found; None where neither found anything."""
    mean_iou: float | None
    """Of the pairs' masks."""
    mean_score_change: float | None
    """Of the pairs, second minus first."""
    timed: int
    """Photos that both ran."""
    second_faster: int
    """In how many of these the second was faster."""
    speed_ratio: float | None
    """The first's time over the second's, the median of these photos."""
    largest: tuple[tuple[str, float], ...]
    """Photos with the largest disagreements."""
    skipped: dict[str, str]
    """Photos that could not be compared, and why."""


def compared(
    name: str,
    first: tuple[tuple[Found, ...], float | None],
    second: tuple[tuple[Found, ...], float | None],
) -> Compared:
    """One photo's comparison from what each version found and the seconds it took."""
    matched = match(first[0], second[0])
    return Compared(
        name=name,
        first=first[0],
        second=second[0],
        first_seconds=first[1],
        second_seconds=second[1],
        matched=matched,
        disagreement=disagreement(matched, first[0], second[0]),
    )


def largest(photos: Sequence[Compared], count: int) -> list[Compared]:
    """Those with the largest disagreements, the largest first; none that agree."""
    ranked = sorted(photos, key=lambda photo: (-photo.disagreement, photo.name))
    return [photo for photo in ranked[:count] if photo.disagreement > 0]


def figures(refs: tuple[str, str], photos: Sequence[Compared], shown: int, skipped: dict[str, str]) -> Figures:
    """Everything in numbers; `shown` is how many photos `largest` names."""
    pairs = [(photo, pair) for photo in photos for pair in photo.matched.pairs]
    only_first = sum(len(photo.matched.only_first) for photo in photos)
    only_second = sum(len(photo.matched.only_second) for photo in photos)
    everything = len(pairs) + only_first + only_second
    ratios = [
        photo.first_seconds / max(photo.second_seconds, 1e-9)
        for photo in photos
        if photo.first_seconds is not None and photo.second_seconds is not None
    ]
    changes = [photo.second[pair.second].score - photo.first[pair.first].score for photo, pair in pairs]
    return Figures(
        photos=len(photos),
        first=_version(refs[0], [photo.first for photo in photos], [photo.first_seconds for photo in photos]),
        second=_version(refs[1], [photo.second for photo in photos], [photo.second_seconds for photo in photos]),
        same_count=sum(len(photo.first) == len(photo.second) for photo in photos),
        matched=len(pairs),
        only_first=only_first,
        only_second=only_second,
        agreement=_rounded(len(pairs) / everything) if everything else None,
        mean_iou=_rounded(float(np.mean([pair.iou for _, pair in pairs]))) if pairs else None,
        mean_score_change=_rounded(float(np.mean(changes))) if pairs else None,
        timed=len(ratios),
        second_faster=sum(ratio > 1 for ratio in ratios),
        speed_ratio=_rounded(float(np.median(ratios))) if ratios else None,
        largest=tuple((photo.name, _rounded(photo.disagreement)) for photo in largest(photos, shown)),
        skipped=skipped,
    )


def _version(ref: str, found: Sequence[Sequence[Found]], seconds: Sequence[float | None]) -> VersionFigures:
    scores = [detection.score for photo in found for detection in photo]
    taken = [value * 1000 for value in seconds if value is not None]
    return VersionFigures(
        ref=ref,
        detections=len(scores),
        by_label=dict(sorted(Counter(detection.label for photo in found for detection in photo).items())),
        photos_without=sum(not photo for photo in found),
        score_histogram=tuple(np.histogram(scores, SCORE_BINS, (0, 1))[0].tolist()),
        score_quantiles=_quantiles(scores, (10, 50, 90)) if scores else None,
        milliseconds={"mean": _rounded(float(np.mean(taken))), **_quantiles(taken, (50, 95))} if taken else None,
        stored=len(seconds) - len(taken),
    )


def _quantiles(values: Sequence[float], percents: Sequence[int]) -> dict[str, float]:
    return {f"p{percent}": _rounded(float(np.percentile(values, percent))) for percent in percents}


def _rounded(value: float) -> float:
    return round(value, 4)
