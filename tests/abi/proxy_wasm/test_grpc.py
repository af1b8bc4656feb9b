"""The gRPC host functions without a network: tokens, what becomes of them with the VM, and the extra that is not there."""

import pytest

from proxy.abi.proxy_wasm import grpc, load
from proxy.abi.services import CallRefusedError
from tests.abi.guest import OUT, Lines, Script

HEADERS = "proxy_on_request_headers"
CALL = ("proxy_grpc_call", b"auth", b"t.S", b"Echo", b"\0\0\0\0", b"message", 100, OUT)
STREAM = ("proxy_grpc_stream", b"auth", b"t.S", b"Echo", b"\0\0\0\0", OUT)
UNTOUCHED = 0xAAAA_AAAA


class Dialled:
    """A call that goes nowhere."""

    def __init__(self, arguments, events):
        self.arguments = arguments
        self.events = events
        self.did = []

    def send(self, message, end):
        if message == b"large":
            raise CallRefusedError(2, "large")
        self.did.append((message, end))

    def half_close(self):
        self.did.append("half_close")

    def cancel(self):
        self.did.append("cancel")


class Fake:
    """Stands for proxy/upstream/grpc_callout.py."""

    def __init__(self, refused=None):
        self.refused = refused
        self.calls = []

    def call(self, upstream, service, method, metadata, message, seconds, events):
        return self.dial((upstream, service, method, metadata, message, seconds), events)

    def stream(self, upstream, service, method, metadata, events):
        return self.dial((upstream, service, method, metadata), events)

    def dial(self, arguments, events):
        if self.refused is not None:
            raise self.refused
        self.calls.append(Dialled(arguments, events))
        return self.calls[-1]


@pytest.fixture
def dialling(start_filters):
    """`dialling(callbacks, ...)`: a started filter whose calls go to a Fake."""

    def make(callbacks, refused=None, **options):
        worker = start_filters(Script(callbacks, **options))
        fake = worker.plugins[0].grpc = Fake(refused)
        return worker, fake

    return make


def test_arguments_and_tokens(dialling):
    worker, fake = dialling({HEADERS: [CALL, STREAM, CALL, STREAM]})
    runs = worker.open().runs(HEADERS)
    assert [(run.status, run.u32()) for run in runs] == [(0, 5), (0, 6), (0, 9), (0, 10)]
    assert fake.calls[0].arguments == (b"auth", b"t.S", b"Echo", [], b"message", 0.1)
    assert fake.calls[1].arguments == (b"auth", b"t.S", b"Echo", [])


@pytest.mark.parametrize("closed", [None, (14, b"why")])
def test_a_call_that_is_refused_writes_no_token(dialling, closed):
    worker, _ = dialling({HEADERS: [CALL], "proxy_on_grpc_close": [("proxy_get_status", OUT, OUT, OUT)]},
                         refused=CallRefusedError(10, "reason", closed))  # fmt: skip
    (run,) = worker.open().runs(HEADERS)
    assert (run.status, run.u32()) == (10, UNTOUCHED)
    assert len(worker.timers) == (closed is not None)
    worker.plugins[0].grpc.refused = None
    if closed is not None:
        assert [events.token for events, *_ in worker.slots[0].grpc.refused] == [5]
        worker.timers[0].fire()
        (status,) = worker.runs("proxy_on_grpc_close")
        assert (status.status, status.u32()) == (0, 14)
    (run,) = worker.open().runs(HEADERS)
    assert run.u32() == (5 if closed is None else 9), "Envoy uses the token up only where it has begun"


def test_refused_calls_are_told_of_one_at_a_time_and_not_without_end(dialling):
    """Each of these callbacks may make more such calls: in one turn of the loop they would hold the worker for seconds."""
    worker, _ = dialling({HEADERS: [CALL] * 20, "proxy_on_grpc_close": [CALL] * 20},
                         refused=CallRefusedError(10, "reason", (14, b"why")))  # fmt: skip
    worker.open().call(HEADERS)
    for told in range(1, 30):
        (timer,) = worker.timers
        worker.timers.clear()
        timer.fire()
        assert worker.plugins[0].calls[17].value == told
        assert len(worker.slots[0].grpc.refused) <= grpc.MOST_REFUSED


