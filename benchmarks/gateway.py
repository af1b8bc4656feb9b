"""Penstock with the three shipped filters and its admin port, as the soak and the overload run use it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from benchmarks.machine import tree
from benchmarks.servers import ROOT, ServerError
from proxy.kit.ending import end

READY = re.compile(r"serving on http://127\.0\.0\.1:(\d+); admin on http://127\.0\.0\.1:(\d+)")
USERS = {
    "ada": "pbkdf2-sha256:300:5d1ff6fa0d8a7c4b9e23c1d07be64f12:599d3c39752bb2d72fc279927d0571d53b947d00759a7f036c3a07948945b1c6"
}
"""The quickstart's; the password is "lovelace"."""
FILTERS: dict[str, object] = {
    "basic-auth": {"realm": "soak", "users": USERS},
    "header-rewrite": {"request": {"set": {"x-greeting": "hello %REQ(x-auth-user)%"}}, "response": {"set": {"x-soak": "1"}}},
    "body-rewrite": {"types": ["text/plain"], "response": [{"find": "world", "replace": "everybody"}]},
}


class Gateway:
    """`python -m proxy run` on free ports; a context manager. `sections` are added to the config."""

    def __init__(self, upstream: int, event_loop: str, workers: int = 1, **sections: object) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="penstock-soak-")
        file = Path(self.folder.name) / "config.yaml"
        wasm = {name: ROOT / "filters" / name / f"{name}.wasm" for name in FILTERS}
        config = {
            "listeners": [{"address": "127.0.0.1:0"}],
            "clusters": [{"name": "service", "endpoints": [f"127.0.0.1:{upstream}"]}],
            "routes": [{"match": {"prefix": "/"}, "cluster": "service"}],
            "filters": [{"name": name, "wasm": str(wasm[name]), "config": FILTERS[name]} for name in FILTERS],
            "admin": {"address": "127.0.0.1:0"},
            "workers": workers,
            "event_loop": event_loop,
            "shutdown_grace": "2s",
            "log": {"format": "json", "access": False},
            **sections,
        }
        file.write_text(json.dumps(config))
        self.log = (Path(self.folder.name) / "log").open("w+b")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "proxy", "run", str(file)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
        )
        assert self.process.stdout is not None
        found = READY.match(self.process.stdout.readline().decode())
        if found is None:
            said = self.said()
            self.close()
            raise ServerError(f"the gateway did not start:\n{said}")
        self.port, self.admin_port = int(found[1]), int(found[2])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """SIGTERM, and SIGKILL if it does not end within its grace."""
        end(self.process, 10.0)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.log.close()
        self.folder.cleanup()

    def said(self) -> str:
        """The end of its log."""
        return Path(self.log.name).read_text(errors="replace")[-3000:]

    def ask(self, page: str) -> Any:
        """A JSON page of the admin port."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{page}", timeout=5) as response:
            return json.load(response)

    def workers(self) -> list[int]:
        """The pids of the workers that live."""
        return [worker["pid"] for worker in self.ask("/ready")["workers"] if worker["pid"]]

    def metrics(self) -> Mapping[str, float]:
        """The samples of /metrics by name and labels as written."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=5) as response:
            text = response.read().decode()
        samples = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def processes(self) -> list[int]:
        """All its processes."""
        return tree(self.process.pid)
