"""What the admin process may ask and tell a worker, beside its figures: facts, streams, log lines, the tap, the log level."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from proxy.abi.component.load import PreparedComponent
from proxy.chain.chains import Chains
from proxy.chain.watching import Watching
from proxy.config.model import Config
from proxy.config.remote import Remote
from proxy.telemetry import logging as logs

if TYPE_CHECKING:
    from proxy.server.gateway import Gateway

log = logs.get_logger("worker")


class Inspection:
    """Adds its pages to the worker's control server. `gateway()`: the one that serves new streams."""

    def __init__(self, gateway: Callable[[], "Gateway"], watching: Watching) -> None:
        self.gateway = gateway
        self.watching = watching
        self.facts: tuple[Any, list[dict[str, Any]], list[dict[str, Any]]] = (None, [], [])
        """What was made of which generation's config, of its filters and routes: that does not change."""

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/detail", self.get_detail)
        app.router.add_get("/streams", self.get_streams)
        app.router.add_get("/streams/{number}", self.get_stream)
        app.router.add_get("/logs", self.get_logs)
        app.router.add_put("/tap", self.put_tap)
        app.router.add_delete("/tap", self.delete_tap)
        app.router.add_put("/log", self.put_log)
        app.router.add_post("/quarantine", self.post_quarantine)

    async def get_detail(self, request: web.Request) -> web.Response:
        gateway = self.gateway()
        generation = gateway.generation
        if self.facts[0] is not generation:
            self.facts = generation, filter_facts(generation.chains), route_facts(generation.config)
        return web.json_response(
            {
                "filters": self.facts[1],
                "clusters": cluster_facts(gateway),
                "routes": self.facts[2],
                "tap": self.watching.state(),
                "log_level": logs.level_name(),
            }
        )

    async def get_streams(self, request: web.Request) -> web.Response:
        return web.json_response(self.watching.tap.streams())

    async def get_stream(self, request: web.Request) -> web.Response:
        number = request.match_info["number"]
        found = self.watching.tap.stream(int(number)) if number.isdecimal() else None
        return web.json_response(found, status=404 if found is None else 200)

    async def get_logs(self, request: web.Request) -> web.Response:
        return web.json_response(logs.output.recent.of(request.query.get("filter", "")))

    async def put_tap(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        self.watching.tap_on(wanted["seconds"], wanted["sample"], wanted["bodies"])
        return web.json_response(self.watching.state())

    async def delete_tap(self, request: web.Request) -> web.Response:
        self.watching.tap_off()
        return web.json_response(self.watching.state())

    async def put_log(self, request: web.Request) -> web.Response:
        level = (await request.json())["level"]
        set_log_level(self.gateway(), level)
        return web.json_response({"level": level})

    async def post_quarantine(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        for plugin in chains_of(self.gateway().generation.chains).plugins:
            if plugin.name == wanted["filter"] and plugin.slot.quarantine is not None:
                plugin.slot.quarantine.take_out(plugin.name, wanted["reason"])
                plugin.slot.look()
                log.warning("filter_quarantined", filter=plugin.name, reason=wanted["reason"])
                return web.json_response({})
        return web.json_response(None, status=404)


def set_log_level(gateway: "Gateway", level: str) -> None:
    """The worker's own lines and its filters'."""
    logs.set_level(level)
    for plugin in chains_of(gateway.generation.chains).plugins:
        plugin.set_log_level(level)


def chains_of(chains: Any) -> Chains:
    """The chains as this package makes them (assembly.py): the interface that the server knows tells less."""
    found: Chains = chains
    return found


def filter_facts(chains: Any) -> list[dict[str, Any]]:
    """What is known of each filter from its config and its module, in the chain's order."""
    found = []
    for plugin, prepared in zip(chains_of(chains).plugins, chains_of(chains).prepared.filters, strict=False):
        config = prepared.filter
        shown = config.redacted()
        component = isinstance(prepared, PreparedComponent)
        found.append(
            {
                "name": plugin.name,
                "kind": "component" if component else "proxy-wasm",
                "abi": "" if isinstance(prepared, PreparedComponent) else prepared.abi,
                "version": getattr(plugin, "version", ""),
                "digest": prepared.digest,
                "source": config.wasm.shown if isinstance(config.wasm, Remote) else str(config.wasm),
                "on_failure": config.on_failure,
                "isolation": config.isolation,
                "budgets": {
                    "fuel": config.fuel, "memory_bytes": config.memory, "deadline_seconds": config.deadline,
                    "limits": shown["limits"], "quarantine": shown["quarantine"],
                },
                "grants": shown["capabilities"],
                "callbacks": [name for name, has in plugin.callbacks._asdict().items() if has],
            }
        )  # fmt: skip
    return found


def cluster_facts(gateway: "Gateway") -> list[dict[str, Any]]:
    found = []
    for cluster in gateway.generation.clusters.values():
        found.append(
            {
                "name": cluster.name,
                "tls": cluster.tls is not None,
                "connections": cluster.connections,
                "max_connections": cluster.max_connections,
                "pending": len(cluster.pending),
                "endpoints": [
                    {
                        "address": pool.address,
                        "state": pool.state,
                        "since": pool.since,
                        "error": pool.error,
                        "idle_connections": len(pool.idle),
                        "failures": pool.failures,
                    }
                    for pool in cluster.pools
                ],
            }
        )
    return found


def route_facts(config: Config) -> list[dict[str, Any]]:
    found = []
    for route in config.routes:
        match = {key: value for key, value in route.match.redacted().items() if value not in (None, {}, [])}
        off = {name for name, own in route.filters.items() if not own.enabled}
        found.append(
            {
                "name": route.label,
                "match": match,
                "cluster": route.cluster,
                "timeout_seconds": route.timeout,
                "idle_timeout_seconds": route.idle_timeout,
                "filters": [filter_.name for filter_ in config.filters if filter_.name not in off],
                "configured_here": [name for name, own in route.filters.items() if own.config_bytes() is not None],
            }
        )
    return found
