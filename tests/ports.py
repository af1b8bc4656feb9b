"""Ports of 127.0.0.1 that are known before anybody listens there, or where nobody ever does.

The kernel gives a port from 32768 up (ip_local_port_range) to every socket that asks for any and to every connection, in all
processes: one of those may be gone the moment after it was free. These lie below, and each process begins elsewhere.
"""

import itertools
import os
import random
import socket

RANGE = range(10_000, 32_000)

following = itertools.islice(itertools.cycle(RANGE), random.Random(os.getpid()).randrange(len(RANGE)), None)


def free_port() -> int:
    """A port where nobody listens, and that no other call in this process has given."""
    for port in itertools.islice(following, len(RANGE)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise OSError(f"no port of {RANGE} is free")


def free_ports(count: int) -> list[int]:
    """As many."""
    return [free_port() for _ in range(count)]
