"""The admin process: the admin pages, in a process of their own so that they answer while workers are busy or dead."""

import asyncio
import ipaddress

from aiohttp import web

from proxy.admin.app import make_app
from proxy.admin.workers import Workers
from proxy.server.process import STOP_NOW
from proxy.server.supervisor import AdminContext
from proxy.telemetry import logging as logs


def main(context: AdminContext) -> int:
    """Serve the pages until STOP_NOW; gives the process's exit status."""
    return asyncio.run(serve(context))


async def serve(context: AdminContext) -> int:
    loop = asyncio.get_running_loop()
    logs.output.writer.attach(loop)
    stopping = asyncio.Event()
    loop.add_signal_handler(STOP_NOW, stopping.set)
    workers = Workers(context.scoreboard, context.control_directory, context.quarantine)
    host = context.socket.getsockname()[0]
    app = make_app(workers, context.config.redacted(), ipaddress.ip_address(host).is_loopback)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1, keepalive_timeout=15.0)
    await runner.setup()
    await web.SockSite(runner, context.socket).start()
    polling = asyncio.create_task(workers.poll())
    context.ready()
    await stopping.wait()
    polling.cancel()
    await runner.cleanup()
    return 0
