"""What the stages tell OpenTelemetry: where images are, what each stage took, how many pictures a model call held."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation

from fusebus.inferencer.stages import Lap, Stages

STAGE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LOAD_SECONDS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
IMAGE_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 2 * 3600.0, 6 * 3600.0, 24 * 3600.0)
BATCH_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
STAGES_OF_EACH = 4
"""Of so many images one tells what it took and waited in each stage: told of each, that would be nearly as much CPU as
all else between the stages. How long an image takes as a whole is told of each."""

_meter = metrics.get_meter("fusebus.inferencer")
_tracer = trace.get_tracer("fusebus.inferencer")
_stage_seconds = _meter.create_histogram(
    "fusebus.inferencer.stage.duration",
    unit="s",
    description="What an image took in each stage; one image in four.",
    explicit_bucket_boundaries_advisory=STAGE_SECONDS,
)
_image_seconds = _meter.create_histogram(
    "fusebus.image.duration",
    unit="s",
    description="From ingest's word that an image is accepted until it is analysed.",
    explicit_bucket_boundaries_advisory=IMAGE_SECONDS,
)
_wait_seconds = _meter.create_histogram(
    "fusebus.inferencer.stage.wait.duration",
    unit="s",
    description="How long an image waited for a place in each stage; one image in four.",
    explicit_bucket_boundaries_advisory=STAGE_SECONDS,
)
_call_seconds = _meter.create_histogram(
    "fusebus.inferencer.model.call.duration",
    unit="s",
    description="What one model call took, whatever it held.",
    explicit_bucket_boundaries_advisory=STAGE_SECONDS,
)
_batch_size = _meter.create_histogram(
    "fusebus.inferencer.model.batch.size",
    unit="{picture}",
    description="Pictures in one model call.",
    explicit_bucket_boundaries_advisory=BATCH_SIZES,
)
_load_seconds = _meter.create_histogram(
    "fusebus.inferencer.model.load.duration",
    unit="s",
    description="What it took until a model version was fetched, tried, open and warm, or refused.",
    explicit_bucket_boundaries_advisory=LOAD_SECONDS,
)
_images = itertools.count()
_ATTRIBUTES = {stage.name: {"fusebus.stage": stage.name} for stage in Stages()}


@contextmanager
def loading(model: str) -> Iterator[None]:
    """One version is being brought into service."""
    began, attributes = time.perf_counter(), {"fusebus.model": model}
    with _tracer.start_as_current_span("load model", attributes=attributes):
        try:
            yield
        except Exception as error:
            attributes["error.type"] = type(error).__qualname__
            raise
        finally:
            _load_seconds.record(time.perf_counter() - began, attributes)


def model_call(pictures: int, seconds: float) -> None:
    """One call of the model that went well."""
    _batch_size.record(pictures)
    _call_seconds.record(seconds)


def passed(laps: Sequence[Lap], accepted_at: datetime, deadline: datetime) -> None:
    """One image's way as metrics, its stages of each fourth, and as children of the current span if it is recorded."""
    now = datetime.now(UTC)
    in_time = {"fusebus.in_time": now <= deadline}
    _image_seconds.record(max(0.0, (now - accepted_at).total_seconds()), in_time)
    if next(_images) % STAGES_OF_EACH == 0:
        for lap in laps:
            _stage_seconds.record(lap.ended - lap.began, _ATTRIBUTES[lap.stage])
            _wait_seconds.record(lap.began - lap.asked, _ATTRIBUTES[lap.stage])
    if not trace.get_current_span().is_recording():
        return
    offset = time.time() - time.perf_counter()
    for lap in laps:
        span = _tracer.start_span(f"stage {lap.stage}", start_time=_nanoseconds(lap.began + offset))
        span.end(_nanoseconds(lap.ended + offset))


def watch(stages: Stages, slots: Callable[[], int]) -> None:
    """Show, whenever metrics are collected, how full each stage is and how many images may be in hand."""

    def inside(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(stage.inside, _ATTRIBUTES[stage.name]) for stage in stages]

    def waiting(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(stage.waiting, _ATTRIBUTES[stage.name]) for stage in stages]

    _meter.create_observable_gauge(
        "fusebus.inferencer.stage.images", [inside], unit="{image}", description="Images inside each stage."
    )
    _meter.create_observable_gauge(
        "fusebus.inferencer.stage.waiting",
        [waiting],
        unit="{image}",
        description="Images in front of each stage.",
    )
    _meter.create_observable_gauge(
        "fusebus.inferencer.slots",
        [lambda _: [Observation(slots())]],
        unit="{image}",
        description="Images that may be in hand.",
    )


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
