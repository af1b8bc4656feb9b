"""What a filter's gRPC host functions call, made from a worker's GrpcCallouts and the filter's policy."""

from collections.abc import Iterator
from contextlib import contextmanager

from proxy.abi.services import CallRefusedError, GrpcCall, GrpcEvents, Pairs
from proxy.upstream.callout import CalloutPolicy
from proxy.upstream.grpc_callout import GrpcCall as UpstreamCall
from proxy.upstream.grpc_callout import GrpcCallouts, GrpcRefusedError


class GrpcOf:
    """How a filter makes gRPC calls, within its config."""

    def __init__(self, callouts: GrpcCallouts, policy: CalloutPolicy) -> None:
        self.callouts = callouts
        self.policy = policy

    def call(
        self,
        upstream: bytes,
        service: bytes,
        method: bytes,
        metadata: Pairs,
        message: bytes,
        seconds: float,
        events: GrpcEvents,
    ) -> GrpcCall:
        with refusals():
            return GrpcCallOf(self.callouts.call(self.policy, upstream, service, method, metadata, message, seconds, events))

    def stream(self, upstream: bytes, service: bytes, method: bytes, metadata: Pairs, events: GrpcEvents) -> GrpcCall:
        with refusals():
            return GrpcCallOf(self.callouts.stream(self.policy, upstream, service, method, metadata, events))


class GrpcCallOf:
    """One of its calls."""

    __slots__ = ("call", "cancel", "half_close")

    def __init__(self, call: UpstreamCall) -> None:
        self.call = call
        self.cancel = call.cancel
        self.half_close = call.half_close

    def send(self, message: bytes, end: bool) -> None:
        with refusals():
            self.call.send(message, end)


@contextmanager
def refusals() -> Iterator[None]:
    try:
        yield
    except GrpcRefusedError as error:
        closed = None if error.ending is None else (error.ending.status, error.ending.message)
        raise CallRefusedError(error.status, error.reason, closed) from None
