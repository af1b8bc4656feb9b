"""The page at / and its files. They are read once: they are few and small, and part of the program."""

from importlib import resources
from typing import Final

from aiohttp import hdrs, web

from proxy.admin.answers import json_page
from proxy.admin.openapi import index

TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "html": "text/html"}


def add_page(app: web.Application) -> None:
    """/ is the page for browsers and a list of what there is for others; /static/NAME its files."""
    files = {file.name: file.read_bytes() for file in resources.files("proxy.admin").joinpath("static").iterdir()}

    async def get_index(request: web.Request) -> web.Response:
        if "text/html" in request.headers.get(hdrs.ACCEPT, ""):
            response = web.Response(body=files["index.html"], content_type="text/html", charset="utf-8")
        else:
            response = json_page(index())
        response.headers[hdrs.VARY] = hdrs.ACCEPT
        return response

    async def get_file(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in files:
            raise web.HTTPNotFound
        kind = TYPES[name.rpartition(".")[2]]
        return web.Response(body=files[name], content_type=kind, charset="utf-8")

    app.router.add_get("/", get_index)
    app.router.add_get("/static/{name}", get_file)
