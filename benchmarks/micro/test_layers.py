"""A crossing, each main host function, a head in and out, a chain of n filters. Names are kept, so that commits compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from benchmarks.micro.worker import REQUEST, RESPONSE, Worker

CALLS = 100
"""Host calls in a request of the host-call benchmarks; one costs (its time - that of "none") / CALLS."""
Make = Callable[[Sequence[tuple[str, str]]], Worker]


@pytest.fixture
def make() -> Iterator[Make]:
    workers: list[Worker] = []

    def make(filters: Sequence[tuple[str, str]]) -> Worker:
        workers.append(Worker(filters))
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()


def test_crossing(benchmark: Any, make: Make) -> None:
    """Python to Wasm and back: the cheapest function of the core."""
    memory = make(()).memory
    region = memory.begin_empty()
    function = memory.functions["new_stream"]
    benchmark(memory.store.call, function)
    memory.release(region)


@pytest.mark.parametrize("headers", [4, 40])
def test_request_head_in(benchmark: Any, make: Make, headers: int) -> None:
    """A parser's fields into the stream memory."""
    worker = make(())
    fields = (*REQUEST, *((b"x-extra-%d" % index, b"value-of-ordinary-length") for index in range(headers - len(REQUEST))))
    region = worker.memory.begin()
    benchmark(worker.load_request, fields)
    worker.memory.release(region)


def test_request_head_out(benchmark: Any, make: Make) -> None:
    """The bytes of a request's head."""
    worker = make(())
    region = worker.memory.begin()
    worker.load_request()
    head = benchmark(worker.memory.emit_request, 1)
    assert head.data.startswith(b"GET /hello?name=world HTTP/1.1\r\n")
    worker.memory.release(region)


def test_response_head_in(benchmark: Any, make: Make) -> None:
    """A response's fields into the stream memory."""
    worker = make(())
    region = worker.memory.begin()
    worker.load_request()
    benchmark(worker.memory.load_response, 200, RESPONSE)
    worker.memory.release(region)


def test_response_head_out(benchmark: Any, make: Make) -> None:
    """The bytes of a response's head."""
    worker = make(())
    region = worker.memory.begin()
    worker.load_request()
    worker.memory.load_response(200, RESPONSE)
    head = benchmark(worker.memory.emit_response, 1)
    assert head.data.startswith(b"HTTP/1.1 200 ")
    worker.memory.release(region)


@pytest.mark.parametrize("count", [0, 1, 3, 5, 10])
def test_chain(benchmark: Any, make: Make, count: int) -> None:
    """A request and its response through `count` typical header filters, heads in and out included."""
    worker = make([("probe", "")] * count)
    benchmark(worker.exchange)


@pytest.mark.parametrize("call", ["none", "get", "set", "pairs", "property", "time", "metric"])
def test_host_calls(benchmark: Any, make: Make, call: str) -> None:
    """A request whose one filter makes CALLS host calls."""
    worker = make([("calls", "get 0" if call == "none" else f"{call} {CALLS}")])
    benchmark(worker.request)
