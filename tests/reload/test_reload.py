"""Reloads seen from outside: real processes, real files, real clients."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from pathlib import Path

import wasmtime

from tests.integration.gateway import filter_of
from tests.reload.running import BODY, REWRITE, Client, Running, command, marks, service

RELOADS = int(os.environ.get("PENSTOCK_RELOADS", "15"))
CLIENTS = int(os.environ.get("PENSTOCK_RELOAD_CLIENTS", "40"))
UNWATCHED = {"watch": False}

TRAPS = """(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 0))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable))"""


async def test_no_request_fails_and_no_connection_closes() -> None:
    """Clients that keep their connections, under load, over many reloads (100 with 200 clients: PENSTOCK_RELOADS,
    PENSTOCK_RELOAD_CLIENTS)."""
    async with service() as port, Running([marks("0")], {"service": port}, workers=2, reload=UNWATCHED) as gateway:
        loop = asyncio.get_running_loop()
        clients = [Client() for _ in range(CLIENTS)]
        for client in clients:
            await loop.create_connection(lambda client=client: client, "127.0.0.1", gateway.port)
        begun = time.monotonic()
        seconds = []
        for number in range(1, RELOADS + 1):
            gateway.rewrite(filters=[marks(str(number))])
            found = await gateway.reload()
            assert (found["result"], found["generation"]) == ("ok", number + 1), found
            seconds.append(found["seconds"])
        for client in clients:
            client.stopping = True
        async with asyncio.timeout(20):
            for client in clients:
                await client.over.wait()
        answered = sum(sum(client.answers.values()) for client in clients)
        print(
            f"{RELOADS} reloads with {CLIENTS} clients in {time.monotonic() - begun:.1f} s, {answered} answers; "
            f"a reload took {min(seconds):.3f} to {max(seconds):.3f} s"
        )
        assert [client.wrong for client in clients if client.wrong] == []
        assert sum(client.closed_early for client in clients) == 0
        seen = {int(name) for client in clients for name in client.answers}
        assert 0 in seen
        assert RELOADS in seen
        assert len(seen) > RELOADS / 2
        # What has been replaced is gone.
        await gateway.eventually(lambda: vms_are(gateway, 2))
        metrics = await gateway.metrics()
        assert metrics["penstock_config_generation"] == RELOADS + 1
        assert metrics['penstock_reloads_total{result="ok"}'] == RELOADS
        assert metrics['penstock_requests_total{cluster="service",code="200",route="prefix:/"}'] >= answered


async def vms_are(gateway: Running, number: int) -> bool:
    return (await gateway.metrics())["penstock_vms"] == number


async def test_what_is_wrong_leaves_what_served_and_says_why(tmp_path: Path) -> None:
    """A config that is none, a filter that refuses its config, a file that is half copied: by watching alone."""
    wasm = tmp_path / "filter.wasm"
    shutil.copy(REWRITE, wasm)
    mark = filter_of(wasm, "rewrite", {"response": {"set": {"x-generation": "one"}}})
    async with service() as port, Running([mark], {"service": port}) as gateway:

        async def refused(reason: str) -> None:
            def told() -> bool:
                return any(reason in problem for event in gateway.events("reload refused") for problem in event["problems"])

            await gateway.until(told, 15)
            ready = await gateway.ready()
            assert (ready["status"], ready["generation"], ready["reload"]["result"]) == ("ready", 1, "refused")
            assert any(reason in problem for problem in ready["reload"]["problems"])
            assert await gateway.generation() == "one"

        good = gateway.file.read_text()
        gateway.file.write_text(good[:-20])
        await refused("config.yaml:1")
        gateway.rewrite(filters=[{**mark, "config": {"nonsense": 1}}])
        await refused("filter rewrite did not start")
        gateway.rewrite(filters=[mark], workers=3)
        await refused("is 1 in the gateway that runs, and 3 here; restart to change it")
        gateway.rewrite(workers=1)

        async def well() -> bool:
            return bool((await gateway.ready())["reload"]["result"] == "unchanged")

        await gateway.eventually(well)
        # Copied slowly, and twice over: what is not whole yet is refused, and the whole of it is taken.
        other = REWRITE.read_bytes() + b"\0\x05\x04note"
        with wasm.open("wb") as file:
            file.write(other[: len(other) // 2])
            file.flush()
            await refused("wasm")
            file.write(other[len(other) // 2 :])
        await gateway.until(lambda: gateway.events("reloaded"), 15)
        assert gateway.events("reloaded")[0]["changes"] == ["files that the config names"]
        assert (await gateway.ready())["generation"] == 2
        assert await gateway.generation() == "one"
        assert len(gateway.events("reload refused")) <= 8
        assert not gateway.events("process died")


async def test_a_stream_ends_on_the_chain_it_began_with() -> None:
    """Half of a response has passed when the reload comes; a filter of the old chain goes on with the other half. The old VM
    goes when the stream does."""
    halves = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            if (await reader.readuntil(b"\r\n\r\n")) is None:
                break
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 16\r\n\r\nfirst(x)")
            await halves.wait()
            writer.write(b"second:x")

    def replaces(by: str) -> dict[str, object]:
        config = {"types": ["text/html"], "response": [{"find": "x", "replace": by}]}
        return filter_of(BODY, "body", config)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Running([replaces("OLD")], {"service": port}, reload=UNWATCHED) as gateway:
        async with gateway.client.get("/") as response:
            assert await response.content.readuntil(b"D") == b"first(OLD"
            gateway.rewrite(filters=[replaces("NEW")])
            assert (await gateway.reload())["result"] == "ok"
            await gateway.eventually(lambda: vms_are(gateway, 2))
            halves.set()
            assert await response.content.read() == b")second:OLD"
        assert (await gateway.get())[2] == "first(NEW)second:NEW"
        await gateway.eventually(lambda: vms_are(gateway, 1))
    server.close()


async def test_triggers_restarts_and_commands(tmp_path: Path) -> None:
    """SIGHUP, many at once, `penstock reload` and `diff`; a worker that starts later begins with what serves; filters come and
    go in the filters directory."""
    folder = tmp_path / "filters.d"
    folder.mkdir()
    async with (
        service() as port,
        Running([marks("one")], {"service": port}, workers=2, filters_directory=str(folder), reload=UNWATCHED) as gateway,
    ):
        config = str(gateway.file)
        gateway.rewrite(filters=[marks("two")])
        difference = "filters[rewrite].config.response.set.x-generation: one -> two\n"
        assert await command("diff", config) == (0, difference, "")
        assert await gateway.generation() == "one"
        gateway.process.send_signal(signal.SIGHUP)
        await gateway.until(lambda: gateway.events("reloaded"), 15)
        assert await gateway.generation() == "two"
        # Triggers that come while one runs are one more.
        found = await asyncio.gather(*(gateway.reload() for _ in range(6)))
        assert {one["result"] for one in found} == {"ok"}
        assert max(one["generation"] for one in found) <= 4
        gateway.rewrite(filters=[marks("three")], reload={"watch": True})
        status, out, err = await command("reload", config)
        assert (status, err) == (0, "")
        assert difference.replace("one -> two", "two -> three") in out
        # Now it is watched.
        shutil.copy(REWRITE, folder / "late.new")
        (folder / "late.yaml").write_text('config: {response: {set: {x-late: "yes"}}}')
        (folder / "late.new").rename(folder / "late.wasm")

        async def late() -> bool:
            return (await gateway.get())[1].get("x-late") == "yes"

        await gateway.eventually(late)
        # A worker's successor has it too, and the others' metrics stand.
        pid = (await gateway.ready())["workers"][0]["pid"]
        os.kill(pid, signal.SIGKILL)
        await gateway.until(lambda: len(gateway.events("worker serves")) == 3, 15)
        for _ in range(10):
            assert await late()
        (folder / "late.wasm").unlink()
        (folder / "late.yaml").unlink()

        async def gone() -> bool:
            return "x-late" not in (await gateway.get())[1]

        await gateway.eventually(gone)
        assert await gateway.generation() == "three"
        gateway.rewrite(listeners=[{"address": "127.0.0.1:1"}])
        status, out, err = await command("reload", config)
        assert (status, out) == (1, "")
        assert 'listeners[0].address: is "127.0.0.1:0" in the gateway that runs, and "127.0.0.1:1" here; restart' in err
        assert (await command("reload", str(tmp_path / "no.yaml")))[0] == 1
        assert await gateway.stop() == 0


SLOW = """(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 0))
  (func (export "proxy_on_configure") (param i32 i32) (result i32) (local i32)
    (loop (br_if 0 (i32.lt_u (local.tee 2 (i32.add (local.get 2) (i32.const 1))) (i32.const 900000000)))) (i32.const 1)))"""


async def test_a_worker_that_dies_while_it_starts_the_new_filters(tmp_path: Path) -> None:
    """Nobody swaps, and the reload says why; a SIGTERM in the middle of a reload ends the gateway as ever."""
    (tmp_path / "slow.wasm").write_bytes(wasmtime.wat2wasm(SLOW))
    slow = filter_of(
        tmp_path / "slow.wasm", "slow", limits={"start_fuel": 10_000_000_000, "start_deadline": "30s", "log_lines": "9/s"}
    )
    async with service() as port, Running([marks("one")], {"service": port}, workers=2, reload=UNWATCHED) as gateway:
        children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children")
        pids = {worker["pid"] for worker in (await gateway.ready())["workers"]}
        before = set(children.read_text().split())
        gateway.rewrite(filters=[slow, marks("two")])
        asked = asyncio.create_task(gateway.reload())

        def preparing() -> bool:
            return bool(set(children.read_text().split()) - before)

        async with asyncio.timeout(30):
            while not preparing():
                await asyncio.sleep(0.005)
            while preparing():
                await asyncio.sleep(0.005)
            os.kill(max(pids), signal.SIGKILL)
            found = await asked
        assert found["result"] == "refused"
        assert "died as it started the new filters: SIGKILL" in found["problems"][0]
        await gateway.until(lambda: len(gateway.events("worker serves")) == 3, 15)
        for _ in range(6):
            assert await gateway.generation() == "one"
        await gateway.eventually(lambda: vms_are(gateway, 2))
        asked = asyncio.create_task(gateway.reload())
        await asyncio.sleep(0.3)
        assert await gateway.stop() == 0
        assert (await asked)["problems"] == ["the gateway is stopping"]


async def test_quarantine_and_shared_data_outlive_a_reload(tmp_path: Path) -> None:
    """A filter in quarantine stays there; one that shares data may come by a reload alone."""
    (tmp_path / "traps.wasm").write_bytes(wasmtime.wat2wasm(TRAPS))
    traps = filter_of(tmp_path / "traps.wasm", "traps", on_failure="open", quarantine={"faults": 1, "window": "5m"})
    limits = filter_of(
        REWRITE.parents[1] / "rate-limit/rate-limit.wasm", "limit", {"limits": [{"by": "all", "rate": 2, "per": "day"}]}
    )
    async with service() as port, Running([traps], {"service": port}, reload=UNWATCHED) as gateway:
        assert (await gateway.get())[0] == 200
        state = (await gateway.ready())["filters"]["traps"]["state"]
        assert state == "quarantined"
        gateway.rewrite(filters=[traps, limits, marks("two")])
        found = await gateway.reload()
        assert found["result"] == "ok", found
        assert (await gateway.ready())["filters"]["traps"]["state"] == "quarantined"
        assert [(await gateway.get())[0] for _ in range(3)] == [200, 200, 429]
        gateway.rewrite(filters=[traps, limits, marks("three")])
        assert (await gateway.reload())["result"] == "ok"
        assert (await gateway.get())[0] == 429, "what is shared has been lost"
        url = f"http://127.0.0.1:{gateway.admin_port}/filters/traps/resume"
        async with gateway.client.post(url) as response:
            assert (await response.json())["was_quarantined"]
        async with gateway.client.post(f"http://127.0.0.1:{gateway.admin_port}/reload") as response:
            assert (response.status, (await response.json())["result"]) == (200, "ok")
