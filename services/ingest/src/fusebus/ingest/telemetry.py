"""What ingest tells OpenTelemetry: what it made of uploads, and how long a look at one took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import metrics, trace

EXAMINE_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

_meter = metrics.get_meter("fusebus.ingest")
_tracer = trace.get_tracer("fusebus.ingest")
_uploads = _meter.create_counter(
    "fusebus.ingest.uploads", unit="{upload}", description="Uploads entered into a run, by verdict."
)
_examine = _meter.create_histogram(
    "fusebus.ingest.examine.duration",
    unit="s",
    description="What it took to download an upload and judge it in the guarded child.",
    explicit_bucket_boundaries_advisory=EXAMINE_SECONDS,
)


@contextmanager
def examining() -> Iterator[None]:
    """One upload is looked at."""
    began = time.perf_counter()
    with _tracer.start_as_current_span("examine"):
        yield
    _examine.record(time.perf_counter() - began)


def entered(verdict: str) -> None:
    """One upload is in a run."""
    _uploads.add(1, {"fusebus.verdict": verdict})
