"""Streams kept by a gateway as its user runs it, and run again from their files."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from proxy.chain.record_file import FormatError
from proxy.cli.main import main
from proxy.kit.replay import Answers, Recording, place
from tests.guests import build
from tests.integration.conftest import GUESTS, Service
from tests.integration.gateway import Gateway, filter_of
from tests.versions.guests import ADDS, version

STAMP = Path(__file__).with_name("stamp.c")
SECRET = "Basic YWRhOmxvdmVsYWNl"


async def penstock(*arguments: str | Path, status: int = 0) -> str:
    """The command, in this process."""
    found = await asyncio.to_thread(CliRunner().invoke, main, list(map(str, arguments)))
    assert found.exit_code == status, found.output
    return found.output


async def files(folder: Path, count: int) -> list[Path]:
    async with asyncio.timeout(30):
        while len(found := sorted(folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)) < count:
            await asyncio.sleep(0.05)
    assert len(found) == count
    return found


async def test_record_and_replay(tmp_path: Path, service: Service) -> None:
    filters = [
        filter_of(build.c_filter(STAMP), "stamp"),
        filter_of(build.c_filter(GUESTS / "auth.c"), "auth", capabilities={"allowed_hosts": ["cluster:service"]}),
    ]
    folder = tmp_path / "state" / "recordings"
    async with Gateway(filters, {"service": service.port}, state_directory=str(tmp_path / "state")) as gateway:
        admin = ("--admin", f"127.0.0.1:{gateway.admin_port}")
        said = await penstock("record", "start", "--header", "x-keep", "--body", "2KiB", *admin)
        assert "recording for" in said
        await gateway.until(lambda: len(gateway.events("recording_begins")) == 1, 30)
        headers = {"x-call": "service", "x-ask": "/?user=ada", "authorization": SECRET}

        async def post(body: bytes, **more: str) -> int:
            async with gateway.client.post("/form", data=body, headers={**headers, **more}) as response:
                await response.read()
                return response.status

        assert await post(b"not kept") == 200
        assert await post(b"name=" + bytes(range(128, 200)), **{"x-keep": "1"}) == 200
        assert await post(b"x" * 5000, **{"x-keep": "1"}) == 200
        await files(folder, 2)
        await penstock("record", "start", "--errors", *admin)
        await gateway.until(lambda: len(gateway.events("recording_begins")) == 2, 30)
        assert (await gateway.get("/fine"))[0] == 200
        assert (await gateway.get("/?status=503"))[0] == 503
        first, large, failed = await files(folder, 3)
        assert "not recording, 3 kept" in await penstock("record", "stop", *admin)
        await gateway.until(lambda: len(gateway.events("recording_stops")) == 2, 30)
        assert (await gateway.get("/?status=503"))[0] == 503
        assert await gateway.stop() == 0
    await files(folder, 3)

    text = first.read_text()
    assert first.stat().st_mode & 0o777 == 0o600
    assert "YWRhOmxvdmVsYWNl" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines[0]["penstock_recording"] == 1
    assert [one["name"] for one in lines[0]["filters"]] == ["stamp", "auth"]
    called = {line["host_call"]["function"] for line in lines if "host_call" in line}
    assert {"time", "random", "property", "shared_data", "set_shared_data"} <= called
    (answer,) = [line["http_answer"] for line in lines if "http_answer" in line]
    assert ["x-user", "ada"] in answer["headers"]

    # The same times, random numbers, shared data, and the same answer to its call.
    assert "the same as recorded" in await penstock("replay", first)
    assert "2952 bytes of a body were not recorded" in await penstock("replay", large)
    assert "the same as recorded" in await penstock("replay", failed)

    other = version(tmp_path, 2, ADDS)
    said = await penstock("replay", first, "--wasm", other, "--filter", "stamp", status=1)
    differences = {line.strip() for line in said.splitlines()}
    assert "request: + x-added: 2" in differences
    assert "response: + x-version: 2" in differences
    assert any(line.startswith("request: - x-time: ") for line in differences)
    found: dict[str, Any] = json.loads(await penstock("replay", first, "--wasm", other, "--filter", "auth", "--json", status=1))
    assert "call: - GET /?user=ada to service" in found["differences"]
    assert "request: - x-user: ada" in found["differences"]
    assert "say with --filter" in await penstock("replay", first, "--wasm", other, status=2)
    (tmp_path / "wrong").write_text("{}\n")
    assert "no recording" in await penstock("replay", tmp_path / "wrong", status=2)


def test_a_canary_keeps_its_name(tmp_path: Path) -> None:
    """A config admits no @ in a name; what is said of the filter has it all the same."""
    entries = [{"name": "hdr.canary"}, {"name": "auth"}]
    other = {"hdr@canary": "hdr.canary", "auth": "auth"}
    with pytest.raises(FormatError, match=r"which filter the module stands: hdr@canary, auth$"):
        place(entries, tmp_path, other, None)
    place(entries, tmp_path, other, "hdr@canary")
    assert entries[0]["wasm"] == str(tmp_path)
    recording = Recording({}, {}, {}, [], [], {}, {})
    answers = Answers(recording, other)
    assert answers.take("hdr.canary", "time", []) is None
    assert answers.unknown == ["hdr@canary: time() is not in the recording; it got the kit's answer"]
