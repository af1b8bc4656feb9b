"""The tap: what filters did to recent streams, kept for the admin pages while the operator looks.

Off by default, and then nothing of it runs. Names in `redact` lose their values before anything is kept; bodies are kept (their
first bytes) only if asked for. A worker keeps the last RING streams, each at most MOST_TEXT characters.
"""

import random
import time
from collections import deque
from collections.abc import Collection, Sequence
from itertools import count
from time import perf_counter
from typing import Any, Final

from proxy.abi.filter import ACTION, BODY, FAILED, LOCAL_REPLY, LocalReply
from proxy.abi.memory import REQUEST_HEADERS, RESPONSE_HEADERS, StreamMemory
from proxy.chain.chain import Chain
from proxy.chain.shown import HIDDEN, action_text, difference, text
from proxy.chain.watched import Call
from proxy.telemetry.stream import StreamInfo

RING: Final = 100
"""Streams kept in each worker."""
MOST_TEXT: Final = 32 * 1024
"""Characters kept of one stream: beyond, its steps are only counted."""
LONGEST_VALUE: Final = 512
"""Characters of one field that are kept."""
BODY_PREVIEW: Final = 512
"""Bytes of a body that are kept, if bodies are asked for."""

MAPS: Final = (REQUEST_HEADERS, RESPONSE_HEADERS)
SIDES: Final = ("request", "response")

Pairs = list[tuple[bytes, bytes]]


class Tap:
    """One worker's ring. `sample`: which part of the streams is kept, 0 to 1."""

    def __init__(self, redact: Collection[str]) -> None:
        self.hide(redact)
        self.sample = 1.0
        self.bodies = False
        self.ring: deque[Record] = deque(maxlen=RING)
        self.numbers = count(1)

    def hide(self, names: Collection[str]) -> None:
        """Headers whose values are not kept from now on."""
        self.redact = frozenset(name.lower().encode() for name in names)

    def record(self, info: StreamInfo, memory: StreamMemory) -> "Record | None":
        """The record of a new stream; None if it is not chosen."""
        if self.sample < 1.0 and random.random() >= self.sample:
            return None
        record = Record(self, next(self.numbers), info)
        self.ring.append(record)
        return record

    def streams(self) -> list[dict[str, Any]]:
        """A line for each stream, newest first."""
        return [record.summary() for record in reversed(self.ring)]

    def stream(self, number: int) -> dict[str, Any] | None:
        """All about one; None if it is no longer there."""
        return next((record.detail() for record in self.ring if record.number == number), None)

    def clear(self) -> None:
        self.ring.clear()


