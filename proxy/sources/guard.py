"""Connections to sources, under the rules for filters' calls: a name is resolved once, all of its addresses are checked, and
one of those is dialled. What is not public is refused unless `sources.allowed_networks` admits it, also after a redirect."""

import dataclasses
import socket
import time
from collections.abc import Sequence

from proxy.capabilities.addresses import IpAddress, OwnAddresses, Special
from proxy.capabilities.allowed_hosts import AllowedHosts, DeniedError, Target
from proxy.capabilities.hosts import HostError, split


class FetchError(Exception):
    """A source cannot be had: why, and what to do about it. `lasting`: asking again would give the same."""

    def __init__(self, problem: str, mend: str, lasting: bool = False) -> None:
        super().__init__(problem, mend, lasting)
        self.problem = problem
        self.mend = mend
        self.lasting = lasting

    def __str__(self) -> str:
        return f"{self.problem}; {self.mend}"


class Networks(AllowedHosts):
    """`allowed_networks`: unlike in a filter's allowed_hosts, an address is not admitted by having been written as the host."""

    def admits(self, target: Target, address: IpAddress, special: Special) -> bool:
        return super().admits(dataclasses.replace(target, host="source"), address, special)


class Guard:
    """Dials sources. `deadline`: on time.monotonic's clock, for all that is done through it."""

    def __init__(self, networks: Sequence[str], deadline: float) -> None:
        self.networks = Networks(networks)
        self.own = OwnAddresses()
        self.deadline = deadline

    def left(self) -> float:
        """Seconds. Raises FetchError when they are over."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise FetchError("it took too long", "raise sources.timeout, or mend the source")
        return left

    def addresses(self, host: str, port: int) -> list[str]:
        """What may be dialled. Raises FetchError, OSError if the name cannot be resolved."""
        try:
            name = split(f"[{host}]" if ":" in host else host)[1]
        except HostError as error:
            raise FetchError(f"the host {host!a} cannot be called: {error}", "write another", lasting=True) from None
        found = list(dict.fromkeys(str(one[4][0]) for one in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)))
        try:
            self.networks.check(Target("https", name, port), found, self.own)
        except DeniedError as error:
            mend = f'to allow it: sources: {{allowed_networks: ["{error.entry}"]}}' if error.entry else "name another host"
            raise FetchError(error.reason, mend, lasting=True) from None
        return found

    def dial(self, host: str, port: int) -> socket.socket:
        """A connected socket, its timeout set. Raises FetchError, OSError."""
        refused: OSError | None = None
        for address in self.addresses(host, port):
            try:
                return socket.create_connection((address, port), self.left())
            except OSError as error:
                refused = error
        raise refused or OSError(f"{host} has no address")
