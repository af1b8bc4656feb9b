"""How `penstock reload` and the admin process ask the supervisor: a unix socket in its private directory (mode 0700, so only
its own user can), one JSON object each way.

`{"do": "reload"}` is answered when the reload is over, `{"do": "diff", "config": PATH}` when it is known what that would
change: by an Outcome (reload_status.py). For "handover" and "leave" see handover.py.
"""

import json
import os
import selectors
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

SOCKET = "supervisor.sock"
ABOUT = "about.json"
"""Whose directory it is: `{"pid", "config"}`."""
LONGEST = 4096
"""Bytes of a question."""
MOST_ASKING = 16


class Asked:
    """The supervisor's side. `answer(question, reply)`: `reply` is called once, now or later."""

    def __init__(
        self,
        directory: Path,
        selector: selectors.BaseSelector,
        answer: Callable[[dict[str, Any], Callable[[dict[str, Any]], None]], None],
        hand_over: Callable[[socket.socket], None],
    ) -> None:
        """`hand_over`: answers the question for the listening sockets (handover.py)."""
        self.selector = selector
        self.answer = answer
        self.hand_over = hand_over
        self.asking: dict[socket.socket, bytearray] = {}
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(directory / SOCKET))
        self.listening.listen(MOST_ASKING)
        self.listening.setblocking(False)
        selector.register(self.listening, selectors.EVENT_READ, self.accept)

    def accept(self) -> None:
        try:
            sock, _ = self.listening.accept()
        except OSError:
            return  # gone already
        if len(self.asking) >= MOST_ASKING:
            sock.close()
            return
        sock.setblocking(False)
        self.asking[sock] = bytearray()
        self.selector.register(sock, selectors.EVENT_READ, partial(self.read, sock))

    def read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(LONGEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        said = self.asking[sock]
        said += data
        if not data or len(said) > LONGEST:
            self.forget(sock)
        elif b"\n" in said:
            line, _, rest = said.partition(b"\n")
            self.asking[sock] = rest
            try:
                question = json.loads(line)
            except ValueError:
                question = None
            if isinstance(question, dict) and question.get("do") == "handover":
                with suppress(OSError):  # whoever asked has gone: nothing has happened
                    self.hand_over(sock)
                self.forget(sock)
            elif isinstance(question, dict):
                self.answer(question, partial(self.reply, sock))
            else:
                self.forget(sock)

    def reply(self, sock: socket.socket, answer: dict[str, Any]) -> None:
        """Whoever asked may have gone meanwhile."""
        if sock in self.asking:
            with suppress(OSError):
                sock.settimeout(1.0)
                sock.sendall(json.dumps(answer).encode() + b"\n")
            self.forget(sock)

    def forget(self, sock: socket.socket) -> None:
        del self.asking[sock]
        self.selector.unregister(sock)
        sock.close()

    def close(self) -> None:
        """Also in children."""
        for sock in self.asking:
            sock.close()
        self.listening.close()


class NotRunningError(Exception):
    """There is no such gateway; the text says which one was looked for."""


def directories(config: Path | None = None, pid: int | None = None) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The private directories of this user's gateways, of this config or this supervisor only, with what ABOUT says."""
    for base in dict.fromkeys((Path(tempfile.gettempdir()), Path("/tmp"))):
        for path in base.glob("penstock-*-*"):
            with suppress(OSError, ValueError):
                if path.lstat().st_uid != os.getuid() or path.is_symlink():
                    continue
                about = json.loads((path / ABOUT).read_text())
                if not Path("/proc", str(about["pid"])).exists():
                    continue
                if (config is None or str(config.resolve()) == about["config"]) and pid in (None, about["pid"]):
                    yield path, about


def find(config: Path | None, pid: int | None) -> Path:
    """The private directory of the one gateway that is meant. Raises NotRunningError."""
    found = list(directories(config, pid))
    if len(found) == 1:
        return found[0][0]
    meant = f" of {config}" if config is not None else f" with pid {pid}" if pid is not None else ""
    if not found:
        raise NotRunningError(f"no gateway{meant} of this user runs here")
    listed = ", ".join(f"{about['pid']} ({about['config']})" for _, about in found)
    raise NotRunningError(f"there are {len(found)} gateways{meant}: {listed}; name one by --pid")


def ask(directory: Path, question: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Ask the supervisor, and wait for its answer. Raises OSError, and NotRunningError if it ended before it answered."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        sock.connect(str(directory / SOCKET))
        sock.sendall(json.dumps(question).encode() + b"\n")
        said = b""
        while not said.endswith(b"\n"):
            data = sock.recv(65536)
            if not data:
                raise NotRunningError("the gateway ended before it answered")
            said += data
    answer: dict[str, Any] = json.loads(said)
    return answer