class Record:
    """One stream, as a witness of its chain (watched.py)."""

    def __init__(self, tap: Tap, number: int, info: StreamInfo) -> None:
        self.tap = tap
        self.number = number
        self.info = info
        self.began = perf_counter()
        self.duration: float | None = None
        self.chain: Chain | None = None
        self.names: list[str] = []
        self.steps: list[dict[str, Any]] = []
        self.room = MOST_TEXT
        self.left_out = 0
        self.known: dict[int, Pairs] = {}
        """The heads as they stand, secrets and all: only while the stream runs."""
        self.heads: dict[str, dict[str, list[list[str]] | None]] = {side: {"before": None, "after": None} for side in SIDES}
        self.waiting: dict[tuple[str, int], float] = {}
        self.totals: dict[str, dict[str, Any]] = {}

    # ---- As a witness ----

    def opened(self, chain: Chain, filters: Sequence[str]) -> None:
        self.chain = chain
        self.names = list(filters)
        for name in filters:
            self.totals.setdefault(
                name, {"name": name, "calls": 0, "seconds": 0.0, "fuel": 0, "held_seconds": 0.0, "faults": 0}
            )

    def pairs(self, map_: int) -> Pairs:
        assert self.chain is not None
        return self.chain.memory.pairs(map_)

    def head(self, direction: int) -> None:
        pairs = self.known[MAPS[direction]] = self.pairs(MAPS[direction])
        self.heads[SIDES[direction]]["before"] = self.shown(pairs)

    def left(self, direction: int) -> None:
        self.heads[SIDES[direction]]["after"] = self.shown(self.pairs(MAPS[direction]))

    def called(self, call: Call) -> None:
        total = self.totals[call.filter]
        total["calls"] += 1
        total["seconds"] += call.seconds
        total["fuel"] += call.fuel
        total["faults"] += call.failed
        direction = int("response" in call.callback)
        action = call.result & ACTION
        if action and not call.result & (FAILED | LOCAL_REPLY):
            self.waiting.setdefault((call.filter, direction), call.began)
        else:
            self.over(call.filter, direction, call.began)
        step = self.step(call.filter, call.callback, call.began)
        step |= {
            "seconds": call.seconds,
            "fuel": call.fuel,
            "action": action_text(action),
            "end_of_stream": call.end_stream,
            "changes": self.changes(),
            "body": self.body(call),
            "reply": self.reply(call.reply),
            "failed": bool(call.failed or call.result & FAILED),
        }
        self.add(step)

    def continued(self, name: str, direction: int) -> None:
        now = perf_counter()
        held = self.over(name, direction, now)
        if held is not None:
            self.add({**self.step(name, f"continues the {SIDES[direction]}", now), "held_seconds": held})

    def overdue(self, name: str) -> None:
        now = perf_counter()
        held = [seconds for direction in (0, 1) if (seconds := self.over(name, direction, now)) is not None]
        self.add({**self.step(name, "held for too long", now), "held_seconds": max(held, default=0.0), "failed": True})

    def answered(self, reply: LocalReply) -> None:
        self.add({**self.step(self.info.answered_by, "answer", perf_counter()), "reply": self.reply(reply)})

    def finished(self) -> None:
        now = perf_counter()
        for name, direction in list(self.waiting):
            self.over(name, direction, now)
        self.duration = now - self.began
        self.chain = None
        self.known.clear()

    # ---- What is kept ----

    def over(self, name: str, direction: int, now: float) -> float | None:
        """A filter holds no longer; how long it did, None if it held nothing."""
        since = self.waiting.pop((name, direction), None)
        if since is None:
            return None
        self.totals[name]["held_seconds"] += now - since
        return now - since

    def step(self, name: str, callback: str, began: float) -> dict[str, Any]:
        return {"filter": name, "callback": callback, "at_seconds": began - self.began}

    def add(self, step: dict[str, Any]) -> None:
        size = 200 + sum(map(len, step.get("changes", ())))
        if size > self.room:
            self.left_out += 1
            return
        self.room -= size
        self.steps.append(step)

    def changes(self) -> list[str]:
        """What became of the heads since the last look."""
        found = []
        for map_, side in zip(MAPS, SIDES, strict=True):
            before = self.known.get(map_)
            if before is None:
                continue
            now = self.pairs(map_)
            if now != before:
                self.known[map_] = now
                found += [cut(f"{side} {line}") for line in difference(before, now, self.tap.redact)]
        return found

    def shown(self, pairs: Pairs) -> list[list[str]]:
        kept = []
        for name, value in pairs:
            if self.room <= 0:
                self.left_out += 1
                break
            said = HIDDEN if name.lower() in self.tap.redact else cut(text(value))
            self.room -= len(name) + len(said)
            kept.append([cut(text(name)), said])
        return kept

    def body(self, call: Call) -> dict[str, Any] | None:
        before, after = call.body_before, call.body_after
        if before is None or after is None:
            return None
        kept: dict[str, Any] = {
            "bytes_before": len(before), "bytes_after": len(after), "changed": bool(call.result & BODY) and before != after,
        }  # fmt: skip
        if self.tap.bodies:
            for name, data in (("before", before), ("after", after)):
                if self.room > 0:
                    kept[name] = text(data[:BODY_PREVIEW])
                    self.room -= len(kept[name])
        return kept

    def reply(self, reply: LocalReply | None) -> dict[str, Any] | None:
        if reply is None:
            return None
        return {"status": reply.status, "details": cut(reply.details), "body_bytes": len(reply.body)}

    # ---- For the admin process ----

    def summary(self) -> dict[str, Any]:
        info = self.info
        return {
            "number": self.number,
            "request_id": info.request_id,
            "time": info.start,
            "method": cut(info.method),
            "path": cut(info.path),
            "authority": cut(info.authority),
            "client": info.source_address,
            "route": info.route_name,
            "cluster": info.cluster_name,
            "upstream": info.upstream_address,
            "status": info.status,
            "details": cut(info.details),
            "flags": info.flags,
            "answered_by": info.answered_by,
            "running": self.duration is None,
            "duration_seconds": time.monotonic() - info.start_monotonic if self.duration is None else self.duration,
            "upstream_seconds": info.upstream_seconds,
            "filter_seconds": info.filter_seconds,
            "bytes_received": info.bytes_received,
            "bytes_sent": info.bytes_sent,
        }

    def detail(self) -> dict[str, Any]:
        return {
            **self.summary(),
            "filters": list(self.totals.values()),
            "heads": self.heads,
            "steps": self.steps,
            "steps_left_out": self.left_out,
        }


def cut(line: str) -> str:
    return line if len(line) <= LONGEST_VALUE else line[:LONGEST_VALUE] + "..."
