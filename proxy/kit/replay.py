"""Runs a recorded stream again, offline: the same messages, clock and randomness, the same answers to host calls; and says what
came out differently, of the same filters or with another module in one's place."""

from __future__ import annotations

import dataclasses
import struct
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.abi.component.slot import ComponentSlot
from proxy.abi.proxy_wasm.host import ENQUEUE, GET_SHARED, OK, RANDOM, RESOLVE_QUEUE, SET_SHARED, TIME, Host
from proxy.abi.proxy_wasm.slot import VmSlot
from proxy.chain.component_recording import KEPT, Answer, answer_of, arguments_of
from proxy.chain.record_file import FormatError, packed, unpacked
from proxy.chain.recording import TEXTS, WORDS
from proxy.chain.shown import difference
from proxy.config.model import Config
from proxy.config.route import Route
from proxy.kit.calls import ScriptedCalls
from proxy.kit.cases import ScriptedCall, Sent
from proxy.kit.clock import Clock
from proxy.kit.expected import Wanted
from proxy.kit.hearing import Fault, Hearing, Line
from proxy.kit.runtime import Runtime, config_of, prepared_of
from proxy.kit.stream import Message, Outcome, Stream
from proxy.telemetry.stream import StreamInfo

Pairs = list[tuple[bytes, bytes]]

FAILURES = {"timeout": "timeout", "reset": "reset"}
"""What a call that failed is called in a script; all others are `unreachable`."""
SIDES = ("request", "response")


@dataclass(slots=True)
class Half:
    """One direction at one end of the chain."""

    head: Pairs | None = None
    pieces: list[bytes] = field(default_factory=list)
    trailers: Pairs = field(default_factory=list)
    cut: int = 0
    """Bytes of the body that the recording left out."""
    ended: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


@dataclass(slots=True)
class Recording:
    """A file's content, sorted."""

    first: dict[str, Any]
    came: dict[str, Half]
    left: dict[str, Half]
    host_calls: list[dict[str, Any]]
    http_calls: list[dict[str, Any]]
    http_answers: dict[int, dict[str, Any]]
    ended: dict[str, Any]

    @property
    def filters(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.first["filters"]
        return found


@dataclass(slots=True)
class Replayed:
    """What came of it. `differences`: what differs from the recording, a line each; `notes`: why it may."""

    differences: list[str]
    notes: list[str]
    outcome: Outcome
    lines: list[Line]
    faults: list[Fault]


def recording_of(lines: list[dict[str, Any]]) -> Recording:
    """Raises FormatError."""
    halves: dict[str, dict[str, Half]] = {end: {side: Half() for side in SIDES} for end in ("came", "left")}
    found = Recording(lines[0], halves["came"], halves["left"], [], [], {}, {})
    try:
        for line in lines[1:]:
            way = next((end for end in halves if end in line), None)
            if way is not None:
                add(halves[way][line[way]], line)
            elif "host_call" in line:
                found.host_calls.append(line["host_call"])
            elif "http_call" in line:
                found.http_calls.append(line["http_call"])
            elif "http_answer" in line:
                found.http_answers[line["http_answer"]["call"]] = line["http_answer"]
            elif "ended" in line:
                found.ended = line["ended"]
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"a line is not as docs/record.md says: {error!r}") from None
    if found.came["request"].head is None:
        raise FormatError("there is no request in it")
    return found


def add(half: Half, line: dict[str, Any]) -> None:
    if "headers" in line:
        half.head = pairs_of(line["headers"])
    elif "data" in line:
        half.pieces.append(unpacked(line["data"]))
        half.cut += line.get("cut", 0)
    else:
        half.trailers = pairs_of(line["trailers"])
    half.ended |= line.get("end", True)


def pairs_of(value: list[list[Any]]) -> Pairs:
    return [(unpacked(name), unpacked(text)) for name, text in value]


