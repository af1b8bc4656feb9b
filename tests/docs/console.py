"""Runs a page's console blocks as its reader would: one shell, one folder, the page's files written where it says so.

    ```console
    $ penstock check gateway.yaml          a command; it must end well
    gateway.yaml: all is well ...          what it says; without any line, it is not looked at
    ```

In what a command says, `...` stands for anything, on a line of its own for any number of lines; figures, times, digests and
dates are not compared. A comment before a block changes that: `<!-- not run: REASON -->`, `<!-- fails -->` for commands that
must not end well, `<!-- needs envoy -->` for what is run where the real Envoy is installed, `<!-- starts: COMMAND -->` for what
the text before it has started. `sh` blocks are for reading: what installs something, or would never end. `penstock run` and
`penstock demo` go on until the page ends or starts another one. Ports are free ones; a page reads as if they were its own.

A file is written when the line before its block names it: "`mine/hello.yaml`:".
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from click.testing import CliRunner

from proxy.cli.main import main
from proxy.kit import envoy
from tests.ports import free_ports

ROOT: Final = Path(__file__).parents[2]
SERVERS: Final = ("penstock run", "penstock demo")
PORTS: Final = ("8080", "9000", "9901", "8443")
START_SECONDS: Final = 30
SHELL: Final = re.compile(r"[|<>&;*$`(){}]")
FENCE: Final = re.compile(
    r"(?:^<!-- (?P<mark>[^>]*) -->\n)?(?:^[^\n]*`(?P<file>[\w./-]+\.(?:yaml|ts|zig|c|go|mod|rs|js|py|txt))`[^`\n]*:\n\n)?"
    r"^```(?P<kind>\w*)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
VOLATILE: Final = [
    (r"\b[0-9a-f]{64}\b", "DIGEST"),
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UUID"),
    (r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", "DATE"),
    (r"\d{4}-\d\d-\d\d[T ][\d:.]+Z?", "TIME"),
    (r"\d+(\.\d+)? (ms|us|s)\b", "N s"),
    (r"\b\d{1,3}(,\d{3})+\b|\b\d{4,}\b", "N"),
    (r"\d[\d.,]*( bytes| [KM]iB|%)", r"N\1"),
    (r"\b\d+\.\d\b|\b\d{3}\b(?=  )", "N"),
    (r"[ \t]+", " "),
]


class Step(NamedTuple):
    """Something that a reader does: `command` and what it says, or `file` with `text`."""

    line: int
    command: str = ""
    says: str = ""
    fails: bool = False
    file: str = ""
    text: str = ""


def steps(page: str) -> Iterator[Step]:
    """What a page has its reader do."""
    for found in FENCE.finditer(page):
        mark, body = found["mark"] or "", found["body"]
        line = page.count("\n", 0, found.start("body")) + 1
        if mark.startswith("not run") or (mark == "needs envoy" and envoy.binary() is None):
            continue
        if mark.startswith("starts: "):
            yield Step(line, mark.removeprefix("starts: "))
        if found["kind"] == "console":
            yield from commands(body, line, mark == "fails")
        elif found["file"] and found["kind"] not in ("sh", "json"):
            yield Step(line, file=found["file"], text=body)


def commands(body: str, first: int, fails: bool) -> Iterator[Step]:
    lines = body.splitlines()
    starts = [at for at, line in enumerate(lines) if line.startswith("$ ")]
    for at, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        command, rest = lines[at][2:], lines[at + 1 : end]
        while command.endswith("\\"):
            command = command[:-1] + rest.pop(0).removeprefix("> ")
        yield Step(first + at, command.strip(), "\n".join(rest), fails)


class Session:
    """A reader's shell in a folder of its own, which looks like a clone of the repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = self.cwd = folder
        for name in ("filters", "docs"):
            (folder / name).symlink_to(ROOT / name)
        shutil.copytree(ROOT / "config", folder / "config")
        scripts = folder / ".scripts"
        scripts.mkdir()
        (scripts / "penstock").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m proxy "$@"\n')
        (scripts / "penstock").chmod(0o755)
        (folder / ".curlrc").write_text("silent\nshow-error\n")
        self.environment = {
            **os.environ,
            "CURL_HOME": str(folder),
            "PATH": f"{scripts}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.server: subprocess.Popen[str] | None = None

    def do(self, step: Step) -> str:
        """What is wrong with what came of a step; "" if nothing is."""
        if step.file:
            (self.folder / step.file).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / step.file).write_text(step.text)
            return ""
        if step.command.startswith("cd "):
            self.cwd = self.cwd / step.command[3:]
            return "" if self.cwd.is_dir() else f"there is no folder {self.cwd}"
        if step.command.startswith(SERVERS):
            return self.serve(step.command)
        status, said = self.run(step.command)
        if bool(status) != step.fails:
            return f"exit status {status}:\n{said}"
        return "" if not step.says or matches(step.says, said) else f"expected:\n{step.says}\ngot:\n{said}"

    def run(self, command: str) -> tuple[int, str]:
        real = self.with_ports(command)
        if real.startswith("penstock ") and not SHELL.search(real):
            with contextlib.chdir(self.cwd):  # in this process: an interpreter takes half a second to start
                done = CliRunner().invoke(main, shlex.split(real, comments=True)[1:])
            return done.exit_code, self.with_ports(done.output, back=True)
        ended = subprocess.run(
            ["bash", "-c", real], cwd=self.cwd, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, text=True, timeout=120, check=False,
        )  # fmt: skip
        return ended.returncode, self.with_ports(ended.stdout, back=True)

    def with_ports(self, text: str, back: bool = False) -> str:
        for shown, real in self.ports.items():
            own, other = (str(real), shown) if back else (shown, str(real))
            text = re.sub(rf"(?<=:){own}\b", other, text)
        return text

    def serve(self, command: str) -> str:
        """Start it, and wait until it serves."""
        self.stop()
        words = [self.ported(word) if word.endswith(".yaml") else word for word in self.with_ports(command).split()]
        with (self.folder / "server.log").open("w+") as log:
            self.server = subprocess.Popen(words, cwd=self.cwd, env=self.environment, stdout=log, stderr=log, text=True)
            deadline = time.monotonic() + START_SECONDS
            while time.monotonic() < deadline and self.server.poll() is None:
                log.seek(0)
                said = log.read()
                if "serving on http" in said or "Demo service on" in said:
                    return ""
                time.sleep(0.05)
            log.seek(0)
            return f"does not serve:\n{log.read()}"

    def ported(self, name: str) -> str:
        """A config with free ports, beside the one that the page names."""
        path = self.cwd / name
        text = self.with_ports(path.read_text())
        if not re.search("^admin:", text, re.MULTILINE):
            text += f"\nadmin: {{ address: 127.0.0.1:{self.ports['9901']} }}\n"
        own = path.with_suffix(".ports.yaml")
        own.write_text(text)
        return str(own)

    def stop(self) -> None:
        if self.server is not None:
            self.server.terminate()
            try:
                self.server.wait(15)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()
            self.server = None


def matches(expected: str, got: str) -> bool:
    """Whether a command said what the page has, but for what differs from day to day."""
    # A line of dots takes any number of lines, with the end of the one before.
    parts = [re.escape(one) for one in re.split(r"\.\.\.", "\n" + stable(expected) + "\n")]
    return re.fullmatch("(?s:.*?)".join(parts), "\n" + stable(got) + "\n") is not None


def stable(text: str) -> str:
    for pattern, word in VOLATILE:
        text = re.sub(pattern, word, text)
    lines = [line.rstrip() for line in text.replace("\r", "").splitlines()]
    return "\n".join(lines).strip("\n").replace("\n...\n", "...").replace("\n...", "...").replace("...\n", "...")
