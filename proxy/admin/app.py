"""The admin pages, for the operator, on a (loopback) port of their own. All are read-only but the one to POST to."""

import ipaddress
import json
from collections.abc import Awaitable, Callable
from typing import Any

import yaml
from aiohttp import hdrs, web

from proxy.admin.workers import Workers
from proxy.telemetry.logging import get_logger
from proxy.telemetry.metrics import render

log = get_logger("admin")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

INDEX = {
    "/ready": "200 while at least one worker serves, else 503; which worker and which filter is degraded",
    "/metrics": "Prometheus text, or OpenMetrics if accepted; sums over the workers",
    "/filters": "each filter's state, why it is in quarantine, its last faults; POST to /filters/NAME/resume lets it in again",
    "/config": "the effective config, secrets left out; JSON, or YAML if accepted",
}


def make_app(workers: Workers, config: dict[str, Any], loopback: bool) -> web.Application:
    """The pages. `config` is redacted already. `loopback`: the port is the machine's own, see `check_host`."""
    app = web.Application(middlewares=[errors_as_json, *([check_host] if loopback else [])])
    as_json = json.dumps(config, indent=2).encode() + b"\n"
    as_yaml = yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode()

    async def get_index(request: web.Request) -> web.Response:
        return json_page(INDEX)

    async def get_ready(request: web.Request) -> web.Response:
        await workers.refresh()
        ready, body = workers.readiness()
        return json_page(body, 200 if ready else 503)

    async def get_metrics(request: web.Request) -> web.Response:
        await workers.refresh()
        text, content_type = render(workers.snapshot(), request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=text, headers={hdrs.CONTENT_TYPE: content_type})

    async def get_filters(request: web.Request) -> web.Response:
        await workers.refresh()
        return json_page(workers.filters())

    async def post_resume(request: web.Request) -> web.Response:
        if hdrs.ORIGIN in request.headers:
            # A browser's: some web page's doing, not the operator's (cross-site request forgery).
            return json_page({"error": "not from a web page"}, 403)
        name = request.match_info["name"]
        was = workers.resume(name)
        if was is None:
            return json_page({"error": "no such filter", "filters": workers.quarantine.names}, 404)
        return json_page({"filter": name, "was_quarantined": was})

    async def get_config(request: web.Request) -> web.Response:
        if "yaml" in request.headers.get(hdrs.ACCEPT, "").lower():
            return web.Response(body=as_yaml, content_type="application/yaml", charset="utf-8")
        return web.Response(body=as_json, content_type="application/json")

    app.router.add_get("/", get_index)
    app.router.add_get("/ready", get_ready)
    app.router.add_get("/metrics", get_metrics)
    app.router.add_get("/filters", get_filters)
    app.router.add_post("/filters/{name}/resume", post_resume)
    app.router.add_get("/config", get_config)
    app.on_response_prepare.append(set_headers)
    return app


def json_page(body: object, status: int = 200) -> web.Response:
    return web.Response(status=status, body=json.dumps(body, indent=2).encode() + b"\n", content_type="application/json")


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as error:
        response = json_page({"error": "method not allowed", "allowed": sorted(error.allowed_methods)}, 405)
        response.headers[hdrs.ALLOW] = ", ".join(sorted(error.allowed_methods))
        return response
    except web.HTTPException as error:
        return json_page({"error": error.reason.lower(), "pages": list(INDEX)}, error.status)
    except Exception:
        log.exception("admin page failed", path=request.path)
        return json_page({"error": "internal error"}, 500)


@web.middleware
async def check_host(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer only for localhost and addresses: else a web page whose name resolves to 127.0.0.1 (DNS rebinding) could
    read these pages through a browser on this machine."""
    host = request.host.rpartition(":")[0] if not request.host.endswith("]") else request.host
    host = (host or request.host).strip("[]").lower()
    if host != "localhost":
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return json_page({"error": "misdirected request: ask by address or as localhost"}, 421)
    return await handler(request)


async def set_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers[hdrs.SERVER] = "penstock"
    response.headers[hdrs.CACHE_CONTROL] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
