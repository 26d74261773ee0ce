"""Owns the proof that an exported graph computes what torch computes: what is compared, how, and the limits.

Compared is the served graph with two more outputs: which query each detection is, and its mask's probabilities before
they are rounded to 8 bits. Detections are matched by query, which is exact where matching by score or box would have to
guess between near-equal ones; a query that only one side took into its best K counts with its distance from the other
side's last score. A difference is relative to the largest value of that output over the pictures of one run: boxes are
shares of a picture and scores probabilities, so that this is about absolute; relative to each value on its own, a score
of 1e-6 would fail where its logit agrees to seven digits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from fusebus.vision.export.errors import ParityError

BATCHES = (1, 2, 4)
FP32_LIMITS = {"scores": 1e-6, "boxes": 1e-6, "masks": 1e-5}
"""Largest difference of each output, in shares of its full scale: float32 graph against torch in float32."""
FP16_LEAST_COSINE = 0.999
"""Of each output's values, float16 graph against torch in float32."""
FP16_TAKEN = 0.02  # score by which a query may miss the best K in float16; measured on trained models: up to 0.017
_STEPS = 1  # of 255 by which a served mask may differ from torch's in float32: both round the same number
_RANDOM_SEED = 20


@dataclass(frozen=True)
class Probe:
    """The outputs of one run. scores (B, K) falling; boxes (B, K, 4); masks uint8 and probabilities float32
    (B, K, M, M); classes (B, K); picked (B, K), each detection's query, counted over all prompts."""

    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    masks: NDArray[np.uint8]
    classes: NDArray[np.int64]
    picked: NDArray[np.int64]
    probabilities: NDArray[np.float32]


PROBED = tuple(field.name for field in fields(Probe))
SERVED = PROBED[:4]


@dataclass(frozen=True)
class Trial:
    """Pictures (B, size, size, 3) that both sides get, and what they are."""

    pictures: str
    images: NDArray[np.uint8]

    @property
    def name(self) -> str:
        """For figures and errors."""
        return f"{self.pictures}, batch {len(self.images)}"


def trials(
    photographs: Sequence[NDArray[np.uint8]], batches: Iterable[int] = BATCHES, noise: bool = True
) -> list[Trial]:
    """For each batch size one trial with photographs (repeated in turn if they are too few) and one with noise."""
    random = np.random.default_rng(_RANDOM_SEED)
    found = []
    for batch in batches:
        taken = [photographs[number % len(photographs)] for number in range(batch)]
        found.append(Trial("photographs", np.stack(taken)))
        if noise:
            found.append(Trial("random", random.integers(0, 256, found[-1].images.shape, np.uint8)))
    return found


@dataclass(frozen=True)
class Difference:
    """How far one run lies from the original's, per output.

    largest: the largest difference, in shares of the output's full scale. relative: the same in shares of its largest
    value in these pictures. cosine: between all matched values.
    mask_steps: the largest difference of served masks in steps of 1/255. missed: the largest distance of a query that
    one side only took from the other's last score. wrong: what can't be a matter of precision.
    """

    largest: dict[str, float]
    relative: dict[str, float]
    cosine: dict[str, float]
    mask_steps: int
    missed: float
    wrong: tuple[str, ...]


def compare(expected: Probe, actual: Probe) -> Difference:
    """Compare two runs on the same pictures, detections matched by query."""
    pairs = [
        _matched(*ones) for ones in zip(expected.picked, actual.picked, expected.scores, actual.scores, strict=True)
    ]
    rows = np.repeat(np.arange(len(pairs)), [len(pair.left) for pair in pairs])
    left = np.concatenate([pair.left for pair in pairs])
    right = np.concatenate([pair.right for pair in pairs])
    values = {
        "scores": (expected.scores, actual.scores),
        "boxes": (expected.boxes, actual.boxes),
        "masks": (expected.probabilities, actual.probabilities),
    }
    matched = {name: (one[rows, left], other[rows, right]) for name, (one, other) in values.items()}
    steps = np.abs(expected.masks[rows, left].astype(np.int16) - actual.masks[rows, right].astype(np.int16))
    wrong = []
    if np.any(np.diff(actual.scores, axis=1) > 0):
        wrong.append("the scores don't fall")
    if not np.array_equal(expected.classes[rows, left], actual.classes[rows, right]):
        wrong.append("a detection has another class")
    if not all(np.isfinite(other).all() for _, other in values.values()):
        wrong.append("an output is not a number")
    return Difference(
        largest={name: _largest(*pair) for name, pair in matched.items()},
        relative={name: _largest(*pair) / _scale(pair[0]) for name, pair in matched.items()},
        cosine={name: _cosine(*pair) for name, pair in matched.items()},
        mask_steps=int(steps.max(initial=0)),
        missed=max(pair.missed for pair in pairs),
        wrong=tuple(wrong),
    )


