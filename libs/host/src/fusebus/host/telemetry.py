"""Where OpenTelemetry is set up; business code only ever asks the API for a tracer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter


class TelemetrySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Section `telemetry`."""

    exporter: Annotated[
        Literal["none", "console"],
        msgspec.Meta(description="Where spans go: nowhere, or as JSON to standard output."),
    ] = "none"


def set_up_telemetry(service: str, settings: TelemetrySettings) -> Callable[[], None]:
    """Install the process's tracer provider; returns what flushes and stops it."""
    provider = TracerProvider(resource=Resource.create({"service.name": f"fusebus-{service}"}))
    if settings.exporter == "console":
        provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.shutdown
