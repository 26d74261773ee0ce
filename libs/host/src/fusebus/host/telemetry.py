"""Where OpenTelemetry is set up: spans and metrics to a collector, metrics for a scrape; business code asks the API."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from opentelemetry import metrics, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, Status

from fusebus.host.redaction import note_secret, redact, redacted
from fusebus.host.settings import Secret

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricReader

SPAN_DELAY_SECONDS = 2.0
"""A span waits so long for others to be sent with: a process that dies at once loses no more than that."""

_log = logging.getLogger(__name__)
_metrics_are_read = False


class TelemetrySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Section `telemetry`."""

    exporter: Annotated[
        Literal["none", "console", "otlp"],
        msgspec.Meta(
            description="Where spans and metrics go: nowhere, spans as JSON to standard output, or both to an "
            "OpenTelemetry collector."
        ),
    ] = "none"
    endpoint: Annotated[
        str,
        msgspec.Meta(pattern=r"^https?://[^\s/]+(/[^\s?#]*)?\Z", description="The collector's address for OTLP/HTTP."),
    ] = "http://localhost:4318"
    headers: Annotated[
        Secret, msgspec.Meta(description="Sent with each export: name=value, several with commas between them.")
    ] = Secret()
    sample_share: Annotated[
        float,
        msgspec.Meta(ge=0, le=1, description="Share of the traces that are recorded, each as a whole."),
    ] = 1.0
    metric_seconds: Annotated[float, msgspec.Meta(gt=0, description="Seconds between two exports of metrics.")] = 15.0
    export_seconds: Annotated[
        float, msgspec.Meta(gt=0, description="Limit for one export; work never waits for it, but the end does.")
    ] = 5.0
    prometheus: Annotated[
        bool, msgspec.Meta(description="Whether metrics can be scraped from /metrics beside /healthz.")
    ] = True


class Page(msgspec.Struct, frozen=True):
    """What a scrape gets."""

    content_type: str
    body: bytes


class Telemetry(msgspec.Struct, frozen=True):
    """What `set_up_telemetry` made."""

    shut: Callable[[], None]
    """Flushes and stops."""
    scrape: Callable[[], Page] | None = None
    """The metrics of this moment in Prometheus' text format; None where nobody scrapes."""


def metrics_are_read() -> bool:
    """Whether anybody reads this process's metrics: what costs requests to find out is found out only then."""
    return _metrics_are_read


def set_up_telemetry(service: str, settings: TelemetrySettings, scraped: bool = False) -> Telemetry:
    """Install the process's providers. `scraped`: there is a port on which metrics can be offered.

    Without an exporter no provider of spans is installed: then the API's own carries a trace that came with a message
    on to those that follow from it, and costs next to nothing.
    """
    global _metrics_are_read
    resource = _resource(service)
    ends: list[Callable[[], None]] = []
    if settings.exporter != "none":
        tracers = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(settings.sample_share)))
        tracers.add_span_processor(
            BatchSpanProcessor(Redacting(_span_exporter(settings)), schedule_delay_millis=SPAN_DELAY_SECONDS * 1000)
        )
        trace.set_tracer_provider(tracers)
        ends.append(tracers.shutdown)
    readers: list[MetricReader] = [_metric_reader(settings)] if settings.exporter == "otlp" else []
    scrape = None
    if scraped and settings.prometheus:
        reader, scrape = _scraped()
        readers.append(reader)
    if readers:
        from opentelemetry.sdk.metrics import MeterProvider

        meters = MeterProvider(readers, resource)
        metrics.set_meter_provider(meters)
        ends.append(meters.shutdown)
        _metrics_are_read = True
        _tell_uptime()
    return Telemetry(shut=lambda: _end(ends), scrape=scrape)


class Redacting(SpanExporter):
    """Passes spans on without secrets: an exception's text may quote an address with its signature."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export the redacted ones."""
        return self._inner.export([redacted_span(span) for span in spans])

    def shutdown(self) -> None:
        """Stop."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what is kept."""
        return self._inner.force_flush(timeout_millis)


def redacted_span(span: ReadableSpan) -> ReadableSpan:
    """The span with every text in it redacted."""
    status = span.status
    return ReadableSpan(
        name=redact(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=redacted(span.attributes or {}),
        events=[Event(redact(event.name), redacted(event.attributes or {}), event.timestamp) for event in span.events],
        links=[Link(link.context, redacted(link.attributes or {})) for link in span.links],
        kind=span.kind,
        status=Status(status.status_code, redact(status.description) if status.description else None),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _resource(service: str) -> Resource:
    name = f"fusebus-{service}"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = ""
    return Resource.create(
        {
            "service.name": name,
            "service.version": version,
            "service.instance.id": f"{os.environ.get('AZ_BATCH_NODE_ID') or socket.gethostname()}/{os.getpid()}",
        }
    )


def _tell_uptime() -> None:
    """A service that has had nothing to do yet has no other metric: without this one it looks as if it were down."""
    began = time.monotonic()
    metrics.get_meter(__name__).create_observable_gauge(
        "fusebus.service.uptime",
        callbacks=[lambda _: [metrics.Observation(time.monotonic() - began)]],
        unit="s",
        description="How long this process has been up",
    )


def _span_exporter(settings: TelemetrySettings) -> SpanExporter:
    if settings.exporter == "console":
        return ConsoleSpanExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # loads requests, protobuf

    return OTLPSpanExporter(
        f"{settings.endpoint.rstrip('/')}/v1/traces", headers=_headers(settings), timeout=settings.export_seconds
    )


def _metric_reader(settings: TelemetrySettings) -> MetricReader:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    exporter = OTLPMetricExporter(
        f"{settings.endpoint.rstrip('/')}/v1/metrics", headers=_headers(settings), timeout=settings.export_seconds
    )
    return PeriodicExportingMetricReader(
        exporter,
        export_interval_millis=settings.metric_seconds * 1000,
        export_timeout_millis=settings.export_seconds * 1000,
    )


def _headers(settings: TelemetrySettings) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in settings.headers.reveal().split(",") if "=" in pair)
    found = {name.strip().lower(): value.strip() for name, _, value in pairs}
    for value in found.values():
        note_secret(value)
    return found


def _scraped() -> tuple[MetricReader, Callable[[], Page]]:
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    reader = PrometheusMetricReader(scope_info_enabled=False, registry=registry)
    return reader, lambda: Page(CONTENT_TYPE_PLAIN_0_0_4, generate_latest(registry))


def _end(ends: Sequence[Callable[[], None]]) -> None:
    for end in ends:
        try:
            end()
        except Exception:
            _log.exception("telemetry could not be ended")
