"""Streams as traces: the context goes in and out by their heads, filters are watched where a stream is sampled."""

from collections.abc import Sequence
from typing import Any

from proxy.abi.filter import FAILED, LocalReply
from proxy.abi.memory import REQUEST_HEADERS, StreamMemory
from proxy.chain.chain import Chain
from proxy.chain.chains import Chains
from proxy.chain.shown import action_text
from proxy.chain.watched import Call
from proxy.config.model import Config
from proxy.telemetry.stream import StreamInfo

FIELDS = (b"traceparent", b"tracestate")


def tracer_of(config: Config, chains: Chains) -> "Tracer | None":
    """None if the config has no `tracing`: then the SDK is not even imported."""
    tracing = config.tracing
    if tracing is None:
        return None
    from proxy.telemetry.traces import Traces

    return Tracer(
        Traces(tracing.endpoint, tracing.sample, tracing.service_name, chains.worker, tracing.headers, tracing.timeout)
    )


class Tracer:
    """A watcher (watching.py). `traces`: proxy.telemetry.traces.Traces, which only an extra can import."""

    def __init__(self, traces: Any) -> None:
        self.traces = traces

    def record(self, info: StreamInfo, memory: StreamMemory) -> "Trace | None":
        """Put the stream's context in its head, in the place of the one that came; None if it is not sampled."""
        pairs = memory.pairs(REQUEST_HEADERS)
        came = [pair for pair in pairs if pair[0] in FIELDS]
        carrier: dict[str, str] = {}
        for name, value in came:
            said = value.decode("latin-1")
            carrier[name.decode()] = f"{carrier[name.decode()]},{said}" if name.decode() in carrier else said
        span = self.traces.begin(info, carrier)
        kept = [pair for pair in pairs if pair[0] not in FIELDS] if came else pairs
        memory.set_pairs(
            REQUEST_HEADERS, [*kept, *((name.encode(), value.encode("latin-1")) for name, value in carrier.items())]
        )
        return Trace(span) if span.sampled else None

    def close(self) -> None:
        """Send what is left. Blocks, for two seconds at most."""
        self.traces.close()


class Trace:
    """One sampled stream, as a witness of its chain."""

    def __init__(self, span: Any) -> None:
        self.span = span
        self.calls: dict[str, list[Call]] = {}

    def opened(self, chain: Chain, filters: Sequence[str]) -> None:
        self.calls = {name: [] for name in filters}

    def called(self, call: Call) -> None:
        self.calls[call.filter].append(call)

    def finished(self) -> None:
        for name, calls in self.calls.items():
            if not calls:
                continue
            last = calls[-1]
            attributes: dict[str, Any] = {
                "penstock.calls": len(calls),
                "penstock.fuel": sum(call.fuel for call in calls),
                "penstock.seconds": sum(call.seconds for call in calls),
                "penstock.actions": [f"{call.callback}: {action_text(call.result & 0xFF)}" for call in calls[:32]],
            }
            replies = [call.reply for call in calls if call.reply is not None]
            if replies:
                attributes["penstock.reply"] = replies[0].status
            failed = any(call.failed or call.result & FAILED for call in calls)
            self.span.filter(name, calls[0].began, last.began + last.seconds, attributes, failed)
        self.span.end()

    # What a trace does not tell

    def head(self, direction: int) -> None: ...

    def left(self, direction: int) -> None: ...

    def continued(self, name: str, direction: int) -> None: ...

    def overdue(self, name: str) -> None: ...

    def answered(self, reply: LocalReply) -> None: ...
