"""Listening sockets, opened by the supervisor before it forks."""

import errno
import os
import socket

BACKLOG = 4096
"""Linux cuts this to net.core.somaxconn. Who serves the socket must not call listen() with less."""


class ListenError(Exception):
    """An address can not be listened on; the text names it and says why."""


def split_address(address: str) -> tuple[str, int]:
    """`127.0.0.1:8080`, `[::1]:8080` -> host, port. Raises ValueError."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bound_address(sock: socket.socket) -> str:
    """Where the socket listens, with the port that the kernel chose if the config says 0."""
    host, port = sock.getsockname()[:2]
    return join_address(host, port)


def open_sockets(address: str, count: int, beside: socket.socket | None = None) -> list[socket.socket]:
    """`count` listening sockets on one address; the kernel spreads connections over them (SO_REUSEPORT).

    With SO_REUSEPORT a second gateway of the same user could silently share the address, so the address is first bound
    without it, which fails if anyone listens there; unless that is `beside`, of a gateway that hands over. Raises ListenError.
    """
    try:
        host, port = split_address(address)
        family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, ValueError) as error:
        raise ListenError(f"cannot listen on {address}: {reason_of(error)}") from error
    opened: list[socket.socket] = []
    try:
        if beside is not None:
            target = beside.getsockname()
        else:
            with bound(family, target, shared=False) as probe:
                target = (target[0], probe.getsockname()[1], *target[2:])
        for _ in range(count):
            sock = bound(family, target, shared=True)
            opened.append(sock)
            sock.listen(BACKLOG)
            sock.setblocking(False)
    except OSError as error:
        for sock in opened:
            sock.close()
        raise ListenError(f"cannot listen on {address}: {reason_of(error)}") from error
    return opened


def bound(family: int, target: tuple[object, ...], shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(target)
    except BaseException:
        sock.close()
        raise
    return sock


def check_free(address: str) -> None:
    """Raises ListenError if nothing could listen on this address now: for a process that binds it itself later."""
    for sock in open_sockets(address, 1):
        sock.close()


def reason_of(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return "the host is not known; write an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all"
    match getattr(error, "errno", None):
        case errno.EADDRINUSE:
            return "address in use; stop what listens there, or write another address"
        case errno.EACCES:
            return "permission denied; write a port above 1023, or grant CAP_NET_BIND_SERVICE"
        case errno.EADDRNOTAVAIL:
            return "no interface of this machine has that address"
        case int() as number if number > 0:
            return os.strerror(number)
    return str(error)
