"""Keeps chosen streams with the answers to their filters' host calls, to be run again by `penstock replay`.

What is wanted is a small file in the state directory (`Wish`), written by the admin process and followed by every worker. While
there is none, nothing here is called on a stream: plans, host functions and calls are the ones without recording.
"""

import os
import random
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from proxy.abi.component.plugin import ComponentPlugin
from proxy.abi.component.slot import ComponentSlot
from proxy.abi.filter import Callbacks, StreamFilter
from proxy.abi.proxy_wasm.host import (
    DEQUEUE,
    ENQUEUE,
    FOREIGN,
    GET_PROPERTY,
    GET_SHARED,
    OK,
    RANDOM,
    RESOLVE_QUEUE,
    SET_SHARED,
    TIME,
    Host,
)
from proxy.abi.proxy_wasm.plugin import Plugin
from proxy.abi.proxy_wasm.slot import VmSlot
from proxy.abi.services import Answer, Call, CallRefusedError, Http
from proxy.abi.services import Pairs as SomePairs
from proxy.chain.chain import Chain
from proxy.chain.component_recording import KEPT, arguments_of, told
from proxy.chain.record_file import KIND, VERSION, Redaction, packed, write
from proxy.chain.shadow import EVERYTHING, SIDES, Tap
from proxy.chain.solo import HEADS, TRAILERS
from proxy.config.filter import Filter
from proxy.config.route import Route
from proxy.sharing.state_file import StateFile
from proxy.telemetry.logging import limited

log = structlog.get_logger("record")

WORDS: Final = {
    TIME: "time", RANDOM: "random", GET_PROPERTY: "property", GET_SHARED: "shared_data", SET_SHARED: "set_shared_data",
    RESOLVE_QUEUE: "resolve_queue", ENQUEUE: "enqueue", DEQUEUE: "dequeue", FOREIGN: "foreign",
}  # fmt: skip
"""The host functions whose answers are kept: what does not follow from the stream itself."""
TEXTS: Final = {GET_PROPERTY: 1, GET_SHARED: 1, SET_SHARED: 2, RESOLVE_QUEUE: 2, ENQUEUE: 1, FOREIGN: 2}
"""How many texts they take."""
MOST_CALLS: Final = 2000
"""Host calls kept of a stream."""
MOST_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class Wish:
    """Which streams are kept, until when (seconds since 1970), and how much of them. `headers`: name -> value that a request
    must have, "" for any; `routes`: their names, none for all; `errors`: only those that end in a 5xx or broken."""

    until: float
    by: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    routes: list[str] = field(default_factory=list)
    errors: bool = False
    sample: float = 1.0
    body: int = 64 << 10
    most: int = 100
    redact: list[str] = field(default_factory=list)


class WishFile(StateFile[Wish]):
    """Where the wish lies, and the recordings."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "record.json", lambda said: Wish(**said))
        self.folder = directory / "recordings"

    def read(self) -> Wish | None:
        """What is wanted now; None: nothing."""
        wish = super().read()
        return wish if wish is not None and time.time() < wish.until else None

    def write(self, said: Wish) -> None:
        """Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        super().write(asdict(said))

    def count(self) -> int:
        with suppress(OSError):
            return sum(name.endswith(".jsonl") for name in os.listdir(self.folder))
        return 0


