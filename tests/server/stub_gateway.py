"""A gateway for tests of the processes: an aiohttp handler in place of routes and filters."""

import asyncio
import http.server
import os
import time

from aiohttp import web

from proxy.telemetry.stream import StreamInfo


class StubGateway:
    """GET /pid, /die, /block?seconds (blocks the loop), /slow?seconds (a response that takes its time)."""

    def __init__(self, config, telemetry, slot, quarantine):
        self.telemetry = telemetry
        self.servers = []
        self.busy = 0
        self.filters = {"guard": {"state": "ready"}}

    async def start(self, sockets):
        if os.environ.get("STUB_FAILS"):
            raise RuntimeError("the filter does not load")
        time.sleep(float(os.environ.get("STUB_STARTS_IN", "0")))
        self.server = web.Server(self.handle, access_log=None)
        for sock in sockets:
            self.servers.append(await asyncio.get_running_loop().create_server(self.server, sock=sock, backlog=4096))

    async def handle(self, request):
        info = StreamInfo()
        info.path = request.path
        info.route_name = "all"
        info.cluster_name = "service"
        self.busy += 1
        try:
            return await self.answer(request)
        finally:
            self.busy -= 1
            info.status = 200
            self.telemetry.stream_finished(info)

    async def answer(self, request):
        seconds = float(request.query.get("seconds", "0"))
        if request.path == "/die":
            os.kill(os.getpid(), 9)
        if request.path == "/block":
            time.sleep(seconds)
        if request.path == "/degrade":
            self.filters["guard"] = {"state": "degraded", "reason": "fuel"}
        if request.path == "/slow":
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"begun ")
            await asyncio.sleep(seconds)
            await response.write(b"ended")
            await response.write_eof()
            return response
        return web.Response(text=str(os.getpid()))

    async def drain(self, grace):
        for server in self.servers:
            server.close()
        deadline = time.monotonic() + grace
        while self.busy and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        await self.server.shutdown(0.1)

    def add_pages(self, app):
        """None of them is asked for."""

    def state(self):
        return {"filters": self.filters}


class DemoHandler(http.server.BaseHTTPRequestHandler):
    """Answers "demo"."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "4")
        self.end_headers()
        self.wfile.write(b"demo")


def serve_demo(address):
    host, _, port = address.rpartition(":")
    http.server.HTTPServer((host, int(port)), DemoHandler).serve_forever()


def nothing_wrong(config):
    return []


def something_wrong(config):
    return ["penstock.yaml:3: filters[0].wasm: is not Wasm; write the path of a module"]