def prove(precision: str, runs: Iterable[tuple[Trial, Probe, Probe]]) -> dict[str, object]:
    """Compare what the graph gave (third) with what torch gave (second) on each trial; the figures for the manifest.

    Raises ParityError at the first trial that is past a limit of `precision`, fp32 or fp16.
    """
    worst: dict[str, dict[str, float]] = {}
    names = []
    for trial, expected, actual in runs:
        found = compare(expected, actual)
        if reasons := _past_limits(precision, found):
            raise ParityError(
                f"the graph does not compute what torch computes ({trial.name}): {'; '.join(reasons)}. Nothing was "
                "written; report this with the versions of torch, transformers, onnx and onnxruntime"
            )
        _worsen(worst, found)
        names.append(trial.name)
    limits: object = FP32_LIMITS if precision == "fp32" else {"cosine": FP16_LEAST_COSINE}
    return {"reference": "torch, float32, CPU", "trials": names, "limits": limits, **worst}


@dataclass(frozen=True)
class _Pairs:
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    missed: float


def _matched(
    expected: NDArray[np.int64],
    actual: NDArray[np.int64],
    expected_scores: NDArray[np.float32],
    actual_scores: NDArray[np.float32],
) -> _Pairs:
    _, left, right = np.intersect1d(expected, actual, assume_unique=True, return_indices=True)
    only_left = np.setdiff1d(np.arange(len(expected)), left)
    only_right = np.setdiff1d(np.arange(len(actual)), right)
    beyond = [
        *np.abs(expected_scores[only_left] - actual_scores[-1]),
        *np.abs(actual_scores[only_right] - expected_scores[-1]),
    ]
    return _Pairs(left, right, float(max(beyond, default=0.0)))


def _past_limits(precision: str, found: Difference) -> list[str]:
    reasons = list(found.wrong)
    if precision == "fp32":
        figures = {**found.largest, "scores": max(found.largest["scores"], found.missed)}
        reasons += [
            f"{name} differ by {figures[name]:.2e}, at most {limit:.0e} is allowed"
            for name, limit in FP32_LIMITS.items()
            if not figures[name] <= limit
        ]
        if found.mask_steps > _STEPS:
            reasons.append(f"served masks differ by {found.mask_steps} steps of 255, at most {_STEPS} is allowed")
        return reasons
    reasons += [
        f"{name} have cosine {value:.6f}, at least {FP16_LEAST_COSINE} is needed"
        for name, value in found.cosine.items()
        if not value >= FP16_LEAST_COSINE
    ]
    if found.missed > FP16_TAKEN:
        reasons.append(f"a query misses the best by a score of {found.missed:.4f}, at most {FP16_TAKEN} is allowed")
    return reasons


def _worsen(worst: dict[str, dict[str, float]], found: Difference) -> None:
    for name in FP32_LIMITS:
        before = worst.setdefault(name, {"largest": 0.0, "largest_of_its_values": 0.0, "least_cosine": 1.0})
        before["largest"] = max(before["largest"], float(f"{found.largest[name]:.3g}"))
        before["largest_of_its_values"] = max(before["largest_of_its_values"], float(f"{found.relative[name]:.3g}"))
        before["least_cosine"] = min(before["least_cosine"], round(found.cosine[name], 9))
    served = worst.setdefault("served", {"mask_steps": 0, "missed_score": 0.0})
    served["mask_steps"] = max(served["mask_steps"], found.mask_steps)
    served["missed_score"] = max(served["missed_score"], float(f"{found.missed:.3g}"))


def _largest(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> float:
    if not expected.size:
        return float("inf")  # nothing matches at all
    return float(np.abs(expected.astype(np.float64) - actual).max())


def _scale(expected: NDArray[np.float32]) -> float:
    return max(float(np.abs(expected).max(initial=0.0)), float(np.finfo(np.float32).tiny))


def _cosine(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> float:
    one, other = expected.astype(np.float64).ravel(), actual.astype(np.float64).ravel()
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other / length) if length else 0.0
