"""An innocent client: `python -m tests.hostile.probe PORT` asks for /innocent until its input ends.

A line for each request: when it was sent (time.monotonic), its seconds, and its status if the innocent filter took part in it,
else what came instead. One connection that is kept, a request every PAUSE; in a process of its own, so that what the guilty
clients do in theirs is not taken for the gateway's delay.
"""

from __future__ import annotations

import socket
import sys
import threading
import time

PAUSE = 0.004
REQUEST = b"GET /innocent HTTP/1.1\r\nhost: innocent\r\n\r\n"
BODY = b"\r\n\r\noo"
TIMEOUT = 10.0
SIGN = b"\r\nx-innocent: yes\r\n"
"""What the innocent filter adds to a response."""


def ask(connection: socket.socket) -> str:
    """One request: its status, or what is wrong with the answer."""
    connection.sendall(REQUEST)
    data = b""
    while not data.endswith(BODY):
        more = connection.recv(65536)
        if not more:
            return f"closed after {data[:60]!r}"
        data += more
        if len(data) > 4096 or (b"\r\n\r\n" in data and not data.startswith(b"HTTP/1.1 200 ")):
            return f"answered {data[:60]!r}"
    return "200" if SIGN in data.lower() else f"without its filter: {data[:200]!r}"


def main(port: int) -> None:
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    connection: socket.socket | None = None
    while not over.is_set():
        begun = time.monotonic()
        try:
            if connection is None:
                connection = socket.create_connection(("127.0.0.1", port), TIMEOUT)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            outcome = ask(connection)
        except OSError as error:
            outcome = f"failed: {error}"
        if outcome != "200":
            connection = None
        sys.stdout.write(f"{begun:.6f} {time.monotonic() - begun:.6f} {outcome}\n")
        sys.stdout.flush()
        over.wait(PAUSE)


if __name__ == "__main__":
    main(int(sys.argv[1]))
