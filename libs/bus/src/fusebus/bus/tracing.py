"""Spans of receive, handle and publish, and the W3C trace context that travels as an application property."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_tracer = trace.get_tracer("fusebus.bus")
_propagator = TraceContextTextMapPropagator()


def current_traceparent() -> str | None:
    """The current span as a `traceparent`; None outside any trace."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def receive_span(name: str, traceparent: str | None, attributes: Mapping[str, str | int]) -> Iterator[None]:
    """All that is done for one received message, as a child of the span that published it."""
    parent = _propagator.extract({"traceparent": traceparent} if traceparent else {})
    with _tracer.start_as_current_span(
        f"receive {name}", context=parent, kind=SpanKind.CONSUMER, attributes=dict(attributes)
    ):
        yield


@contextmanager
def span(name: str, kind: SpanKind = SpanKind.INTERNAL) -> Iterator[None]:
    """A step inside the current span."""
    with _tracer.start_as_current_span(name, kind=kind):
        yield
