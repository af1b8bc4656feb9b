"""Fuzzes the host functions: `python -m tests.hostile.fuzz --seconds 60 --seed 1`.

Every function that can be linked, with arguments made by hypothesis over raw memory. What must hold is in interpreter.py. A
failure is shrunk, printed as the script that made it, and ends the run with status 1; the same seed finds it again.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from itertools import accumulate, chain

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from proxy.abi.memory import encode_pairs
from proxy.abi.proxy_wasm.signatures import WASI_FUNCTIONS
from tests.abi.guest import Out
from tests.abi.proxy_wasm.test_pointers import CALLS
from tests.hostile.arguments import lies
from tests.hostile.interpreter import ALLOCATOR_MODES, CALLBACKS, FUNCTIONS, MOST_CALLS, RAW, SIZE, Bench, Call, Script

ROUND = 200
"""Scripts of one hypothesis run."""
WORDS = (
    b"content-length", b":path", b":status", b"x-a", b"host", b"plugin_name", b"request\0headers", b"request\0headers\0x-a",
    b"response\0code", b"connection\0id", b"uncompress", b"compress", b"clear_route_cache", b"key", b"/p?q=1", b"cluster",
    b"a.example.com", b"\x0a\x06\x0a\x04name", b"\xff\xfe", b"\r\n",
    encode_pairs([(b":method", b"GET"), (b":path", b"/"), (b":authority", b"a.example.com")]),
    encode_pairs([(b"a", b"b")] * 5),
    *lies().values(),
)  # fmt: skip
EDGES = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 64, 403, RAW, RAW + 1, RAW + 64, SIZE - 8, SIZE - 4, SIZE - 3, SIZE - 1, SIZE, SIZE + 1,
    0xFFFF, 0x10000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_0000, 0xFFFF_FFF0, 0xFFFF_FFFC, 0xFFFF_FFFF, 4 << 20, (4 << 20) + 1,
    1 << 63, (1 << 64) - 1,
)  # fmt: skip

numbers = st.one_of(
    st.sampled_from(EDGES),
    st.integers(0, 300),
    st.integers(RAW, RAW + 600),
    st.integers(0, SIZE + 8),
    st.integers(0, 2**64 - 1),
)
raw_memory = (
    st.lists(st.one_of(st.sampled_from(WORDS), st.binary(max_size=64)), max_size=12).map(b"".join).map(lambda raw: raw[:600])
)


PLACES = dict(zip(WORDS, accumulate((len(word) for word in WORDS[:-1]), initial=RAW + 600), strict=True))
"""Where each of WORDS lies, behind what hypothesis makes up."""
OUTS = range(0xF000, 0xF100, 8)
"""Places for the host's answers."""
SHAPES = {row[0]: row[1:] for row in CALLS}
small, word, out = st.integers(0, 9), st.sampled_from(WORDS), st.sampled_from(OUTS)


def calls_of(name: str) -> st.SearchStrategy[Call]:
    """Calls of one function: of any numbers, or with some of WORDS and places for the answers, which get further."""
    width = len(FUNCTIONS[name][1].params)
    wild = st.tuples(*[numbers] * width)
    shape = SHAPES.get(name)
    if shape is None:
        return wild.map(lambda arguments: Call(name, arguments))
    parts = [
        word.map(lambda text: (PLACES[text], len(text))) if isinstance(part, bytes)
        else out.map(lambda at: (at,)) if isinstance(part, Out)
        else st.one_of(small, st.just(part)).map(lambda number: (number,))
        for part in shape
    ]  # fmt: skip
    fair = st.tuples(*parts).map(lambda found: tuple(chain.from_iterable(found)))
    return st.one_of(wild, fair, fair).map(lambda arguments: Call(name, arguments))


scripts = st.builds(
    Script,
    st.lists(st.sampled_from(list(FUNCTIONS)).flatmap(calls_of), min_size=1, max_size=MOST_CALLS),
    st.sampled_from(CALLBACKS),
    st.sampled_from((*ALLOCATOR_MODES[:1] * 4, *ALLOCATOR_MODES[1:])),
    raw_memory.map(lambda raw: raw.ljust(600, b"\0") + b"".join(WORDS)),
)


def fuzz(bench: Bench, examples: int, number: int, seen: Counter[str] | None = None) -> None:
    """Run so many scripts. Raises AssertionError with the smallest script that fails."""

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(scripts)
    def run(script: Script) -> None:
        statuses = bench.run(script)
        if seen is not None:
            for call, status in zip(script.calls, statuses, strict=False):
                seen[call.name] += 1
                kind = "errno" if call.name in WASI_FUNCTIONS else "status"
                seen[f"{kind} {status}" if status < 77 else "overwritten"] += 1

    run()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    seen: Counter[str] = Counter()
    end = time.monotonic() + options.seconds
    number, scripts_run = options.seed, 0
    with Bench() as bench:
        while time.monotonic() < end:
            try:
                fuzz(bench, ROUND, number, seen)
            except AssertionError as error:
                print(f"seed {number}: {error}")
                print("\n".join(getattr(error, "__notes__", [])))
                return 1
            scripts_run += ROUND
            number += 1
        print(
            f"{scripts_run} scripts, {sum(seen[name] for name in FUNCTIONS)} calls, {bench.faults} VMs ended by their own allocator; seeds {options.seed} to {number - 1}"
        )
    print(", ".join(f"{name}: {count}" for name, count in sorted(seen.items()) if name not in FUNCTIONS))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