class Recorder:
    """What is wanted, in one worker. `filters`: what the config says of each filter, with its module's SHA-256."""

    def __init__(
        self,
        wish: Wish,
        files: WishFile,
        filters: dict[str, tuple[Filter, str]],
        routes: Iterable[Route],
        plugins: Iterable[Any],
    ) -> None:
        self.wish = wish
        self.files = files
        self.filters = filters
        self.plugins = list(plugins)
        self.secret = {name for route in routes for name, one in route.filters.items() if "config" in one._hidden}
        """Filters for which a route's own config holds a secret."""
        self.secret |= {name.partition("@")[0] for name, (one, _) in filters.items() if "config" in one._hidden}
        self.headers = {name.lower().encode(): value.encode() for name, value in wish.headers.items()}
        self.streams: dict[int, RecordedStream] = {}
        """By the id of their chain."""
        self.delivering: RecordedStream | None = None
        """Whose call's answer is being told to its filter."""
        self.kept = files.count()
        self.components: list[ComponentSlot] = []
        """Those whose imports are heard."""
        self.https: list[tuple[Plugin | ComponentPlugin, Http | None]] = [(plugin, plugin.http) for plugin in self.plugins]
        log.info("recording_begins", by=wish.by, until=round(wish.until), kept=self.kept)
        for plugin, http in self.https:
            if http is not None:
                plugin.http = self.listening(plugin.name, http)

    def wants(self, chain: Chain) -> bool:
        """Is the stream that begins, its head loaded, one to keep?"""
        wish = self.wish
        if self.kept >= wish.most or len(self.streams) >= MOST_AT_ONCE:
            return False
        if wish.routes and chain.info.route_name not in wish.routes:
            return False
        for name, value in self.headers.items():
            found = chain.memory.get(HEADS[0], name)
            if found is None or (value and found != value):
                return False
        return wish.sample >= 1 or random.random() < wish.sample

    def around(self, chain: Chain, members: Sequence[tuple[StreamFilter, Callbacks]]) -> list[tuple[StreamFilter, Callbacks]]:
        """The filters of a stream that is kept, with what listens on both sides of them."""
        stream = RecordedStream(self, chain, [member.name for member, _ in members if member.name])
        self.streams[id(chain)] = stream
        return [(Tap(stream, True), EVERYTHING), *members, (Tap(stream, False), EVERYTHING)]

    def current(self, slot: VmSlot | ComponentSlot) -> "RecordedStream | None":
        """The stream for which a filter's callback runs, if it is kept."""
        if isinstance(slot, ComponentSlot):
            part = slot.host.stream
            return None if part is None else self.streams.get(id(part.stream))
        caller = slot.caller or slot.running
        stream = getattr(caller, "stream", None)
        return self.delivering if stream is None else self.streams.get(id(stream))

    def listening(self, name: str, http: Http) -> Http:
        """`http`, heard."""

        def start(
            upstream: str, headers: SomePairs, body: bytes, trailers: SomePairs, timeout: float, done: Callable[[Answer], None]
        ) -> Call:
            plugin = next(plugin for plugin in self.plugins if plugin.name == name)
            stream = self.current(plugin.slot)
            if stream is None:
                return http(upstream, headers, body, trailers, timeout, done)
            number = stream.call(name, upstream, headers, body, timeout)
            began = time.monotonic()

            def heard(answer: Answer) -> None:
                stream.call_answered(number, answer, time.monotonic() - began)
                self.delivering = stream
                try:
                    done(answer)
                finally:
                    self.delivering = None

            try:
                return http(upstream, headers, body, trailers, timeout, heard)
            except CallRefusedError as error:
                stream.add({"http_answer": {"call": number, "refused": error.status}})
                raise

        return start

    def listen(self, slots: Iterable[Any]) -> None:
        """Hear the host functions of all VMs, those built since included."""
        for slot in slots:
            vm = slot.vm if isinstance(slot, VmSlot) else None
            if vm is not None and not isinstance(vm.store.host, RecordingHost):
                vm.store.host = RecordingHost(vm.store.host, slot, self)
            if isinstance(slot, ComponentSlot) and slot not in self.components:
                self.components.append(slot)
                slot.linked.replace(lambda name, answer, slot=slot: self.heard(slot, name, answer))  # type: ignore[misc]

    def heard(self, slot: ComponentSlot, name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        """A function that a component imports, its answers kept."""
        if name not in KEPT:
            return answer

        def call(*values: Any) -> Any:
            given = answer(*values)
            stream = self.current(slot)
            if stream is not None:
                arguments, (status, value) = arguments_of(name, values), told(name, given)
                if name == "properties.get" and isinstance(value, str) and self.hides(str(arguments[0]).rpartition(".")[2]):
                    stream.redaction.learn(value.encode())
                stream.host_call(slot.host.configured.plugin.name, name, arguments, status, value)
            return given

        return call

    def hides(self, header: str) -> bool:
        """Is it a header that is redacted?"""
        return header.lower() in {one.lower() for one in self.wish.redact}

    def stop(self, slots: Iterable[Any]) -> None:
        """No more: everything as it was. Streams that are not over are not kept."""
        log.info("recording_stops", by=self.wish.by)
        for plugin, http in self.https:
            plugin.http = http
        for slot in slots:
            vm = slot.vm if isinstance(slot, VmSlot) else None
            if vm is not None and isinstance(vm.store.host, RecordingHost):
                vm.store.host = vm.store.host.inner
        while self.components:
            self.components.pop().linked.restore()
        self.streams.clear()

    def over(self, stream: "RecordedStream") -> None:
        """A stream has ended: write it, if it is one to keep."""
        if self.streams.pop(id(stream.chain), None) is None:
            return
        info = stream.chain.info
        if self.wish.errors and not (info.status >= 500 or (not info.status and "DC" not in info.flags)):
            return
        if self.kept >= self.wish.most:
            return
        # Other workers write too; looked at for each stream that is kept, so at most `most` times.
        self.kept = max(self.kept + 1, self.files.count() + 1)
        name = re.sub(r"[^A-Za-z0-9-]", "", info.request_id)[:64]
        path = self.files.folder / f"{time.strftime('%Y%m%dT%H%M%S')}-{name or 'stream'}-{os.getpid()}-{self.kept}.jsonl"
        try:
            write(path, stream.lines(self.filters))
        except OSError as error:
            if not limited("record", 0.1):
                log.error("recording_not_written", file=str(path), error=str(error))
            return
        log.info("stream_recorded", file=str(path), request_id=info.request_id)


class RecordedStream:
    """What is kept of one stream; the taps tell it what comes to the chain and leaves it."""

    def __init__(self, recorder: Recorder, chain: Chain, filters: list[str]) -> None:
        self.recorder = recorder
        self.chain = chain
        self.filters = filters
        self.events: list[dict[str, Any]] = []
        self.redaction = Redaction(recorder.wish.redact)
        self.sizes: dict[tuple[int, bool], int] = {}
        self.calls = 0
        self.host_calls = 0

    def add(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    # ---- What comes and leaves ----

    def head(self, direction: int, comes: bool, end: bool) -> None:
        pairs = self.chain.memory.pairs(HEADS[direction])
        self.add({**self.way(direction, comes), "headers": self.redaction.pairs(pairs), "end": end})

    def data(self, direction: int, comes: bool, data: bytes, end: bool) -> None:
        before = self.sizes.get((direction, comes), 0)
        self.sizes[direction, comes] = before + len(data)
        kept = data[: max(self.recorder.wish.body - before, 0)]
        if kept or end or not data:
            cut = {"cut": len(data) - len(kept)} if len(kept) < len(data) else {}
            self.add({**self.way(direction, comes), "data": packed(kept), "end": end, **cut})

    def trailers(self, direction: int, comes: bool) -> None:
        pairs = self.chain.memory.pairs(TRAILERS[direction])
        self.add({**self.way(direction, comes), "trailers": self.redaction.pairs(pairs)})

    def way(self, direction: int, comes: bool) -> dict[str, Any]:
        return {"came" if comes else "left": SIDES[direction]}

    def finish(self) -> None:
        self.recorder.over(self)

    # ---- What filters ask for ----

    def call(self, filter_: str, upstream: str, headers: SomePairs, body: bytes, timeout: float) -> int:
        self.calls += 1
        self.add({
            "http_call": {
                "call": self.calls, "filter": filter_, "cluster": upstream, "headers": self.redaction.pairs(headers),
                "body": packed(body[: self.recorder.wish.body]), "timeout": timeout,
            }
        })  # fmt: skip
        return self.calls

    def call_answered(self, number: int, answer: Answer, seconds: float) -> None:
        self.add({
            "http_answer": {
                "call": number, "seconds": round(seconds, 6), "headers": self.redaction.pairs(answer.headers),
                "body": packed(answer.body[: self.recorder.wish.body]), "trailers": self.redaction.pairs(answer.trailers),
                "failure": answer.failure,
            }
        })  # fmt: skip

    def host_call(self, filter_: str, function: str, arguments: list[Any], status: int, value: Any) -> None:
        self.host_calls += 1
        if self.host_calls <= MOST_CALLS:
            self.add({
                "host_call": {
                    "filter": filter_, "function": function, "arguments": arguments, "status": status, "value": value
                }
            })  # fmt: skip

    def lines(self, filters: dict[str, tuple[Filter, str]]) -> list[dict[str, Any]]:
        """The file."""
        info = self.chain.info
        first = {
            KIND: VERSION,
            "time": info.start,
            "request_id": info.request_id,
            "route": info.route_name,
            "cluster": info.cluster_name,
            "scheme": info.scheme,
            "protocol": info.protocol,
            "source_address": info.source_address,
            "destination_address": info.destination_address,
            "filters": [
                described(*filters[name], self.configuration(name), name.partition("@")[0] in self.recorder.secret)
                for name in self.filters
            ],
        }
        last = {
            "ended": {
                "status": info.status, "details": info.details, "flags": info.flags, "answered_by": info.answered_by,
                "seconds": round(time.time() - info.start, 6), "host_calls": self.host_calls,
            }
        }  # fmt: skip
        cleaned: list[dict[str, Any]] = self.redaction.clean([first, *self.events, last])
        return cleaned

    def configuration(self, name: str) -> bytes | None:
        """What the filter reads as its configuration in this stream, if that is its route's own."""
        part = next((one for one in self.chain.filters if one.name == name), None)
        inner = getattr(part, "inner", part)
        root = getattr(inner, "root", None) or getattr(inner, "configured", None)
        found: bytes | None = getattr(root, "configuration", None)
        return found if found is not None and found != self.recorder.filters[name][0].config_bytes() else None


def described(filter_: Filter, digest: str, own: bytes | None, secret: bool) -> dict[str, Any]:
    """A filter's config as a recording has it, secrets left out; `own`: its route's configuration for it."""
    settings = filter_.redacted()
    for key in ("name", "wasm", "sha256", "canary", "shadow", "probe", "config", "signed_as", "require_signature"):
        settings.pop(key, None)
    config = None if secret else packed(own if own is not None else filter_.config_bytes())
    return {
        "name": filter_.name, "wasm": str(Path(str(filter_.wasm)).absolute()), "sha256": digest, "config": config,
        "config_is_secret": secret, "settings": settings,
    }  # fmt: skip


class RecordingHost:
    """In the place of a VM's host functions: answers as they do, and keeps the answers."""

    def __init__(self, inner: Any, slot: VmSlot, recorder: Recorder) -> None:
        self.inner = inner
        self.slot = slot
        self.recorder = recorder

    def __call__(self, operation: int) -> int:
        word = WORDS.get(operation)
        stream = self.recorder.current(self.slot) if word is not None else None
        host = self.inner
        if word is None or stream is None or not isinstance(host, Host):
            return int(host(operation))
        arguments: list[Any] = [packed(host.text(index)) for index in range(TEXTS.get(operation, 0))]
        words = host.words(2)
        if operation == RANDOM:
            arguments = [words[1]]
        elif operation == DEQUEUE:
            arguments = [words[0]]
        status = int(host(operation))
        value = result(host, operation, words) if status == OK else None
        if operation == GET_PROPERTY and self.hides(arguments[0]) and isinstance(value, str):
            stream.redaction.learn(value.encode())
        stream.host_call(host.context.plugin.name, word, arguments, status, value)
        return status

    def hides(self, path: Any) -> bool:
        """Is it the property of a header that is redacted?"""
        return isinstance(path, str) and self.recorder.hides(path.rpartition("\0")[2])


def result(host: Host, operation: int, words: tuple[int, ...]) -> Any:
    """What a host function has answered."""
    memory = host.memory
    match operation:
        case _ if operation == TIME:
            return int.from_bytes(memory.bytes_at(memory.at.time, 8), "little")
        case _ if operation == RANDOM:
            return {"hex": memory.bytes_at(*words).hex()}
        case _ if operation in (GET_PROPERTY, DEQUEUE, FOREIGN):
            return packed(host.text(0))
        case _ if operation == GET_SHARED:
            return [packed(host.text(0)), memory.words_at(memory.at.arguments + 8, 1)[0]]
        case _ if operation == RESOLVE_QUEUE:
            return host.words(1)[0]
        case _:
            return None
