"""Recordings of components: what they import is kept and given again, as proxy-wasm's host functions are."""

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.abi.component.world import BINARY, CONFLICT, REFUSED, TEXT
from proxy.chain.component_recording import answer_of, arguments_of, told
from tests import requires
from tests.abi.component import toolchains
from tests.integration.conftest import Service
from tests.integration.gateway import Gateway, filter_of
from tests.versions.test_record import files, penstock

GUEST = Path(__file__).parents[1] / "kit" / "component.c"


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("clock.now-ns", 1795299040415199839), ("random.get-u64", 2**64 - 1), ("properties.get", None),
        ("properties.get", "ü".encode()), ("kv.get", (True, None)), ("kv.get", (True, ((TEXT, b"I"), 3))),
        ("kv.get", (True, ((BINARY, b"\xff"), 3))), ("kv.get", (False, (REFUSED, b"too long"))),
        ("kv.set", (True, None)), ("kv.set", (False, (CONFLICT, None))),
    ],
)  # fmt: skip
def test_answers_come_back_as_they_were(name: str, answer: Any) -> None:
    status, value = told(name, answer)
    assert answer_of(name, status, json.loads(json.dumps(value))) == answer


def test_arguments_are_json() -> None:
    given = arguments_of("kv.set", (b"key", (BINARY, "\xff".encode()), None))
    assert json.loads(json.dumps(given)) == given
    assert given[0] == "key"
    assert given[2] is None
    assert arguments_of("clock.now-ns", ()) == []


@pytest.mark.parametrize("isolation", ["shared", "request"])
async def test_record_and_replay(isolation: str, tmp_path: Path, service: Service) -> None:
    """A clock, random numbers, shared data that others have written to, a call and its answer."""
    with requires.toolchain():
        wasm = toolchains.component_of(GUEST)
    filters = [filter_of(wasm, "kit", isolation=isolation, capabilities={"allowed_hosts": ["cluster:auth"]})]
    folder = tmp_path / "state" / "recordings"
    clusters = {"service": service.port, "auth": service.port}
    done = ("time", "random", "count", "count", "call")
    async with Gateway(filters, clusters, state_directory=str(tmp_path / "state")) as gateway:
        await penstock("record", "start", "--admin", f"127.0.0.1:{gateway.admin_port}")
        await gateway.until(lambda: len(gateway.events("recording_begins")) == 1, 30)
        for number, do in enumerate(done, 1):
            async with gateway.client.get("/", headers={"x-do": do}) as response:
                await response.read()
                assert response.status == 200
            await files(folder, number)
        await penstock("record", "stop", "--admin", f"127.0.0.1:{gateway.admin_port}")
        await gateway.until(lambda: len(gateway.events("recording_stops")) == 1, 30)
        async with gateway.client.get("/", headers={"x-do": "count"}) as response:
            assert response.status == 200
        assert await gateway.stop() == 0
    kept = await files(folder, len(done))
    functions = [
        [line["host_call"]["function"] for line in map(json.loads, path.read_text().splitlines()) if "host_call" in line]
        for path in kept
    ]
    assert functions == [
        ["clock.now-ns", "clock.monotonic-ns"], ["random.get-u64"], ["kv.get", "kv.set"], ["kv.get", "kv.set"], [],
    ]  # fmt: skip
    for path in kept:
        assert "the same as recorded" in await penstock("replay", path)
