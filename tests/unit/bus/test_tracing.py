"""Which span a message belongs to, how it travels, and what links to what."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from fusebus.bus import tracing
from fusebus.bus.settlement import Parcel, Source
from fusebus.contracts.envelope import Envelope, traceparent_of
from fusebus.contracts.messages import BlobCreated, BlobCreatedData, CloseRun, Message, RunCheck

SOURCE = Source(topic="uploads", subscription="ingest")
RECEIVED: Any = SimpleNamespace(delivery_count=1, enqueued_at=datetime(2026, 5, 4, tzinfo=UTC), message_id="m")


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    yield kept


def close(number: int) -> CloseRun:
    return CloseRun(run_id=f"run-{number}", supplier="acme", requested_by="test")


def event(number: int) -> BlobCreated:
    subject = f"/blobServices/default/containers/in-acme/blobs/{number}.jpg"
    return BlobCreated(id="1", source="s", subject=subject, time=RECEIVED.enqueued_at, data=BlobCreatedData(e_tag="e"))


def parcel(message: Message, traceparent: str | None = None) -> Parcel:
    return Parcel(envelope=Envelope(message=message, traceparent=traceparent), topic="uploads")


def sent(*parcels: Parcel) -> list[str | None]:
    with tracing.Sending("uploads", parcels) as sending:
        return sending.traceparents()


def test_a_message_alone_carries_the_context_of_its_send(spans: InMemorySpanExporter) -> None:
    (traceparent,) = sent(parcel(close(1)))
    (span,) = spans.get_finished_spans()
    assert (span.name, span.kind) == ("send uploads", SpanKind.PRODUCER)
    assert traceparent is not None
    assert traceparent.startswith(f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-")


def test_of_several_each_has_a_context_of_its_own_and_the_send_links_to_all(spans: InMemorySpanExporter) -> None:
    traceparents = sent(parcel(close(1)), parcel(close(2)))
    first, second, send = spans.get_finished_spans()
    assert [first.name, second.name, send.name] == ["create uploads", "create uploads", "send uploads"]
    assert (first.kind, send.kind) == (SpanKind.PRODUCER, SpanKind.CLIENT)
    assert [link.context.span_id for link in send.links] == [first.context.span_id, second.context.span_id]
    assert len(set(traceparents)) == 2
    assert send.attributes is not None and send.attributes["messaging.batch.message_count"] == 2


def test_handling_is_a_child_of_the_span_that_made_the_message_and_what_it_sends_its_grandchild(
    spans: InMemorySpanExporter,
) -> None:
    (traceparent,) = sent(parcel(event(1)))
    envelope = Envelope(message=event(1), traceparent=traceparent)
    with tracing.process_span(SOURCE, RECEIVED, envelope):
        sent(parcel(close(1)))
    made, following, process = spans.get_finished_spans()
    assert process.parent is not None and process.parent.span_id == made.context.span_id
    assert following.parent is not None and following.parent.span_id == process.context.span_id
    assert made.context.trace_id == process.context.trace_id == following.context.trace_id
    assert [link.context.span_id for link in process.links] == [made.context.span_id]


@pytest.mark.parametrize("beginning", [event(1), RunCheck(run_id="r", supplier="acme")])
def test_an_upload_and_a_look_at_a_run_begin_a_trace_and_say_where_they_came_from(
    spans: InMemorySpanExporter, beginning: Message
) -> None:
    with tracing.process_span(SOURCE, RECEIVED, Envelope(message=close(1))):
        sent(parcel(beginning))
    begun, process = spans.get_finished_spans()
    assert begun.parent is None
    assert begun.context.trace_id != process.context.trace_id
    assert [link.context.span_id for link in begun.links] == [process.context.span_id]


def test_a_retry_stays_in_its_trace(spans: InMemorySpanExporter) -> None:
    (traceparent,) = sent(parcel(event(1)))
    with tracing.process_span(SOURCE, RECEIVED, Envelope(message=event(1), traceparent=traceparent)):
        sent(parcel(event(1), traceparent))
    made, again, process = spans.get_finished_spans()
    assert again.parent is not None and again.parent.span_id == process.context.span_id
    assert again.context.trace_id == made.context.trace_id


def test_the_context_travels_under_both_names_and_is_read_from_either() -> None:
    properties = Envelope(message=close(1), traceparent="00-ab-cd-01").properties()
    assert properties["traceparent"] == properties["Diagnostic-Id"] == "00-ab-cd-01"
    assert traceparent_of({"Diagnostic-Id": "00-12-34-01"}) == "00-12-34-01"
    assert traceparent_of({"traceparent": 7, "Diagnostic-Id": b"x"}) is None


def test_without_telemetry_a_context_that_came_is_handed_on() -> None:
    came = f"00-{'ab' * 16}-{'cd' * 8}-01"
    with tracing.process_span(SOURCE, RECEIVED, Envelope(message=close(1), traceparent=came)):
        assert sent(parcel(close(2))) == [came]
