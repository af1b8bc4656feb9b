"""A demo service to put behind the gateway: the quickstart's upstream, so that nothing else has to be installed.

It shows what arrives: the page names the user that basic-auth vouched for and lists the headers as they came in. It is
no part of the gateway and knows nothing of it.
"""

from __future__ import annotations

import asyncio
import html

from aiohttp import web

PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Demo service</title></head>
<body>
<h1>Demo service</h1>
<p>User: {user}</p>
<h2>The request as it arrived here</h2>
<pre>{request}</pre>
</body>
</html>
"""

LARGEST_DELAY = 30.0
LARGEST_BODY = 1 << 30
CHUNK = b"penstock " * 7281  # just under 64 KiB
STREAM_LINES = 10
STREAM_PAUSE = 0.1

routes = web.RouteTableDef()


@routes.get("/")
async def page(request: web.Request) -> web.Response:
    """A small HTML page with the request's head in it."""
    lines = [f"{request.method} {request.path_qs}", *(f"{name}: {value}" for name, value in request.headers.items())]
    user = request.headers.get("x-auth-user", "nobody (no x-auth-user header)")
    text = PAGE.format(user=html.escape(user), request=html.escape("\n".join(lines)))
    return web.Response(text=text, content_type="text/html", headers={"Server": "demo", "ETag": '"demo-page"'})


@routes.route("*", "/headers")
async def headers(request: web.Request) -> web.Response:
    """The request headers as JSON: a list of [name, value], because names repeat."""
    return web.json_response({"method": request.method, "path": request.path_qs, "headers": list(request.headers.items())})


@routes.route("*", "/echo")
async def echo(request: web.Request) -> web.StreamResponse:
    """The request's body, piece by piece, with its content type."""
    response = web.StreamResponse(headers={"Content-Type": request.headers.get("Content-Type", "application/octet-stream")})
    if request.content_length is not None:
        response.content_length = request.content_length
    await response.prepare(request)
    async for piece in request.content.iter_any():
        await response.write(piece)
    await response.write_eof()
    return response


@routes.get("/stream")
async def stream(request: web.Request) -> web.StreamResponse:
    """Ten lines of text in ten chunks, a tenth of a second apart."""
    response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    for number in range(1, STREAM_LINES + 1):
        await response.write(f"line {number} of {STREAM_LINES}\n".encode())
        await asyncio.sleep(STREAM_PAUSE)
    await response.write_eof()
    return response


@routes.get(r"/bytes/{count:\d{1,10}}")
async def octets(request: web.Request) -> web.StreamResponse:
    """So many bytes, at most 1 GiB."""
    left = min(int(request.match_info["count"]), LARGEST_BODY)
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    response.content_length = left
    await response.prepare(request)
    while left:
        piece = CHUNK[: min(left, len(CHUNK))]
        await response.write(piece)
        left -= len(piece)
    await response.write_eof()
    return response


@routes.route("*", r"/status/{code:[2-5]\d\d}")
async def status(request: web.Request) -> web.Response:
    """A response with that status, 200 to 599."""
    code = int(request.match_info["code"])
    return web.Response(status=code, text=None if code in (204, 304) else f"status {code}\n")


@routes.get(r"/delay/{seconds:\d{1,3}(\.\d{1,3})?}")
async def delay(request: web.Request) -> web.Response:
    """An answer after so many seconds, at most 30."""
    seconds = min(float(request.match_info["seconds"]), LARGEST_DELAY)
    await asyncio.sleep(seconds)
    return web.Response(text=f"waited {seconds:g} s\n")


def application() -> web.Application:
    """The service as an aiohttp application."""
    app = web.Application(client_max_size=0)
    app.add_routes(routes)
    return app


async def start(host: str = "127.0.0.1", port: int = 9000) -> web.AppRunner:
    """Starts the service and returns once it listens; `runner.addresses` says where, `await runner.cleanup()` ends it.

    Port 0 lets the kernel choose. Raises OSError if the address is taken.
    """
    runner = web.AppRunner(application(), access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner


async def serve(host: str = "127.0.0.1", port: int = 9000) -> None:
    """Serves until cancelled."""
    runner = await start(host, port)
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def run(address: str = "127.0.0.1:9000") -> None:
    """Serves on `host:port` until SIGINT or SIGTERM. Raises OSError for a taken address, ValueError for none at all."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is not an address such as 127.0.0.1:9000")
    web.run_app(application(), host=host, port=int(port), access_log=None, print=None, shutdown_timeout=1.0)
