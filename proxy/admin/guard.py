"""Who may ask the admin address, and what every answer says.

A browser on the operator's machine is the way in for strangers. It may be made to ask by a name that resolves to our address
(DNS rebinding): so only addresses, localhost and the configured names are taken as Host. It may be made to send a request from
another site's page (cross-site request forgery): so what changes something must have no Origin but our own, as browsers send
it with every such request, and Sec-Fetch-Site must not tell otherwise. A token, if one is set, is asked for on top.
"""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from proxy.admin.answers import json_page
from proxy.telemetry.logging import get_logger

log = get_logger("admin")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

READS: Final = frozenset({"GET", "HEAD"})
OPEN: Final = frozenset({"/", "/live", "/ready", "/openapi.json"})
"""What needs no token, beside the page's own files: nothing is told by them. /ready tells its details with a token only."""
HAS_TOKEN: Final = web.RequestKey("has_token", bool)

SECURITY: Final = {
    hdrs.SERVER: "penstock",
    hdrs.CACHE_CONTROL: "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


class Guard:
    """`token` None: none is asked for. `hosts`: names that count as ours, in any case."""

    def __init__(self, token: str | None = None, hosts: Collection[str] = ()) -> None:
        self.token = token.encode() if token is not None else None
        self.hosts = {"localhost", *(host.lower() for host in hosts)}

    def middlewares(self) -> list[Middleware]:
        return [errors_as_json, self.check_host, self.check_origin, self.check_token]

    @web.middleware
    async def check_host(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not self.is_ours(request.host):
            return json_page({"error": "misdirected request: ask by address, as localhost, or by a name of admin.hosts"}, 421)
        return await handler(request)

    def is_ours(self, authority: str) -> bool:
        """Is this Host, with its port, an address or a name of ours?"""
        host = authority if authority.endswith("]") else authority.rpartition(":")[0] or authority
        host = host.removeprefix("[").removesuffix("]").lower()
        if host in self.hosts:
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True

    @web.middleware
    async def check_origin(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method not in READS:
            origin = request.headers.get(hdrs.ORIGIN)
            site = request.headers.get("Sec-Fetch-Site", "none")
            if (origin is not None and origin != f"http://{request.host}") or site not in ("none", "same-origin"):
                return json_page({"error": "not from another site's page"}, 403)
        return await handler(request)

    @web.middleware
    async def check_token(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        request[HAS_TOKEN] = self.token is None or self.is_token(request.headers.get(hdrs.AUTHORIZATION, ""))
        if not request[HAS_TOKEN] and request.path not in OPEN and not request.path.startswith("/static/"):
            response = json_page({"error": "a token is needed: Authorization: Bearer TOKEN"}, 401)
            response.headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="penstock"'
            return response
        return await handler(request)

    def is_token(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        assert self.token is not None
        said = given.strip().encode("utf-8", "surrogateescape")
        return scheme.lower() == "bearer" and hmac.compare_digest(said, self.token)


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as error:
        response = json_page({"error": "method not allowed", "allowed": sorted(error.allowed_methods)}, 405)
        response.headers[hdrs.ALLOW] = ", ".join(sorted(error.allowed_methods))
        return response
    except web.HTTPException as error:
        if error.content_type == "application/json":
            raise
        return json_page({"error": error.text if error.status == 400 else error.reason.lower()}, error.status)
    except Exception:
        log.exception("admin page failed", path=request.path)
        return json_page({"error": "internal error"}, 500)


async def set_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(SECURITY)
