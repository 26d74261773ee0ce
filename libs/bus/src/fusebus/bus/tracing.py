"""Spans of send, process and settle by OpenTelemetry's messaging conventions; the trace context that messages carry.

A message's context is that of the span that made it: its own where several travel together, that of the send where it
travels alone. Whoever handles it works in a child of that span, so that all that follows from an upload is one tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from opentelemetry import trace
from opentelemetry.context import Context as TraceContext
from opentelemetry.trace import Link, Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from fusebus.bus.received import Received
from fusebus.bus.settlement import Complete, GiveBack, Parcel, Settlement, Source
from fusebus.contracts.envelope import Envelope, traceparent_of
from fusebus.contracts.messages import BlobCreated, RunCheck

SYSTEM = {"messaging.system": "servicebus"}
BEGINNINGS = (BlobCreated, RunCheck)
"""With these a trace begins: an upload has one of its own, also where many are announced at once; and what looks at a
run again and again belongs to no upload. A link says where it came from."""

_tracer = trace.get_tracer("fusebus.bus")
_propagator = TraceContextTextMapPropagator()
_ids = {"run": "fusebus.run.id", "upload": "fusebus.upload.id", "image": "fusebus.image.id"}


class Sending:
    """The spans of one topic's parcels on their way; entered while they are sent."""

    def __init__(self, topic: str, parcels: Sequence[Parcel]) -> None:
        attributes = {**destination(topic), "messaging.operation.name": "send", "messaging.operation.type": "send"}
        if len(parcels) == 1:
            self._span = _started(f"send {topic}", SpanKind.PRODUCER, parcels[0], attributes)
            self._made = [self._span]
        else:
            self._made = [_created(topic, parcel) for parcel in parcels]
            self._span = _tracer.start_span(
                f"send {topic}",
                kind=SpanKind.CLIENT,
                links=[Link(span.get_span_context()) for span in self._made],
                attributes={**attributes, "messaging.batch.message_count": len(parcels)},
            )

    def traceparents(self) -> list[str | None]:
        """One for each parcel; None outside any trace."""
        return [_traceparent(span) for span in self._made]

    def __enter__(self) -> Self:
        self._use = trace.use_span(self._span, end_on_exit=True)
        self._use.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if kind is not None:
            self._span.set_attribute("error.type", kind.__qualname__)
        self._use.__exit__(kind, error, where)


@contextmanager
def process_span(source: Source, message: Received, envelope: Envelope) -> Iterator[Span]:
    """All that is done for one received message, as a child of the span that made it."""
    attributes: dict[str, str | int] = {
        **destination(source.topic, source.subscription),
        **_about(envelope),
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.servicebus.message.delivery_count": message.delivery_count,
    }
    if message.enqueued_at is not None:
        attributes["messaging.servicebus.message.enqueued_time"] = int(message.enqueued_at.timestamp())
    parent = _context_of(envelope.traceparent)
    with _tracer.start_as_current_span(
        f"process {source.topic}",
        context=parent,
        kind=SpanKind.CONSUMER,
        attributes=attributes,
        links=_links(trace.get_current_span(parent)),
    ) as span:
        yield span


@contextmanager
def settle_span(source: Source, message: Received, settlement: Settlement) -> Iterator[None]:
    """The settling of one message, beside the span of its processing."""
    names = {Complete: "complete", GiveBack: "abandon"}
    name = names.get(type(settlement), "dead_letter")
    attributes = {
        **destination(source.topic, source.subscription),
        "messaging.message.id": message.message_id,
        "messaging.operation.name": name,
        "messaging.operation.type": "settle",
        "messaging.servicebus.disposition_status": name,
    }
    with _tracer.start_as_current_span(
        f"{name} {source.topic}",
        context=_context_of(traceparent_of(message.properties)),
        kind=SpanKind.CLIENT,
        attributes=attributes,
    ):
        yield


@contextmanager
def span(name: str) -> Iterator[None]:
    """A step inside the current span."""
    with _tracer.start_as_current_span(name):
        yield


def destination(topic: str, subscription: str | None = None) -> dict[str, str]:
    """What every span and metric says of where a message goes to or comes from."""
    found = {**SYSTEM, "messaging.destination.name": topic}
    return found if subscription is None else {**found, "messaging.destination.subscription.name": subscription}


def _created(topic: str, parcel: Parcel) -> Span:
    attributes = {**destination(topic), "messaging.operation.name": "create", "messaging.operation.type": "create"}
    span = _started(f"create {topic}", SpanKind.PRODUCER, parcel, attributes)
    span.end()
    return span


def _started(name: str, kind: SpanKind, parcel: Parcel, attributes: dict[str, str]) -> Span:
    # A retry carries the context of its first try: it stays in that trace.
    begins = isinstance(parcel.envelope.message, BEGINNINGS) and parcel.envelope.traceparent is None
    return _tracer.start_span(
        name,
        context=TraceContext() if begins else None,
        kind=kind,
        attributes={**attributes, **_about(parcel.envelope)},
        links=_links(trace.get_current_span()) if begins else None,
    )


def _about(envelope: Envelope) -> dict[str, str | int]:
    properties = envelope.properties()
    ids = {key: properties[name] for name, key in _ids.items() if name in properties}
    return {"messaging.message.id": envelope.message_id, "fusebus.message.attempt": envelope.attempt, **ids}


def _links(span: Span) -> list[Link]:
    context = span.get_span_context()
    return [Link(context)] if context.is_valid else []


def _context_of(traceparent: str | None) -> TraceContext:
    return _propagator.extract({"traceparent": traceparent} if traceparent else {}, TraceContext())


def _traceparent(span: Span) -> str | None:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, trace.set_span_in_context(span))
    return carrier.get("traceparent")
