"""What the stages tell OpenTelemetry: where images are, what each stage took, how many pictures a model call held."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation

from fusebus.inferencer.stages import Lap, Stages

_meter = metrics.get_meter("fusebus.inferencer")
_tracer = trace.get_tracer("fusebus.inferencer")
_stage_seconds = _meter.create_histogram(
    "fusebus.inferencer.stage.duration", unit="s", description="What an image took in each stage."
)
_wait_seconds = _meter.create_histogram(
    "fusebus.inferencer.stage.wait", unit="s", description="How long an image waited for a place in each stage."
)
_call_seconds = _meter.create_histogram(
    "fusebus.inferencer.model.duration", unit="s", description="What one model call took, whatever it held."
)
_batch_size = _meter.create_histogram(
    "fusebus.inferencer.model.batch", unit="{picture}", description="Pictures in one model call."
)
_ATTRIBUTES = {stage.name: {"stage": stage.name} for stage in Stages()}


def model_call(pictures: int, seconds: float) -> None:
    """One call of the model that went well."""
    _batch_size.record(pictures)
    _call_seconds.record(seconds)


def passed(laps: Sequence[Lap]) -> None:
    """One image's way: its stages as metrics, and as children of the current span, if there is one that is recorded."""
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
        "fusebus.inferencer.stage.waiting", [waiting], unit="{image}", description="Images in front of each stage."
    )
    _meter.create_observable_gauge(
        "fusebus.inferencer.slots",
        [lambda _: [Observation(slots())]],
        unit="{image}",
        description="Images that may be in hand.",
    )


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
