"""The admin process: the admin pages, in a process of their own so that they answer while workers are busy or dead."""

import asyncio
import os
import signal
from ipaddress import ip_address
from socket import socket

from aiohttp import web

from proxy.admin.app import make_app
from proxy.admin.guard import Guard
from proxy.admin.workers import Workers
from proxy.config.operation import Admin
from proxy.server.contexts import AdminContext
from proxy.server.process import STOP_NOW
from proxy.telemetry import logging as logs

log = logs.get_logger("admin")

ANSWER_SECONDS = 0.7
"""For what is being answered when this process is to end: the supervisor waits a second."""


def main(context: AdminContext) -> int:
    """Serve the pages until STOP_NOW; gives the process's exit status."""
    return asyncio.run(serve(context))


async def serve(context: AdminContext) -> int:
    loop = asyncio.get_running_loop()
    logs.output.writer.attach(loop)
    stopping = asyncio.Event()
    loop.add_signal_handler(STOP_NOW, stopping.set)
    workers = Workers(context.scoreboard, context.control_directory, context.quarantine)
    admin = context.config.admin or Admin()
    guard = Guard(admin.token, admin.hosts)
    supervisor = os.getppid()
    app = make_app(workers, context.config.redacted(), guard, lambda: os.kill(supervisor, signal.SIGTERM))
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=ANSWER_SECONDS, keepalive_timeout=15.0)
    await runner.setup()
    await web.SockSite(runner, context.socket).start()
    polling = asyncio.create_task(workers.poll())
    context.ready()
    if admin.token is None and not on_loopback(context.socket):
        log.warning("anybody may use the admin port", address=str(admin.address), set="admin.token")
    await stopping.wait()
    polling.cancel()
    await runner.cleanup()
    return 0


def on_loopback(listening: socket) -> bool:
    """Whether only this machine can reach the socket."""
    return ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback
