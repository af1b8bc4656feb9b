"""The filters of one worker without a server around them: a chain that is fed by hand."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from proxy.abi.memory import HeadOptions
from proxy.abi.proxy_wasm.load import prepare
from proxy.chain.chains import Chains
from proxy.config.load import load
from proxy.telemetry.stream import StreamInfo
from proxy.telemetry.telemetry import Telemetry

FILTERS = Path(__file__).resolve().parent.parent / "filters"
REQUEST = (
    (b"host", b"service.example"),
    (b"user-agent", b"penstock-bench/1"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, br"),
)
RESPONSE = ((b"content-type", b"text/plain"), (b"x-upstream", b"bench"), (b"content-length", b"13"))


class Worker:
    """`filters`: name of a file in benchmarks/filters and its configuration."""

    def __init__(self, filters: Sequence[tuple[str, str]] = ()) -> None:
        with tempfile.TemporaryDirectory(prefix="penstock-micro-") as folder:
            path = Path(folder) / "penstock.yaml"
            path.write_text(json.dumps(configuration(filters)))
            config = load(path)
            self.chains = Chains(config, Telemetry(access=False), prepare(config.filters))
        self.chains.load()
        self.memory = self.chains.memory
        self.options = self.memory.options(HeadOptions())
        self.route = config.routes[0]

    def load_request(self, fields: Sequence[tuple[bytes, bytes]] = REQUEST) -> None:
        """A request's head into the live region."""
        self.memory.load_request(fields, b"GET", b"/hello?name=world", self.options, b"127.0.0.1", b"an-id")

    def request(self) -> None:
        """A request through the chain up to its head's bytes, and the stream's end."""
        memory = self.memory
        region = memory.begin()
        self.load_request()
        chain = self.chains.open(self.route, StreamInfo(), region, nothing)
        chain.request_headers(True)
        memory.emit_request(1)
        chain.finish()
        memory.release(region)

    def exchange(self) -> None:
        """A request and its response, heads only."""
        memory = self.memory
        region = memory.begin()
        self.load_request()
        chain = self.chains.open(self.route, StreamInfo(), region, nothing)
        chain.request_headers(True)
        memory.emit_request(1)
        memory.load_response(200, RESPONSE)
        chain.response_headers(True)
        memory.emit_response(1)
        chain.finish()
        memory.release(region)

    def close(self) -> None:
        self.chains.close()


def nothing() -> None:
    """Nobody waits for these streams."""


def configuration(filters: Sequence[tuple[str, str]]) -> dict[str, object]:
    """A config with this chain."""
    return {
        "listeners": [{"address": "127.0.0.1:8080"}],
        "clusters": [{"name": "service", "endpoints": ["127.0.0.1:9000"]}],
        "routes": [{"match": {"prefix": "/"}, "cluster": "service"}],
        "admin": None,
        "filters": [
            {"name": f"f{index}", "wasm": str(FILTERS / f"{name}.wasm"), **({"config": text} if text else {})}
            for index, (name, text) in enumerate(filters)
        ],
    }
