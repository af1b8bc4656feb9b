"""A gateway as its user runs it, with filters that work, log and fail: for the tests of the API, the page and the figures."""

import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import wasmtime
import yaml

from tests.ports import free_port

ROOT = Path(__file__).parents[2]
READY = re.compile(r"serving on http://127\.0\.0\.1:(\d+); admin on http://127\.0\.0\.1:(\d+)")
HOSTILE = "<img src=x onerror=alert(1)>"
"""What a filter logs: shown as it is written, or there is a hole."""

FRAGILE = r"""
(module
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 16) "x-trap")
  (data (i32.const 64) "TEXT")
  (global $free (mut i32) (i32.const 4096))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32)
    (global.get $free) (global.set $free (i32.add (global.get $free) (local.get 0))))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (drop (call $log (i32.const 3) (i32.const 64) (i32.const SIZE)))
    (if (i32.eqz (call $get (i32.const 0) (i32.const 16) (i32.const 6) (i32.const 0) (i32.const 8)))
      (then (if (i32.load (i32.const 8)) (then unreachable))))
    (i32.const 0)))
"""


class Running:
    """A running gateway with two workers; `port` serves, `admin` is the admin port."""

    def __init__(self, folder: Path) -> None:
        quickstart = yaml.safe_load((ROOT / "config" / "quickstart.yaml").read_text())
        service = f"127.0.0.1:{free_port()}"
        text = FRAGILE.replace("TEXT", HOSTILE).replace("SIZE", str(len(HOSTILE)))
        (folder / "fragile.wasm").write_bytes(wasmtime.wat2wasm(text))
        filters = [
            {**one, "wasm": str(ROOT / "config" / one["wasm"]), "limits": {"log_lines": "1000/s"}}
            for one in quickstart["filters"]
        ]
        (rewriting,) = (one for one in filters if one["name"] == "header-rewrite")
        rewriting["canary"] = {"wasm": rewriting["wasm"], "weight": "20%", "config": {"response": {"set": {"x-version": "2"}}}}
        filters.insert(1, {"name": "fragile", "wasm": str(folder / "fragile.wasm"), "on_failure": "open"})
        config = {
            **quickstart,
            "listeners": [{"address": "127.0.0.1:0"}],
            "clusters": [
                {"name": "service", "endpoints": [service]},
                {"name": "gone", "endpoints": ["127.0.0.1:1"]},
            ],
            "routes": [
                {"name": "gone", "match": {"prefix": "/gone"}, "cluster": "gone"},
                *quickstart["routes"],
            ],
            "filters": filters,
            "admin": {"address": "127.0.0.1:0"},
            "workers": 2,
            "state_directory": str(folder / "state"),
            "log": {"format": "json", "access": False},
        }
        (folder / "log").mkdir()
        file = folder / "config.yaml"
        file.write_text(json.dumps(config))
        self.errors = (folder / "log" / "stderr").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "proxy", "run", "--demo", str(file)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.errors, text=True, cwd=ROOT,
        )  # fmt: skip
        assert self.process.stdout is not None
        try:
            line = self.process.stdout.readline()
            found = READY.match(line)
            assert found is not None, f"{line}{self.log()[-4000:]}"
        except BaseException:
            self.stop()
            raise
        self.port, self.admin = int(found[1]), int(found[2])

    def log(self) -> str:
        self.errors.flush()
        return Path(self.errors.name).read_text()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.errors.close()

    def get(self, path: str, **headers: str) -> int:
        """A request to the gateway, on a connection of its own; its status."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return fetch(f"http://127.0.0.1:{self.port}{path}", "GET", None, named)[0]

    def ask(self, path: str, method: str = "GET", body: object = None, **headers: str) -> tuple[int, str, bytes]:
        """Status, content type and body of an admin request. After a reload another process answers: then it is asked again."""
        url = f"http://127.0.0.1:{self.admin}{path}"
        try:
            return fetch(url, method, body, headers)
        except ConnectionError:
            return fetch(url, method, body, headers)

    def json(self, path: str, method: str = "GET", body: object = None) -> Any:
        return json.loads(self.ask(path, method, body)[2])

    def until(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s:\n{self.log()[-3000:]}"
            time.sleep(0.1)

    def traffic(self, seconds: float) -> threading.Thread:
        """Requests of all kinds for so long, in the background."""

        def send() -> None:
            end = time.monotonic() + seconds
            count = 0
            while time.monotonic() < end:
                count += 1
                password = {"authorization": "Basic YWRhOmxvdmVsYWNl"} if count % 5 else {}
                self.get(("/", "/status/418", "/?page=2", "/status/200", "/gone")[count % 5], **password)
                time.sleep(0.01)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        return thread


def fetch(url: str, method: str, body: object, headers: Mapping[str, str]) -> tuple[int, str, bytes]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, dict(headers), method=method)
    if data is not None:
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.headers.get_content_type(), response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get_content_type(), error.read()


@pytest.fixture(scope="package")
def running() -> Iterator[Running]:
    """One for all tests that want one: they leave it as they found it, but for its figures."""
    with tempfile.TemporaryDirectory(prefix="penstock-admin-") as folder:
        gateway = Running(Path(folder))
        yield gateway
        gateway.stop()
