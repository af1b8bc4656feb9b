"""Whether an exchange came out as its case says: what differs, a line each, most telling first."""

from collections.abc import Mapping, Sequence

from proxy.kit.expected import Expected, Wanted, WantedLine, field_problems
from proxy.kit.hearing import Fault, Line
from proxy.kit.meter import Callback
from proxy.kit.stream import Message, Outcome

MOST_SHOWN = 500
"""Bytes of a body in a report."""


def problems(
    expected: Expected,
    outcome: Outcome,
    lines: Sequence[Line],
    faults: Sequence[Fault],
    callbacks: Sequence[Callback],
    metrics: Mapping[str, int],
    memory: int,
) -> list[str]:
    """What is wrong with an exchange; empty if nothing is. `memory` in bytes."""
    found = failure_problems(expected, faults)
    found += request_problems(expected.upstream, outcome.upstream)
    found += response_problems(expected.downstream, outcome)
    found += reply_problems(expected.reply, outcome.reply)
    found += log_problems(expected.log, expected.no_log, lines)
    for name, value in (expected.metrics or {}).items():
        if metrics.get(name) != value:
            known = f"there are {', '.join(sorted(metrics))}" if metrics else "there are none"
            found.append(f"metric {name}: expected {value}, got {metrics.get(name, f'no such metric ({known})')}")
    if expected.fuel is not None and callbacks:
        most = max(callbacks, key=lambda one: one.fuel)
        if most.fuel > expected.fuel:
            found.append(f"fuel: expected at most {expected.fuel:,}, {most.name} took {most.fuel:,}")
    if expected.memory is not None and memory > expected.memory:
        found.append(f"memory: expected at most {expected.memory:,} bytes, got {memory:,}")
    return found + [f"note: {note}" for note in outcome.notes if found]


def failure_problems(expected: Expected, faults: Sequence[Fault]) -> list[str]:
    reasons = [fault.reason for fault in faults]
    if expected.failure is not None:
        if expected.failure in reasons:
            return []
        return [f"failure: expected {expected.failure}, got {', '.join(reasons) or 'none'}"]
    return [f"failure: {fault.callback}: {fault.reason}: {fault.message}" for fault in faults]


def reply_problems(wanted: str | None, got: str | None) -> list[str]:
    if wanted is None or wanted == got or (wanted == "none" and got is None) or (wanted == "any" and got is not None):
        return []
    return [f"local reply: expected {wanted}, got {'none' if got is None else got or 'one without details'}"]


def request_problems(wanted: Wanted | None, got: Message | None) -> list[str]:
    if wanted is None:
        # A head whose body was refused on the way is no request: the service never sees the end of it.
        return [] if got is None or not got.complete else [f"request: expected none upstream, got {got.start_line!r}"]
    if got is None:
        return ["request: expected one upstream, got none"]
    found = []
    if not got.complete:
        found.append("request: was not finished")
    for name, value, actual in (("method", wanted.method, got.method), ("path", wanted.path, got.path)):
        if value is not None and value != actual:
            found.append(f"request {name}: expected {value}, got {actual}")
    return found + [f"request {line}" for line in message_problems(wanted, got)]


def response_problems(wanted: Wanted | None, outcome: Outcome) -> list[str]:
    got = outcome.downstream
    if wanted is None:
        return [] if outcome.reset else [f"response: expected none, got {got.status if got else 'no reset either'}"]
    if outcome.reset:
        return [f"response: the stream was reset: {outcome.reset}"]
    if got is None:
        return ["response: expected one, got none"]
    found = [] if got.complete else ["response: was not finished"]
    if got.status != wanted.status:
        said = bytes(got.body[:MOST_SHOWN])
        by = f", local reply {outcome.reply}" if outcome.reply is not None else ""
        found.append(f"response status: expected {wanted.status}, got {got.status}{by}: {said!r}")
    return found + [f"response {line}" for line in message_problems(wanted, got)]


def message_problems(wanted: Wanted, got: Message) -> list[str]:
    found = field_problems(wanted.headers, got.headers)
    if wanted.body is not None and wanted.body != got.body:
        found += body_difference(wanted.body, bytes(got.body))
    if wanted.trailers is not None:
        found += [f"trailer {line}" for line in field_problems(wanted.trailers, got.trailers)]
    return found


def body_difference(expected: bytes, got: bytes) -> list[str]:
    """Short bodies whole, long ones from shortly before where they part."""
    if len(expected) + len(got) <= MOST_SHOWN:
        return [f"body: expected {expected!r}, got {got!r}"]
    at = next((i for i, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b), min(len(expected), len(got)))
    start = max(at - 20, 0)
    shown = f"expected ...{expected[start : at + 60]!r}, got ...{got[start : at + 60]!r}"
    return [f"body: {len(expected)} bytes expected, {len(got)} got; they part at byte {at}: {shown}"]


def log_problems(wanted: Sequence[WantedLine], unwanted: Sequence[str], lines: Sequence[Line]) -> list[str]:
    """Wanted lines come in their order, with others between them."""
    found = []
    rest = iter(lines)
    for one in wanted:
        if not any(one.text in line.message and one.level in (None, line.level) for line in rest):
            level = f" at level {one.level}" if one.level else ""
            logged = "; it logged " + " | ".join(f"{line.level}: {line.message}" for line in lines) if lines else ""
            found.append(f"log: expected a line with {one.text!r}{level}{logged or '; it logged nothing'}")
            break
    for text in unwanted:
        found += [f"log: expected no line with {text!r}, got {line.message!r}" for line in lines if text in line.message]
    return found
