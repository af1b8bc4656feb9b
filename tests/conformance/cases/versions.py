"""The same cases asked by filters of the older ABI versions: 0.1.0, with its own functions for some things, and 0.2.0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tests.conformance.case import Case
from tests.conformance.cases.requests import GET, POST, THREE, THREE_BACK, TICK

OLDER = ("0.1.0", "0.2.0")
NEWER_ONLY = frozenset({"level"})
"""Commands for what 0.2.1 has brought."""
SINCE_0_2_0 = frozenset({"close", *NEWER_ONLY})

NAMES = (
    "window: maps in", "window: edits in r", "window: buffers in rqh", "window: buffers in rqb#1", "window: buffers in rsb#1",
    "window: buffers in log", "window: a tick", "ticks:", "effective context:", "proxy_done with nothing parked", "edge 13:",
    "call: answered", "call: with a body", "call: unknown cluster", "call: endpoint refuses", "call: local reply", "metrics:",
    "edge 21:", "edge 24:", "time", "status without a call", "edge 25:", "edge 8:", "properties set by", "foreign:", "ids:",
    "shared data: cas", "shared data: set and get", "shared data: absent", "queue: unknown", "queue: first in", "queue: resolved",
    "queue: on_queue_ready for each", "queue: on_queue_ready resumes", "reply: rqh of B", "reply: rqb of B", "reply: tick while rqh",
    "pause default: rqh, resumed by a tick", "pause default: rsh, resumed by a tick", "pause body: resumed by a tick", "trap: rqh",
    "request edit: add", "request body: three", "response body: three", "close_stream",
)  # fmt: skip
"""Beginnings of the names of cases that every version is asked."""

OWN = [
    Case("get_configuration in configure", ("configure: conf; buf 7 0 9",), GET, abi="0.1.0"),
    Case("get_configuration elsewhere", ("rqh: conf\nrsh: conf\nlog: conf",), GET, abi="0.1.0"),
    Case("get_configuration on a tick", (f"rqh: {TICK}; ret 1\ntick#1: conf; period 0; eff stream; cont 0",), GET, abi="0.1.0"),
    Case("clear_route_cache", ("rqh: rep 0 :path /two; clear\nrsh: clear\nlog: clear",), GET, routes=(("/two", "two"), ("/", "service")), abi="0.1.0"),
    Case("continue_request and continue_response", (f"rqh: {TICK}; ret 1\nrsh: period 60; ret 1\ntick#1: eff stream; cont 0\ntick#2: eff stream; cont 1; period 0",), POST, abi="0.1.0"),
    Case("every callback", ("rqh: get 0 :path\nrqb: buf 0 0 9\nrsh: get 2 :status\nrsb: buf 1 0 9",), THREE, (THREE_BACK,), abi="0.1.0"),
]  # fmt: skip


def words(case: Case) -> set[str]:
    return {word for script in case.scripts for word in script.replace(";", " ").split()}


def for_older(cases: Sequence[Case]) -> list[Case]:
    """Those of `cases` that the older versions can be asked as well."""
    found = [replace(case, name=f"0.1.0: {case.name}") for case in OWN]
    for version in OLDER:
        missing = SINCE_0_2_0 if version == "0.1.0" else NEWER_ONLY
        found += [
            replace(case, name=f"{version}: {case.name}", abi=version)
            for case in cases
            if case.name.startswith(NAMES) and not case.waiver and not words(case) & missing
        ]
    return found
