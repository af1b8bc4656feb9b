"""What a worker process needs of the thing that serves."""

import socket
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from aiohttp import web

from proxy.config.model import Config
from proxy.sharing.quarantine import QuarantineBoard
from proxy.telemetry.telemetry import Telemetry


class Gateway(Protocol):
    """What serves: `proxy.server.gateway.Gateway`, put together with its filters by `proxy.server.assembly`."""

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Load the filters, then serve; `sockets` one per listener. Raises if it can not."""

    async def drain(self, grace: float) -> None:
        """Stop accepting at once and close the sockets; return when all streams are over, cut after `grace` seconds."""

    def add_pages(self, app: web.Application) -> None:
        """Add what the admin process may ask of this worker to its control server. Called after `start`."""

    def state(self) -> dict[str, Any]:
        """JSON for /ready: `{"filters": {name: {"state": "ready" or another word, ...}}}` and what else is known."""


GatewayFactory = Callable[[Config, Telemetry, int, QuarantineBoard], Gateway]
"""Makes the gateway of a worker; the number is its slot."""
