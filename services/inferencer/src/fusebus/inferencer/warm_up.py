"""Runs a model on noise before it sees a photo, and compares what comes out with what its manifest says."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from fusebus.inferencer.backends import Backend, Outputs
from fusebus.models.manifest import ModelManifest

_SEED = 20_260_101  # the same noise each time: a model is fit or it is not


class OutputsDiffer(Exception):
    """What came out has another shape, type or range than the manifest and the result file allow."""


def warm_up(backend: Backend, manifest: ModelManifest, max_batch: int) -> float:
    """Run one picture, the largest batch and one picture again; seconds of the last. Raises OutputsDiffer."""
    size = manifest.image_size
    noise = np.random.default_rng(_SEED).integers(0, 256, (max_batch, size, size, 3), np.uint8)
    seconds = 0.0
    for count in (1, max_batch, 1):
        started = time.perf_counter()
        outputs = backend.run(noise[:count])
        seconds = time.perf_counter() - started
        check_outputs(outputs, manifest, count)
    return seconds


def check_outputs(outputs: Outputs, manifest: ModelManifest, count: int) -> None:
    """Raises OutputsDiffer unless `count` pictures' outputs are as the manifest says."""
    most, edge = manifest.top_k, manifest.mask_size
    _check("scores", outputs.scores, (count, most), np.float32)
    _check("boxes", outputs.boxes, (count, most, 4), np.float32)
    _check("masks", outputs.masks, (count, most, edge, edge), np.uint8)
    _check("classes", outputs.classes, (count, most), np.int64)
    if not np.isfinite(outputs.boxes).all():
        raise OutputsDiffer("boxes holds values that are not finite")
    if not ((outputs.scores >= 0) & (outputs.scores <= 1)).all():  # false for a NaN as well
        raise OutputsDiffer("scores holds values outside of 0 to 1")
    if not ((outputs.classes >= 0) & (outputs.classes < len(manifest.prompts))).all():
        raise OutputsDiffer(f"classes names one that is none of the manifest's {len(manifest.prompts)} prompts")


def _check(name: str, found: NDArray[np.generic], shape: tuple[int, ...], kind: type[np.generic]) -> None:
    if found.shape != shape or found.dtype != kind:
        raise OutputsDiffer(f"{name} is {found.dtype} {found.shape}, its manifest says {np.dtype(kind)} {shape}")
