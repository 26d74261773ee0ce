"""`python -m fusebus.inferencer.trial JSON`: verify, inspect, load and warm up a model folder, and say how it went.

A process of its own: a hang, a memory bomb or a crash in onnxruntime ends this one, not the one that serves.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any, Literal

import msgspec

from fusebus.inferencer.confinement import confine

_MEMORY_WORDS = ("bad_alloc", "bad allocation", "failed to allocate", "out of memory", "unable to allocate")


class TrialOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What to try, and under which limits."""

    folder: str
    provider: str
    intra_op_threads: int
    max_batch: int
    device: int = 0
    cuda_graph: bool = False
    memory_bytes: int
    """Writable private memory."""


class TrialReport(msgspec.Struct, frozen=True, kw_only=True):
    """How it went; the one line of output."""

    reason: Literal["", "files", "graph", "load", "outputs", "warm_up", "memory"] = ""
    """Empty where the model is fit to serve."""
    description: str = ""
    load_seconds: float = 0.0
    warm_seconds: float = 0.0
    """Of one picture, after the first."""
    missing: list[str] = []
    """What of the confinement could not be had."""


class _Unfit(Exception):
    def __init__(self, reason: Any, error: object) -> None:
        super().__init__(f"{error}")
        self.reason = reason


def main(text: str) -> TrialReport:
    """Confine this process, then try the model."""
    order = msgspec.json.decode(text, type=TrialOrder)
    missing = confine(order.memory_bytes if order.provider == "CPUExecutionProvider" else None)
    try:
        load_seconds, warm_seconds = _try(order)
    except MemoryError as error:
        return TrialReport(reason="memory", description=_limit_text(order, error), missing=missing)
    except _Unfit as error:
        if any(word in str(error).lower() for word in _MEMORY_WORDS):
            return TrialReport(reason="memory", description=_limit_text(order, error), missing=missing)
        return TrialReport(reason=error.reason, description=str(error)[:2000], missing=missing)
    return TrialReport(load_seconds=load_seconds, warm_seconds=warm_seconds, missing=missing)


def _try(order: TrialOrder) -> tuple[float, float]:
    # Imported once confined: numpy and onnxruntime start threads, which a filter set later would not reach.
    from fusebus.inferencer.backends import BackendError
    from fusebus.inferencer.backends.onnx import open_backend
    from fusebus.inferencer.backends.providers import Accelerator
    from fusebus.inferencer.warm_up import OutputsDiffer, warm_up
    from fusebus.models.inspection import inspect_graph
    from fusebus.models.manifest import ModelError, load_manifest

    folder = Path(order.folder)
    try:
        manifest = load_manifest(folder)
    except ModelError as error:
        raise _Unfit("files", error) from error
    try:
        inspect_graph(folder, manifest)
    except ModelError as error:
        raise _Unfit("graph", error) from error
    started = time.perf_counter()
    try:
        # Without the engine cache: what a hostile model could write there, the serving process would run.
        accelerator = Accelerator(device=order.device, cuda_graph=order.cuda_graph)
        backend = open_backend(folder, manifest, order.provider, order.intra_op_threads, order.max_batch, accelerator)
    except BackendError as error:
        raise _Unfit("load", error) from error
    loaded = time.perf_counter()
    try:
        warm_seconds = warm_up(backend, manifest, order.max_batch)
    except OutputsDiffer as error:
        raise _Unfit("outputs", error) from error
    except MemoryError:
        raise
    except Exception as error:  # onnxruntime's own errors share no public base
        raise _Unfit("warm_up", error) from error
    return loaded - started, warm_seconds


def _limit_text(order: TrialOrder, error: object) -> str:
    return f"needs more than the {order.memory_bytes} bytes that a load may take: {error}"[:2000]


if __name__ == "__main__":
    report = main(sys.argv[1])
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    sys.stdout.flush()
    os._exit(0)  # what a hostile model left running is not waited for
