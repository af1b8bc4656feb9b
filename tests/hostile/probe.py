"""An innocent client: `python -m tests.hostile.probe PORT WORKER` asks for /innocent until its input ends.

A line for each request: when it was sent (time.monotonic), its seconds, the CPU seconds of the process WORKER meanwhile, and its
status if the innocent filter took part in it, else what came instead. The CPU is what the client waited for the worker's doings;
the rest of the time somebody else had the machine. One connection that is kept, a request every PAUSE; in a process of its own, so that what the guilty
clients do in theirs is not taken for the gateway's delay.
"""

from __future__ import annotations

import contextlib
import os
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


def cpu_clock(pid: int) -> int:
    """The clock of a process's CPU time (clock_getcpuclockid(3): Linux's MAKE_PROCESS_CPUCLOCK, CPUCLOCK_SCHED)."""
    return ~pid << 3 | 2


def main(port: int, worker: int) -> None:
    clock = cpu_clock(worker)
    with contextlib.suppress(PermissionError):  # else what the worker does while this process waits for a CPU is counted, too
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    connection: socket.socket | None = None
    while not over.is_set():
        begun, burned = time.monotonic(), time.clock_gettime(clock)
        try:
            if connection is None:
                connection = socket.create_connection(("127.0.0.1", port), TIMEOUT)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            outcome = ask(connection)
        except OSError as error:
            outcome = f"failed: {error}"
        if outcome != "200":
            connection = None
        took, cpu = time.monotonic() - begun, time.clock_gettime(clock) - burned
        sys.stdout.write(f"{begun:.6f} {took:.6f} {cpu:.6f} {outcome}\n")
        sys.stdout.flush()
        over.wait(PAUSE)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
