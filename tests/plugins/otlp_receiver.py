"""A real OTLP/HTTP receiver: decodes what services export with the protocol's own messages, and keeps it."""

import asyncio
import gzip
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

MAX_BYTES = 64 * 1024 * 1024
KINDS = {
    WireSpan.SPAN_KIND_INTERNAL: "internal",
    WireSpan.SPAN_KIND_CLIENT: "client",
    WireSpan.SPAN_KIND_PRODUCER: "producer",
    WireSpan.SPAN_KIND_CONSUMER: "consumer",
    WireSpan.SPAN_KIND_SERVER: "server",
}


@dataclass(frozen=True, kw_only=True)
class Span:
    """One received span; ids in hexadecimal, times in nanoseconds."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    """Empty for a root."""
    links: tuple[tuple[str, str], ...]
    """Trace and span."""
    attributes: dict[str, object]
    began: int
    ended: int
    failed: bool


@dataclass
class Received:
    """Everything that came, in order."""

    spans: list[Span] = field(default_factory=list)
    metrics: dict[str, set[frozenset[str]]] = field(default_factory=dict)
    """Names of metrics with the sets of attribute names they came with."""
    units: dict[str, str] = field(default_factory=dict)
    headers: list[dict[str, str]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    """The requests' bodies as they came, unpacked."""

    def trace_of(self, **attributes: object) -> str:
        """The trace of the first span with these attributes (dots as __). Raises LookupError."""
        wanted = {name.replace("__", "."): value for name, value in attributes.items()}
        for span in self.spans:
            if wanted.items() <= span.attributes.items():
                return span.trace
        raise LookupError(str(wanted))

    def tree(self, trace: str) -> list[Span]:
        """All spans of one trace, in the order in which they began."""
        return sorted((span for span in self.spans if span.trace == trace), key=lambda span: span.began)


class OtlpReceiver:
    """Listens on loopback in a thread of its own; `with OtlpReceiver() as receiver: ... receiver.received`."""

    def __init__(self, port: int = 0) -> None:
        """Port 0 takes a free one."""
        self.received = Received()
        self.endpoint = ""
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="otlp", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())

    async def _listen(self) -> None:
        app = web.Application(client_max_size=MAX_BYTES)
        app.add_routes([web.post("/v1/traces", self._traces), web.post("/v1/metrics", self._metrics)])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.endpoint = f"http://127.0.0.1:{port}"

    async def _body(self, request: web.Request) -> bytes:
        assert request.headers["Content-Type"] == "application/x-protobuf"
        data = await request.read()
        if request.headers.get("Content-Encoding") == "gzip" and data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        self.received.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.received.raw.append(data)
        return data

    async def _traces(self, request: web.Request) -> web.Response:
        told = ExportTraceServiceRequest.FromString(await self._body(request))
        self.received.spans += spans_of(told)
        return _answer(ExportTraceServiceResponse().SerializeToString())

    async def _metrics(self, request: web.Request) -> web.Response:
        told = ExportMetricsServiceRequest.FromString(await self._body(request))
        for resource in told.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points = getattr(metric, metric.WhichOneof("data")).data_points
                    names = self.received.metrics.setdefault(metric.name, set())
                    names |= {frozenset(pair.key for pair in point.attributes) for point in points}
                    self.received.units[metric.name] = metric.unit
        return _answer(ExportMetricsServiceResponse().SerializeToString())


def spans_of(told: ExportTraceServiceRequest) -> Iterator[Span]:
    """What one request tells."""
    for resource in told.resource_spans:
        service = str(_values(resource.resource.attributes).get("service.name", ""))
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    service=service,
                    name=span.name,
                    kind=KINDS.get(span.kind, ""),
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    attributes=_values(span.attributes),
                    began=span.start_time_unix_nano,
                    ended=span.end_time_unix_nano,
                    failed=span.status.code == 2,
                )


def _values(pairs: object) -> dict[str, object]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in pairs}  # type: ignore[attr-defined]


def _answer(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/x-protobuf")
