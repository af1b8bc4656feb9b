"""A made-up request through one filter alone, in each worker, every so often: does the filter still do what it is there for?

It is sent from the event loop between streams, in a chain with nothing but the filter, and what comes of it goes nowhere. Calls
that the filter makes for it are made. A probe that fails makes the filter "probe_failed" in /ready, and changes nothing else.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import structlog

from proxy.abi.component.plugin import ComponentPlugin
from proxy.abi.memory import StreamMemory
from proxy.abi.proxy_wasm.plugin import Plugin
from proxy.chain.commands import REQUEST, RESPONSE, Pairs
from proxy.chain.path import status_of
from proxy.chain.shown import text
from proxy.chain.solo import Solo
from proxy.config.probe import Probe as ProbeConfig
from proxy.telemetry.metrics import Counter, Registry
from proxy.telemetry.stream import StreamInfo

log = structlog.get_logger("probe")

REQUEST_ID: Final = "probe"
LONGEST_WAIT: Final = 5.0
"""Seconds that a filter may hold the probe: for its calls."""


class Probe:
    """The probe of one filter in one worker."""

    def __init__(
        self, config: ProbeConfig, plugin: Plugin | ComponentPlugin, memory: StreamMemory, later: Callable[..., Any]
    ) -> None:
        self.config = config
        self.plugin = plugin
        self.memory = memory
        self.later = later
        wanted = config.request
        self.body = wanted.body.encode()
        fields = {name.lower(): value for name, value in wanted.headers.items()}
        authority = fields.pop("host", "probe.invalid")
        length = {"content-length": str(len(self.body))} if self.body else {}
        self.head: Pairs = [
            (name.encode(), value.encode("utf-8", "surrogateescape"))
            for name, value in {
                ":method": wanted.method, ":path": wanted.path, ":scheme": "http", ":authority": authority, **fields, **length
            }.items()
        ]  # fmt: skip
        self.timer: Any = None
        self.solo: Solo | None = None
        self.reason = ""
        """Why the last one failed; "" if it did not."""
        self.since = 0.0
        self.passed: Counter = Counter()
        self.failed: Counter = Counter()

    def attach(self, registry: Registry) -> None:
        """Begin."""
        family = registry.counter("penstock_probe_total", "Probes of filters, by what came of them", ("filter", "result"))
        name = self.plugin.name
        self.passed, self.failed = family.child((name, "passed")), family.child((name, "failed"))
        self.timer = self.later(min(self.config.every, 1.0), self.begin)

    def begin(self) -> None:
        """Send one; it is looked at as soon as the filter has let it go, at the latest after LONGEST_WAIT."""
        if not self.plugin.slot.ready:
            self.timer = self.later(self.config.every, self.begin)  # that is in /ready already
            return
        info = StreamInfo()
        info.method, info.path, info.request_id = self.config.request.method, self.config.request.path, REQUEST_ID
        info.protocol, info.scheme, info.source_address = "HTTP/1.1", "http", "127.0.0.1:0"
        try:
            self.solo = Solo(self.memory, self.plugin, info)
            self.solo.begin(self.head, not self.body)
            if self.body:
                self.solo.data(REQUEST, self.body, True)
            self.timer = self.later(0 if self.settled(self.solo) else LONGEST_WAIT, self.end)
            if not self.settled(self.solo):
                self.solo.chain.wake = self.look
        except Exception:
            self.defect()

    def settled(self, solo: Solo) -> bool:
        """Has the filter decided?"""
        left = solo.left
        return bool(solo.reset or left[REQUEST].ended or (solo.answered and left[RESPONSE].ended))

    def look(self) -> None:
        """It has let go of something, outside of our calls."""
        solo = self.solo
        if solo is None:
            return
        solo.perform()
        if self.settled(solo):
            self.timer.cancel()
            self.timer = self.later(0, self.end)

    def end(self) -> None:
        """What has come of it?"""
        solo, self.solo = self.solo, None
        if solo is None:
            return
        try:
            found = self.problem(solo)
            solo.finish()
        except Exception:
            self.defect()
            return
        self.note(found)
        self.timer = self.later(self.config.every, self.begin)

    def defect(self) -> None:
        """Ours to mend; probes go on."""
        log.exception("probe failed by a defect", filter=self.plugin.name)
        self.solo = None
        self.timer = self.later(self.config.every, self.begin)

    def note(self, found: str) -> None:
        name = self.plugin.name
        if not found:
            self.passed.value += 1
            if self.reason:
                log.info("probe_passes_again", filter=name)
                self.since = time.time()
        else:
            self.failed.value += 1
            if not self.reason:
                log.warning("probe_failed", filter=name, reason=found)
                self.since = time.time()
        self.reason = found

    def problem(self, solo: Solo) -> str:
        """What is not as expected; "" if all is."""
        expected = self.config.expect
        if solo.reset:
            return f"the filter cuts the stream ({solo.reset})"
        if not self.settled(solo):
            return f"the filter still holds it after {LONGEST_WAIT:g} s"
        head = solo.left[RESPONSE if solo.answered else REQUEST].head or []
        status = status_of(head) if solo.answered else 0
        if status != (expected.status or 0):
            wanted = f"an answer with {expected.status}" if expected.status else "the request to pass"
            return f"expected {wanted}, got {f'an answer with {status}' if status else 'it passed on'}"
        for name, value in expected.headers.items():
            said = [text(found) for key, found in head if key == name.lower().encode()]
            if value not in said:
                return f"expected {name}: {value}, got {', '.join(said) or 'none'}"
        return ""

    def state(self) -> dict[str, Any]:
        """For /ready: in the place of "ready" if the last one failed."""
        shown: dict[str, Any] = {"probe": {"passed": int(self.passed.value), "failed": int(self.failed.value)}}
        if self.reason:
            shown |= {"state": "probe_failed", "reason": f"probe: {self.reason}", "since": round(self.since, 3)}
        return shown

    def close(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.solo is not None:
            self.solo.finish()
            self.solo = None
