"""What the suite measures, as data. A scenario starts its servers side by side and puts its loads to each of them in turn.

The figures that are judged in the end are in figures.py; how a scenario is run is in runner.py.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.servers import Plugin

FILTERS = Path(__file__).parent / "filters"
BOTH = ("envoy", "penstock")
EVERYONE = ("envoy", "penstock", "nginx", "caddy", "aiohttp")
START_SECONDS = 1.0
"""What starting a server takes, for the estimate."""
GAP_SECONDS = 0.15
"""What a run takes beyond its length."""

TEXT = b"all work and no play makes a dull benchmark, and this line has 63.\n"
"""What the upstream's /bytes/N consists of."""
JSON_OBJECTS = 700
TOKEN: dict[str, str] = json.loads((FILTERS / "rs256.json").read_text())


def plugin(name: str, configuration: str = "", *, calls: bool = False, hungry: bool = False) -> Plugin:
    """A filter of benchmarks/filters."""
    return Plugin(FILTERS / f"{name}.wasm", configuration, calls, hungry)


def body_digest(size: int) -> str:
    """SHA-256 (hex) of what the upstream's /bytes/N answers. It writes the text into 1 MiB and begins anew behind that."""
    block = (TEXT * (-(-(1 << 20) // len(TEXT))))[: 1 << 20]
    return hashlib.sha256((block * (-(-size // len(block))))[:size]).hexdigest()


@dataclass(frozen=True, slots=True)
class Variant:
    """A chain to measure. `x` is its place on the scenario's axis; `systems`, if given, are the only ones that run it."""

    label: str
    x: float
    filters: tuple[Plugin, ...] = ()
    systems: tuple[str, ...] = ()
    workers: int = 1


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """A load. `share`: open loop at this share of the server's own peak with as many connections, instead of closed loop."""

    label: str = "32"
    connections: int = 32
    path: str = "/hello?name=world"
    headers: tuple[tuple[str, str], ...] = ()
    share: float | None = None
    x: float = 0.0
    seconds: int = 0
    """Instead of the scenario's; 0: as that."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """`axis`: what `x` of its variants, or of its loads, counts. `kind`: load, or start: from the start of the process to
    the first answer. `quick`: also in the quick mode, with `quick_variants` and `quick_loads` of it (labels; all if empty).
    """

    name: str
    title: str
    variants: tuple[Variant, ...]
    loads: tuple[LoadSpec, ...] = (LoadSpec(),)
    systems: tuple[str, ...] = BOTH
    axis: str = ""
    kind: str = "load"
    runs: int = 5
    seconds: int = 1
    pin: bool = True
    quick: bool = False
    quick_variants: tuple[str, ...] = ()
    quick_loads: tuple[str, ...] = ()

    def who(self, variant: Variant, installed: tuple[str, ...]) -> list[str]:
        """The systems that run this variant here."""
        return [name for name in variant.systems or self.systems if name in installed]

    def in_quick_mode(self) -> Scenario:
        """Two short runs of less."""
        variants = tuple(one for one in self.variants if not self.quick_variants or one.label in self.quick_variants)
        loads = tuple(one for one in self.loads if not self.quick_loads or one.label in self.quick_loads)
        loads = tuple(replace(one, seconds=min(one.seconds, 2)) for one in loads)
        return replace(self, variants=variants, loads=loads, runs=2, seconds=1)

    def estimate(self, installed: tuple[str, ...]) -> float:
        """About how many seconds it takes."""
        servers = sum(len(self.who(variant, installed)) for variant in self.variants)
        if self.kind == "start":
            return servers * (self.runs + 1) * START_SECONDS
        each = sum((load.seconds or self.seconds) + GAP_SECONDS for load in self.loads) * self.runs
        warm_up = 1 + GAP_SECONDS + sum(1 + GAP_SECONDS for load in self.loads if load.share)
        return servers * (START_SECONDS + warm_up + each)


def chain(count: int) -> tuple[Plugin, ...]:
    """The typical header filter, `count` times."""
    return (plugin("probe"),) * count


def extra_headers(count: int) -> tuple[tuple[str, str], ...]:
    """Request headers of ordinary size, each of another name."""
    return tuple((f"x-extra-{index}", f"value-{index:03}-of-ordinary-length") for index in range(count))


PROBES = "the typical header filter: reads two headers, adds one, replaces one, on both paths"
HOST_CALLS = ("get", "set", "pairs", "property", "time", "metric")
CALLS = 200
"""How often the host-call filter makes its call."""

SCENARIOS = (
    Scenario(
        "chain",
        f"Small GETs by chain length ({PROBES})",
        (
            Variant("0", 0, systems=EVERYONE),
            *(Variant(str(count), count, chain(count)) for count in (1, 3, 5, 10)),
        ),
        (LoadSpec("32", 32), LoadSpec("256", 256)),
        axis="filters",
        quick=True,
        quick_variants=("0", "3", "10"),
        quick_loads=("32",),
    ),
    Scenario(
        "latency",
        "Latency at a constant rate, 70 % of each one's own peak, 128 connections",
        (Variant("3", 3, chain(3)), Variant("10", 10, chain(10))),
        (LoadSpec("70 %", 128, share=0.7, seconds=3),),
        axis="filters",
        runs=5,
        quick=True,
        quick_variants=("3",),
    ),
    Scenario(
        "stream-100k",
        "Responses of 100 kB through a filter that looks at every byte as it streams",
        (Variant("inspect", 1, (plugin("inspect"),)),),
        (LoadSpec("100 kB", 32, "/bytes/100000"),),
        quick=True,
    ),
    Scenario(
        "stream-10m",
        "Responses of 10 MB through a filter that looks at every byte as it streams",
        (Variant("inspect", 1, (plugin("inspect"),)),),
        (LoadSpec("10 MB", 8, "/bytes/10000000", seconds=2),),
    ),
    Scenario(
        "buffer-100k",
        "Responses of 100 kB through a filter that holds the whole body",
        (Variant("buffer", 1, (plugin("buffer"),)),),
        (LoadSpec("100 kB", 32, "/bytes/100000"),),
        quick=True,
    ),
    Scenario(
        "callout",
        "A chain of three; one asks another service about every request (proxy_http_call)",
        (Variant("callout", 3, (plugin("callout", calls=True), *chain(2))),),
        quick=True,
    ),
    Scenario(
        "sha256",
        "SHA-256 of a body of 64 kB",
        (Variant("sha256", 1, (plugin("sha256", body_digest(65536), hungry=True),)),),
        (LoadSpec("64 kB", 32, "/bytes/65536"),),
        quick=True,
    ),
    Scenario(
        "json",
        "A body of 63 kB parsed as JSON into a tree of 700 objects",
        (Variant("json", 1, (plugin("json", str(JSON_OBJECTS), hungry=True),)),),
        (LoadSpec("63 kB", 32, "/json"),),
    ),
    Scenario(
        "rs256",
        "The RS256 signature of a bearer token, RSA-2048",
        (Variant("rs256", 1, (plugin("rs256", TOKEN["n"], hungry=True),)),),
        (LoadSpec("token", 32, headers=(("authorization", f"Bearer {TOKEN['token']}"),)),),
    ),
    Scenario(
        "host-calls",
        f"What one host call costs: {CALLS} of them on each request",
        (
            Variant("none", 0, (plugin("calls", "get 0"),)),
            *(Variant(name, CALLS, (plugin("calls", f"{name} {CALLS}"),)) for name in HOST_CALLS),
        ),
        runs=3,
    ),
    Scenario(
        "growth-headers",
        "Three filters, by request headers beside the usual four",
        (Variant("3", 3, chain(3)),),
        tuple(LoadSpec(str(count), 32, headers=extra_headers(count), x=count) for count in (0, 20, 40, 80)),
        axis="headers",
        runs=3,
    ),
    Scenario(
        "growth-body",
        "One filter that looks at every byte, by body size",
        (Variant("inspect", 1, (plugin("inspect"),)),),
        tuple(LoadSpec(str(size), 32, f"/bytes/{size}", x=size) for size in (10_000, 100_000, 300_000, 1_000_000)),
        axis="body bytes",
        runs=3,
    ),
    Scenario(
        "workers",
        "Three filters, one worker and two, no CPU set apart",
        (Variant("1", 1, chain(3)), Variant("2", 2, chain(3), workers=2)),
        (LoadSpec("64", 64),),
        systems=("penstock",),
        axis="workers",
        pin=False,
    ),
    Scenario(
        "cold-start",
        "From the start of the process to the first answer, 10 filters (Penstock's compiled ones cached)",
        (Variant("10", 10, chain(10)),),
        kind="start",
        runs=3,
        quick=True,
    ),
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
