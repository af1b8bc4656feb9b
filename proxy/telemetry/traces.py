"""OpenTelemetry traces: a span for each stream and one for each filter in it, sent as OTLP over HTTP.

Imported only where the config has `tracing` (an extra). Spans leave in batches from a thread of the SDK's own; what a collector
does not take in time is dropped there, and never waited for.
"""

import logging
from collections.abc import Mapping
from time import perf_counter, time_ns
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from proxy.telemetry.stream import StreamInfo

MOST_TEXT = 1024
"""Characters of an attribute."""
CLOSE_MS = 2000

Carrier = dict[str, str]
"""traceparent and tracestate."""


class Traces:
    """One per worker. `sample`: the part of the streams that begin a trace here; whoever sent a context has decided."""

    def __init__(
        self, endpoint: str, sample: float, service: str, worker: int, headers: Mapping[str, str], seconds: float
    ) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.WARNING)
        resource = Resource.create({"service.name": service, "service.instance.id": f"worker-{worker}"})
        self.provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample)), resource=resource, shutdown_on_exit=False
        )
        exporter = OTLPSpanExporter(endpoint=endpoint, headers=dict(headers), timeout=seconds)
        self.provider.add_span_processor(BatchSpanProcessor(exporter, export_timeout_millis=1e3 * seconds))
        self.tracer = self.provider.get_tracer("penstock")
        self.propagator = TraceContextTextMapPropagator()

    def begin(self, info: StreamInfo, carrier: Carrier) -> "StreamSpan":
        """A stream begins; `carrier` is what came with it and holds afterwards what goes on upstream."""
        span = StreamSpan(self, info, self.propagator.extract(carrier, Context()))
        carrier.clear()
        self.propagator.inject(carrier, span.context)
        return span

    def close(self) -> None:
        """Send what is left, for two seconds at most. Blocks."""
        self.provider.force_flush(CLOSE_MS)
        self.provider.shutdown()


class StreamSpan:
    """A stream's span, and those of its filters."""

    def __init__(self, traces: Traces, info: StreamInfo, parent: Context) -> None:
        self.traces = traces
        self.info = info
        self.unix, self.base = time_ns(), perf_counter()
        name = f"{info.method} {info.route_name}".strip()[:MOST_TEXT]
        self.span = traces.tracer.start_span(name, parent, SpanKind.SERVER, start_time=self.unix)
        self.context = set_span_in_context(self.span, parent)

    @property
    def sampled(self) -> bool:
        return self.span.is_recording()

    def at(self, clock: float) -> int:
        """A time of perf_counter() in nanoseconds since 1970."""
        return self.unix + int((clock - self.base) * 1e9)

    def filter(self, name: str, began: float, ended: float, attributes: Mapping[str, Any], failed: bool) -> Span:
        """A filter's span, over all its calls."""
        span = self.traces.tracer.start_span(
            f"filter {name}",
            self.context,
            SpanKind.INTERNAL,
            {"penstock.filter": name, **attributes},
            start_time=self.at(began),
        )
        if failed:
            span.set_status(StatusCode.ERROR)
        span.end(self.at(ended))
        return span

    def end(self) -> None:
        """The stream is over."""
        info, span = self.info, self.span
        address, _, port = info.source_address.rpartition(":")
        said: dict[str, Any] = {
            "http.request.method": info.method,
            "url.path": cut(info.path.partition("?")[0]),
            "url.scheme": info.scheme,
            "server.address": cut(info.authority),
            "http.route": cut(info.route_name),
            "client.address": address,
            "client.port": int(port) if port.isdecimal() else 0,
            "network.protocol.version": info.protocol.partition("/")[2],
            "penstock.request_id": info.request_id,
            "penstock.cluster": info.cluster_name,
            "penstock.upstream": info.upstream_address,
            "penstock.details": cut(info.details),
            "penstock.flags": info.flags,
            "penstock.answered_by": info.answered_by,
            "penstock.upstream_seconds": info.upstream_seconds,
            "penstock.filter_seconds": info.filter_seconds,
        }
        if info.status:
            said["http.response.status_code"] = info.status
        span.set_attributes({name: value for name, value in said.items() if value != ""})
        if not info.status or info.status >= 500:
            span.set_status(StatusCode.ERROR, cut(info.details))
        span.end(self.at(perf_counter()))


def cut(text: str) -> str:
    """Printable, and no longer than an attribute may be."""
    return text[:MOST_TEXT].encode("utf-8", "backslashreplace").decode()
