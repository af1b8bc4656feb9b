"""Endpoint hosts to addresses: literals as they are, names by the system's resolver, kept for a few seconds."""

import asyncio
import ipaddress
import socket

TTL = 5.0
"""Seconds that an answer is used. getaddrinfo tells no TTL; so a moved service is found within this time."""


class Resolver:
    """One per worker. Names come from the config, so the number of kept answers is bounded."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.answers: dict[str, tuple[float, list[str]]] = {}

    async def addresses(self, host: str) -> list[str]:
        """The IP addresses of a host, at least one, in the order to try. Raises OSError."""
        if is_literal(host):
            return [host]
        known = self.answers.get(host)
        now = self.loop.time()
        if known is not None and known[0] > now:
            return known[1]
        found = await self.loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not addresses:
            raise OSError("no address")
        self.answers[host] = (now + TTL, addresses)
        return addresses


def is_literal(host: str) -> bool:
    """Whether the host is an IP address already."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
