"""A handling that fails is told as one, although what is raised inside becomes a settlement."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fusebus.bus import measures, tracing
from fusebus.bus.counts import Counts
from fusebus.bus.errors import LinkBroken, PublishFailed
from fusebus.bus.handling import Handling
from fusebus.bus.renewal import Lock
from fusebus.bus.settings import ConsumerSettings
from fusebus.bus.settlement import Complete, DeadLetter, GiveBack, Source
from fusebus.contracts.envelope import Envelope
from fusebus.contracts.messages import CloseRun
from fusebus.contracts.outcomes import Outcome, Reject, done

SOURCE = Source(topic="results", subscription="notifier")
CLOSE = CloseRun(run_id="r1", supplier="acme", requested_by="ops")
MESSAGE: Any = SimpleNamespace(
    delivery_count=0,
    enqueued_at=datetime.now(UTC),
    message_id="m",
    properties={},
    envelope=lambda: Envelope(message=CLOSE),
)


class Topic:
    """Takes everything, or nothing."""

    def __init__(self, takes: bool = True) -> None:
        self._takes = takes

    async def send(self, parcels: Any, fence: Callable[[], None]) -> None:
        if not self._takes:
            raise PublishFailed("closed")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], tuple[ReadableSpan, Any]]]:
    """The one span and the one measure of a message's handling."""
    spans, reader, tracers = InMemorySpanExporter(), InMemoryMetricReader(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(tracing, "_tracer", tracers.get_tracer("test"))
    monkeypatch.setattr(measures, "_process", MeterProvider([reader]).get_meter("test").create_histogram("process"))

    def found() -> tuple[ReadableSpan, Any]:
        (span,) = (one for one in spans.get_finished_spans() if one.name == "process results")
        data = reader.get_metrics_data()
        assert data is not None
        (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
        (point,) = metric.data.data_points
        assert point.count == 1
        return span, point

    yield found


def handling(handler: Callable[[], Outcome], topic: Topic | None = None) -> Handling:
    async def handle(message: Any, context: Any) -> Outcome:
        return handler()

    publisher: Any = topic or Topic()
    settings = ConsumerSettings(publish_hold_seconds=0.0)
    return Handling(SOURCE, handle, publisher, settings, Counts(SOURCE))


def fail() -> Outcome:
    raise KeyError("photo")


async def broken_link() -> datetime:
    raise LinkBroken("gone")


async def process(of: Handling, **arguments: Any) -> Any:
    return await of.process(MESSAGE, Lock(time.time() + 60), **arguments)


@pytest.mark.parametrize("error_type", ["KeyError", "PublishFailed", "LinkBroken"])
async def test_a_failure_is_on_the_span_and_on_the_measure(told: Any, error_type: str) -> None:
    settled = {
        "KeyError": lambda: process(handling(fail)),
        "PublishFailed": lambda: process(handling(done, Topic(takes=False))),
        "LinkBroken": lambda: process(handling(done), renew=broken_link),
    }
    assert isinstance(await settled[error_type](), Complete if error_type == "KeyError" else GiveBack)
    span, point = told()
    assert not span.status.is_ok
    assert span.attributes["error.type"] == point.attributes["error.type"] == error_type


@pytest.mark.parametrize("outcome", [done(), Reject(reason="blob_changed", description="etag")])
async def test_an_outcome_is_no_failure(told: Any, outcome: Outcome) -> None:
    assert isinstance(await process(handling(lambda: outcome)), Complete | DeadLetter)
    span, point = told()
    assert span.status.is_unset
    assert "error.type" not in span.attributes
    assert "error.type" not in point.attributes