def test_the_use_of_tokens(dialling):
    worker, fake = dialling({
        HEADERS: [CALL, STREAM],
        "proxy_on_request_body": [
            ("proxy_grpc_send", 6, b"one", 0), ("proxy_grpc_send", 6, b"large", 0),
            ("proxy_grpc_close", 6), ("proxy_grpc_close", 5),
            ("proxy_grpc_cancel", 5), ("proxy_grpc_send", 6, b"two", 1),
            ("proxy_grpc_cancel", 6), ("proxy_grpc_send", 6, b"", 0),
        ],
    })  # fmt: skip
    opened = worker.open()
    opened.call(HEADERS)
    assert [run.status for run in opened.runs("proxy_on_request_body")] == [0, 2, 0, 0, 1, 0, 0, 1]
    call, stream = fake.calls
    assert call.did == ["cancel"]
    assert stream.did == [(b"one", False), "half_close", (b"two", True), "cancel"]


def test_calls_end_with_the_vm(dialling):
    """What comes afterwards is for nobody, and the new VM counts from the start."""
    worker, fake = dialling({HEADERS: [CALL, STREAM], "proxy_on_grpc_receive": []})
    worker.open().call(HEADERS)
    slot = worker.slots[0]
    slot.died()
    assert [call.did for call in fake.calls] == [["cancel"], ["cancel"]]
    slot.rebuild_at = 0.0
    worker.open().call(HEADERS)
    for call in fake.calls[:2]:
        call.events.message(b"x")
        call.events.closed(0, b"")
    assert set(slot.grpc.entries) == {5, 6}
    assert worker.plugins[0].calls[15].value == 0


def test_streams_that_nobody_closes_are_forgotten(dialling, monkeypatch):
    monkeypatch.setattr(grpc, "MOST_ENDED", 3)
    worker, fake = dialling({HEADERS: [STREAM]})
    for _ in range(10):
        worker.open().call(HEADERS)
        fake.calls[-1].events.closed(0, b"")
    assert sorted(worker.slots[0].grpc.entries) == [34, 38, 42]


def test_a_token_is_its_root_s(start_filters):
    """Two filters of one VM: neither may touch the other's calls."""
    script = Script({HEADERS: [CALL], "proxy_on_request_body": [("proxy_grpc_cancel", 5)]})
    worker = start_filters((script, {"vm_id": "v"}), (script, {"vm_id": "v"}))
    fake = Fake()
    for one in worker.plugins:
        one.grpc = fake
    first, second = worker.open(0), worker.open(1)
    first.call(HEADERS)
    assert [run.status for run in second.runs("proxy_on_request_body")] == [1]
    assert [run.status for run in first.runs("proxy_on_request_body")] == [0]


def test_in_a_check_no_calls_are_made(start_filters):
    worker = start_filters(Script({HEADERS: [CALL]}))
    assert worker.open().runs(HEADERS)[0].status == 10


def test_without_the_extra(load_filters, monkeypatch):
    lines = Lines()
    monkeypatch.setattr(load, "log", lines)
    for module in (load, grpc):
        monkeypatch.setattr(module, "installed", lambda: False)
    load_filters(Script({HEADERS: [("proxy_log", 2, b"x")]}))
    assert lines.kept == []
    worker = load_filters(Script({HEADERS: [CALL, STREAM]})).start()
    assert lines.of("host_functions_unimplemented") == [
        {
            "filter": "f0", "functions": ["proxy_grpc_call", "proxy_grpc_stream"], "answer": "12 (Unimplemented)",
            "install": "pip install penstock[grpc]",
        }
    ]  # fmt: skip
    assert [(run.status, run.u32()) for run in worker.open().runs(HEADERS)] == [(12, UNTOUCHED)] * 2


def test_no_warning_with_it(load_filters, monkeypatch):
    lines = Lines()
    monkeypatch.setattr(load, "log", lines)
    monkeypatch.setattr(load, "installed", lambda: True)
    load_filters(Script({HEADERS: [CALL]}))
    assert lines.of("host_functions_unimplemented") == []
