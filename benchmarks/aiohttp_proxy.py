"""The plain aiohttp reverse proxy: a web.Application that passes every request on through a ClientSession. What one
writes without Penstock, with the settings that make it fast: uvloop, no access log, no cookies, no decompression.

usage: python aiohttp_proxy.py PORT UPSTREAM_PORT
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-connection"}
SESSION = web.AppKey("session", ClientSession)
UPSTREAM = web.AppKey("upstream", str)
SMALL = 65536


async def handle(request: web.Request) -> web.StreamResponse:
    """A small body is passed on at once, a large one as it comes."""
    headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
    body = request.content if request.can_read_body else None
    url = request.app[UPSTREAM] + request.raw_path
    async with request.app[SESSION].request(request.method, url, headers=headers, data=body, allow_redirects=False) as answer:
        passed = [(name, value) for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP]
        if (answer.content_length or SMALL + 1) <= SMALL:
            response = web.Response(status=answer.status, body=await answer.read())
            response.headers.clear()
            response.headers.extend(passed)
            return response
        stream = web.StreamResponse(status=answer.status)
        stream.headers.extend(passed)
        await stream.prepare(request)
        async for piece in answer.content.iter_any():
            await stream.write(piece)
        await stream.write_eof()
        return stream


async def session(app: web.Application) -> AsyncIterator[None]:
    """One client for all requests."""
    connector = TCPConnector(limit=0, keepalive_timeout=60)
    async with ClientSession(connector=connector, cookie_jar=DummyCookieJar(), auto_decompress=False) as client:
        app[SESSION] = client
        yield


def main(port: int, upstream: int) -> None:
    """Serves 127.0.0.1:`port` until it is ended."""
    try:
        import uvloop

        uvloop.install()
    except ImportError:
        print("without uvloop", file=sys.stderr)
    app = web.Application(client_max_size=1 << 30)
    app[UPSTREAM] = f"http://127.0.0.1:{upstream}"
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", handle)
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
