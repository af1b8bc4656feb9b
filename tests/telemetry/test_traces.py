"""Traces, received by a collector that speaks OTLP over HTTP."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from tests.integration.gateway import Gateway, filter_of

FILTERS = Path(__file__).parents[2] / "filters"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRET = "Basic YWRhOmxvdmVsYWNl"


@dataclass
class Receiver:
    """A collector at `/v1/traces`, and the service behind the gateway at every other path."""

    port: int = 0
    spans: list[Any] = field(default_factory=list)
    resources: list[dict[str, str]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    requests: list[web.BaseRequest] = field(default_factory=list)

    async def answer(self, request: web.BaseRequest) -> web.Response:
        if request.path != "/v1/traces":
            self.requests.append(request)
            return web.Response(text="ok", status=int(request.query.get("status", 200)))
        data = await request.read()
        if request.headers.get("Content-Encoding") == "gzip":
            data = gzip.decompress(data)
        batch = ExportTraceServiceRequest.FromString(data)
        self.tokens.add(request.headers.get("x-token"))
        for found in batch.resource_spans:
            self.resources.append({one.key: one.value.string_value for one in found.resource.attributes})
            self.spans += [span for scope in found.scope_spans for span in scope.spans]
        return web.Response(body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    runner = web.ServerRunner(web.Server(found.answer), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.port = runner.addresses[0][1]
    yield found
    await runner.cleanup()


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def given(request: web.BaseRequest) -> tuple[str, str, bool]:
    """Trace, parent and whether it is sampled, of what the service got."""
    version, trace, parent, flags = request.headers["traceparent"].split("-")
    assert version == "00"
    return trace, parent, bool(int(flags, 16) & 1)


async def test_streams_and_filters_are_spans(receiver):
    filters = [
        filter_of(FILTERS / "header-rewrite" / "header-rewrite.wasm", "rewrite", {"request": {"set": {"x-new": "1"}}}),
        filter_of(
            FILTERS / "basic-auth" / "basic-auth.wasm", "auth",
            {"realm": "r", "users": {"ada": "pbkdf2-sha256:300:5d1ff6fa0d8a7c4b9e23c1d07be64f12:"
             "599d3c39752bb2d72fc279927d0571d53b947d00759a7f036c3a07948945b1c6"}},
        ),
    ]  # fmt: skip
    tracing = {
        "endpoint": f"http://127.0.0.1:{receiver.port}/v1/traces", "sample": "100%", "service_name": "edge",
        "headers": {"x-token": "t"},
    }  # fmt: skip
    async with Gateway(filters, {"service": receiver.port}, tracing=tracing) as gateway:
        parent = f"00-{TRACE}-{PARENT}-01"
        await gateway.get("/in?secret=1", authorization=SECRET, traceparent=parent, tracestate="vendor=x")
        await gateway.get("/unsampled", authorization=SECRET, traceparent=f"00-{TRACE}-{PARENT}-00")
        await gateway.get("/own", authorization=SECRET)
        await gateway.get("/broken", authorization=SECRET, traceparent="00-zz")
        await gateway.get("/refused")
        await gateway.get("/?status=503", authorization=SECRET)
        assert await gateway.stop() == 0  # what was not sent yet is sent at the end

    took, unsampled, own, broken, failing = receiver.requests
    assert (given(took)[0], given(took)[2], took.headers["tracestate"]) == (TRACE, True, "vendor=x")
    assert given(took)[1] != PARENT
    assert (given(unsampled)[0], given(unsampled)[2]) == (TRACE, False)
    assert given(unsampled)[1] != PARENT
    assert given(own)[2]
    assert len({given(own)[0], given(broken)[0], TRACE}) == 3

    streams = {span.name: span for span in receiver.spans if span.kind == span.SPAN_KIND_SERVER}
    by_path = {attributes(span)["url.path"]: span for span in receiver.spans if span.kind == span.SPAN_KIND_SERVER}
    assert set(by_path) == {"/in", "/own", "/broken", "/refused", "/"}
    assert list(streams) == ["GET prefix:/"]
    stream = by_path["/in"]
    assert (stream.trace_id.hex(), stream.parent_span_id.hex(), stream.span_id.hex()) == (TRACE, PARENT, given(took)[1])
    said = attributes(stream)
    assert (said["http.request.method"], said["http.response.status_code"], said["http.route"]) == ("GET", 200, "prefix:/")
    assert 0 < said["penstock.filter_seconds"] < 1e-9 * (stream.end_time_unix_nano - stream.start_time_unix_nano)
    parts = [span for span in receiver.spans if span.parent_span_id == stream.span_id]
    assert sorted(span.name for span in parts) == ["filter auth", "filter rewrite"]
    for span in parts:
        assert span.trace_id == stream.trace_id
        assert stream.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano <= stream.end_time_unix_nano
        assert attributes(span)["penstock.fuel"] > 0
    refused = [span for span in receiver.spans if span.parent_span_id == by_path["/refused"].span_id]
    assert {span.name: attributes(span).get("penstock.reply") for span in refused}["filter auth"] == 401
    failed = by_path["/"]
    assert (failed.span_id.hex(), failed.status.code) == (given(failing)[1], failed.status.STATUS_CODE_ERROR)
    assert by_path["/own"].status.code == failed.status.STATUS_CODE_UNSET
    assert receiver.resources[0]["service.name"] == "edge"
    assert receiver.tokens == {"t"}


async def test_a_collector_that_is_gone_is_not_waited_for(receiver, unused_tcp_port):
    tracing = {"endpoint": f"http://127.0.0.1:{unused_tcp_port}/v1/traces", "sample": "0%", "timeout": "500ms"}
    async with Gateway([], {"service": receiver.port}, tracing=tracing) as gateway:
        status, _, _ = await gateway.get("/", traceparent=f"00-{TRACE}-{PARENT}-01")
        await gateway.get("/")
        assert status == 200
        async with asyncio.timeout(10):
            assert await gateway.stop() == 0
    assert [given(request)[2] for request in receiver.requests] == [True, False]


def test_nothing_is_imported_without_it():
    script = "import sys, proxy.server.worker, proxy.server.assembly; print([n for n in sys.modules if 'opentelemetry' in n])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