class Answers:
    """The recorded answers to host calls, each given once, in their order for each filter, function and arguments."""

    def __init__(self, recording: Recording, other: dict[str, str]) -> None:
        self.waiting: dict[str, deque[tuple[int, Any]]] = defaultdict(deque)
        self.last: dict[str, tuple[int, Any]] = {}
        self.unknown: list[str] = []
        self.recorded = {name: recorded for recorded, name in other.items()}
        """The name in the recording of each that may be in a config."""
        for call in recording.host_calls:
            name = other.get(call["filter"], call["filter"])
            self.waiting[key(name, call["function"], call["arguments"])].append((call["status"], call["value"]))

    def take(self, filter_: str, function: str, arguments: list[Any]) -> tuple[int, Any] | None:
        """The next one; when there are no more of them, the last one again; None if there never was one."""
        name = key(filter_, function, arguments)
        if self.waiting[name]:
            self.last[name] = self.waiting[name].popleft()
        found = self.last.get(name)
        if found is None:
            shown = ", ".join(str(one) for one in arguments)
            self.unknown.append(
                f"{self.recorded.get(filter_, filter_)}: {function}({shown}) is not in the recording; it got the kit's answer"
            )
        return found


def key(filter_: str, function: str, arguments: list[Any]) -> str:
    return repr((filter_, function, arguments))


class ReplayHost:
    """In the place of a VM's host functions: gives the recorded answers."""

    def __init__(self, inner: Host, slot: VmSlot, answers: Answers) -> None:
        self.inner = inner
        self.slot = slot
        self.answers = answers

    def __call__(self, operation: int) -> int:
        host, word = self.inner, WORDS.get(operation)
        if word is None:
            return host(operation)
        words = host.words(2)
        arguments: list[Any] = [packed(host.text(index)) for index in range(TEXTS.get(operation, 0))]
        if operation == RANDOM:
            arguments = [words[1]]
        elif word == "dequeue":
            arguments = [words[0]]
        found = self.answers.take(host.context.plugin.name, word, arguments)
        if found is None:
            return host(operation)
        status, value = found
        return self.give(operation, status, value, words)

    def give(self, operation: int, status: int, value: Any, words: tuple[int, ...]) -> int:
        host, memory = self.inner, self.inner.memory
        if operation == TIME:
            host(operation)  # the clock's steps
            memory.buffer[memory.at.time : memory.at.time + 8] = struct.pack("<Q", value)
        elif status != OK or operation in (SET_SHARED, ENQUEUE):
            return status
        elif operation == RANDOM:
            memory.write(words[0], bytes.fromhex(value["hex"]))
        elif operation == GET_SHARED:
            host.answer(unpacked(value[0]))
            struct.pack_into("<I", memory.buffer, memory.at.arguments + 8, value[1])
        elif operation == RESOLVE_QUEUE:
            host.set_words(value)
        else:
            host.answer(unpacked(value))
        return status


def replayed(slot: ComponentSlot, answers: Answers, name: str, answer: Answer) -> Answer:
    """A function that a component imports: gives the recorded answers to what is called for the stream."""
    if name not in KEPT:
        return answer

    def call(*values: Any) -> Any:
        if slot.host.stream is None:
            return answer(*values)
        found = answers.take(slot.host.configured.plugin.name, name, arguments_of(name, values))
        return answer(*values) if found is None else answer_of(name, *found)

    return call


class ReplayedStream(Stream):
    """A stream that is what the recorded one was, to its filters too."""

    def __init__(self, recording: Recording, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.recording = recording

    def begin(self) -> None:
        super().begin()
        first, info = self.recording.first, self.info
        info.source_address, info.destination_address = first["source_address"], first["destination_address"]
        info.scheme, info.protocol, info.request_id = first["scheme"], first["protocol"], first["request_id"]
        info.route_name, info.cluster_name = first["route"], first["cluster"]


def replay(recording: Recording, module: Path | None = None, only: str | None = None, config: Config | None = None) -> Replayed:
    """`module` stands in the place of filter `only`, or of the one there is. `config`: where the filters' settings come from,
    if not from the recording. Raises FormatError, SetupError, RefusedError, HeadError."""
    notes: list[str] = []
    entries, other = settings_of(recording, config, notes)
    if module is not None:
        place(entries, module, other, only)
    with Hearing() as hearing:
        whole = config_of(entries)
        clock = Clock(recording.first["time"])
        calls = ScriptedCalls(clock, script(recording), default=ScriptedCall("", "unreachable", Wanted({}, None)))
        with Runtime(whole, prepared_of(whole), clock, 1, calls=calls) as runtime:
            answers = Answers(recording, other)
            for slot in runtime.chains.slots.values():
                if isinstance(slot, VmSlot) and slot.vm is not None and isinstance(slot.vm.store.host, Host):
                    slot.vm.store.host = ReplayHost(slot.vm.store.host, slot, answers)
                elif isinstance(slot, ComponentSlot):
                    slot.linked.replace(lambda name, answer, slot=slot: replayed(slot, answers, name, answer))  # type: ignore[misc]
            started = len(hearing.logged)

            def route(info: StreamInfo, runtime: Runtime) -> Route | None:
                return whole.routes[0]

            request, response = sent(recording.came["request"], notes), sent(recording.came["response"], notes)
            outcome = ReplayedStream(recording, runtime, request, response, route).run()
            made = [(call.cluster, call.method, call.path) for call in calls.made]
        if outcome.upstream is not None and recording.came["response"].head is None:
            notes.append("the recording has no answer of the service: a 504 stands for it")
        notes += [*outcome.notes, *dict.fromkeys(answers.unknown)]
        differences = [*compare(recording, outcome), *compare_calls(recording, made)]
        recorded = answers.recorded
        faults = [dataclasses.replace(one, filter=recorded.get(one.filter, one.filter)) for one in hearing.faults]
        lines = [dataclasses.replace(one, filter=recorded.get(one.filter, one.filter)) for one in hearing.logged[started:]]
        differences += [f"fault: {one.filter}: {one.callback}: {one.reason}: {one.message}" for one in faults]
        return Replayed(differences, notes, outcome, lines, faults)


def settings_of(recording: Recording, config: Config | None, notes: list[str]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The filters as a config has them, and new names for names that no config may have. Raises FormatError."""
    entries = []
    other = {one["name"]: one["name"].replace("@", ".") for one in recording.filters}
    given = {one.name: one for one in config.filters} if config is not None else {}
    for one in recording.filters:
        name, wasm = one["name"], Path(one["wasm"])
        text = unpacked(one["config"]).decode() if one["config"] is not None else None
        if one["config_is_secret"]:
            filter_ = given.get(name.partition("@")[0])
            if filter_ is None:
                raise FormatError(f"the config of filter {name} holds secrets and is not recorded: give --config")
            text = filter_.config_bytes().decode()
        if not wasm.is_file():
            raise FormatError(f"the module of filter {name} is not there any more: {wasm}; give it with --wasm")
        import hashlib

        if hashlib.sha256(wasm.read_bytes()).hexdigest() != one["sha256"]:
            notes.append(f"{name}: {wasm} is another module than the recorded one")
        settings = {key: value for key, value in one["settings"].items() if value is not None}
        entries.append({**settings, "name": other[name], "wasm": str(wasm), "config": text or None})
    return entries, other


def place(entries: list[dict[str, Any]], module: Path, other: dict[str, str], only: str | None) -> None:
    """Raises FormatError."""
    chosen = [entry for entry in entries if only is None or entry["name"] == other.get(only, only)]
    if len(chosen) != 1:
        names = ", ".join(other)
        raise FormatError(f"say with --filter in the place of which filter the module stands: {names}")
    chosen[0]["wasm"] = str(module)


def script(recording: Recording) -> list[ScriptedCall]:
    """The answers to the filters' calls."""
    found = []
    for call in recording.http_calls:
        answer = recording.http_answers.get(call["call"])
        said: Sent | str = "unreachable"
        if answer is None:
            said = "timeout"  # it had not come when the stream ended
        elif "refused" in answer:
            said = "unknown"
        elif not answer["failure"]:
            pairs = pairs_of(answer["headers"])
            said = Sent(
                fields_of(pairs),
                unpacked(answer["body"]),
                None,
                status=status_of(pairs),
                trailers=fields_of(pairs_of(answer["trailers"])),
            )
        else:
            said = FAILURES.get(answer["failure"], "unreachable")
        seconds = answer.get("seconds", 0.0) if answer is not None else 0.0
        found.append(ScriptedCall(call["cluster"], said, Wanted({}, None), seconds))
    return found


def sent(half: Half, notes: list[str]) -> Sent:
    """A recorded message, to be sent again."""
    head = half.head or [(b":status", b"504")]
    named = dict(head)
    fields = fields_of(head)
    if b":authority" in named:
        fields = [("host", text_of(named[b":authority"])), *fields]
    if half.cut:
        notes.append(f"{half.cut} bytes of a body were not recorded: the message is sent without them")
    chunked = half.cut > 0 or not any(name == "content-length" for name, _ in fields)
    if half.cut:
        fields = [(name, value) for name, value in fields if name != "content-length"]
    pieces = [piece for piece in half.pieces if piece]
    chunks = pieces if chunked and (pieces or half.trailers) else None
    return Sent(
        fields, half.body, chunks, text_of(named.get(b":method", b"GET")), text_of(named.get(b":path", b"/")), status_of(head),
        fields_of(half.trailers),
    )  # fmt: skip


def fields_of(pairs: Pairs) -> list[tuple[str, str]]:
    return [(text_of(name), text_of(value)) for name, value in pairs if not name.startswith(b":")]


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def status_of(pairs: Pairs) -> int:
    value = dict(pairs).get(b":status", b"")
    return int(value) if value.isdigit() else 200


def compare(recording: Recording, outcome: Outcome) -> Iterator[str]:
    """What left the chain, then and now."""
    now = {"request": outcome.upstream, "response": outcome.downstream}
    for side in SIDES:
        then, message = recording.left[side], now[side]
        if (then.head is None) != (message is None):
            yield f"{side}: {some(then.head is not None)} left the filters, now {some(message is not None)}"
            continue
        if then.head is None or message is None:
            continue
        before, after = comparable(then.head), comparable(head_of(message, side))
        yield from (f"{side}: {line}" for line in difference(before, after))
        body = bytes(message.body)
        if not then.cut and then.body != body:
            yield f"{side} body: {len(then.body)} bytes, now {len(body)}: {shown(then.body)}, now {shown(body)}"
        if then.trailers != message.trailers:
            yield from (f"{side} trailers: {line}" for line in difference(then.trailers, message.trailers))


def head_of(message: Message, side: str) -> Pairs:
    """With the pseudo headers that its first line stands for."""
    if side == "response":
        return [(b":status", str(message.status).encode()), *message.headers]
    return [(b":method", message.method.encode()), (b":path", message.path.encode()), *message.headers]


FRAMING = frozenset(
    {b"content-length", b"transfer-encoding", b"connection", b"host", b":authority", b":scheme", b"date", b"server"}
)
"""What the gateway writes itself, in the recording or here."""


def comparable(pairs: Pairs) -> Pairs:
    return [pair for pair in pairs if pair[0] not in FRAMING]


def compare_calls(recording: Recording, made: list[tuple[str, str, str]]) -> Iterator[str]:
    before = []
    for call in recording.http_calls:
        named = dict(pairs_of(call["headers"]))
        before.append((call["cluster"], text_of(named.get(b":method", b"")), text_of(named.get(b":path", b""))))
    for then in before:
        if then in made:
            made.remove(then)
        else:
            yield f"call: - {then[1]} {then[2]} to {then[0]}"
    yield from (f"call: + {method} {path} to {cluster}" for cluster, method, path in made)


def some(there: bool) -> str:
    return "one" if there else "none"


def shown(data: bytes) -> str:
    text = data[:60].decode("utf-8", "backslashreplace")
    return repr(text) + ("..." if len(data) > 60 else "")
