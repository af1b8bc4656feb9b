"""Four times the capacity: how much is still served, and how soon all is well again.

The capacity is what the gateway serves to as many connections as it takes at a time (`clusters[].max_connections` towards
the upstream, which answers after 20 ms: so the limit is where an operator would put it, and the load generator is not what
is measured). Then four times as many connections ask, each again as soon as it is answered, and again after a short
pause when it is turned away. Goodput is what is answered 200. Nothing is asserted: figures of a shared machine.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

import click

from benchmarks.gateway import Gateway
from benchmarks.machine import describe

CAPACITY = 32
"""Connections to the upstream."""
ANSWER_SECONDS = 0.02
PAUSE_SECONDS = 0.1
"""A client that is turned away comes again after this."""
REQUEST = b"GET /hello?name=world HTTP/1.1\r\nhost: overload\r\nauthorization: Basic YWRhOmxvdmVsYWNl\r\n\r\n"
BODY = b"hello, world\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
SECTIONS: dict[str, object] = {"overload": {"streams": 3 * CAPACITY}}


class SlowUpstream(asyncio.Protocol):
    """Answers each request after ANSWER_SECONDS."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n"):
            asyncio.get_running_loop().call_later(ANSWER_SECONDS, self.transport.write, ANSWER)


@dataclass
class Tally:
    """Answers by status (0: the connection broke), and the latencies of the good ones in seconds."""

    codes: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def p99_ms(self) -> float:
        """Milliseconds; 0.0 without a good answer."""
        return sorted(self.seconds)[len(self.seconds) * 99 // 100] * 1000 if self.seconds else 0.0


async def client(port: int, tally: Tally) -> None:
    """Asks again and again, as a client that comes back with a new connection when it is turned away."""
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            tally.codes[0] += 1
            await asyncio.sleep(PAUSE_SECONDS)
            continue
        try:
            while True:
                started = time.monotonic()
                writer.write(REQUEST)
                head = await reader.readuntil(b"\r\n\r\n")
                status = int(head[9:12])
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                # Without a length it is a text that body-rewrite has seen: chunked, and ours ("upstream connect error ...").
                await (reader.readexactly(int(length[0][15:])) if length else reader.readuntil(b"0\r\n\r\n"))
                tally.codes[status] += 1
                if status == 200:
                    tally.seconds.append(time.monotonic() - started)
                if b"connection: close" in head.lower():
                    break
        except (OSError, asyncio.IncompleteReadError):
            tally.codes[0] += 1
        finally:
            writer.close()
        await asyncio.sleep(PAUSE_SECONDS)


async def phase(port: int, clients: int, seconds: float) -> tuple[Tally, list[float]]:
    """That many clients for so long; the tally, and the good answers per second in each half second."""
    tally = Tally()
    running = [asyncio.create_task(client(port, tally)) for _ in range(clients)]
    rates = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before, started = tally.codes[200], time.monotonic()
        await asyncio.sleep(0.5)
        rates.append((tally.codes[200] - before) / (time.monotonic() - started))
    for task in running:
        task.cancel()
    for ended in await asyncio.gather(*running, return_exceptions=True):
        if not isinstance(ended, asyncio.CancelledError):
            raise click.ClickException(f"a client failed: {ended!r}")
    return tally, rates


async def measure(seconds: float, times: int) -> None:
    """Peak, overload, and what comes after it."""
    server = await asyncio.get_running_loop().create_server(SlowUpstream, "127.0.0.1", 0)
    cluster = {
        "name": "service", "endpoints": [f"127.0.0.1:{server.sockets[0].getsockname()[1]}"], "max_connections": CAPACITY,
        "max_pending": CAPACITY,
    }  # fmt: skip
    gateway = await asyncio.to_thread(lambda: Gateway(0, "auto", clusters=[cluster], **SECTIONS))
    try:
        await phase(gateway.port, CAPACITY, 1)
        peak, _ = await phase(gateway.port, CAPACITY, min(seconds, 10))
        normal = peak.codes[200] / min(seconds, 10)
        tell("peak", peak, normal, normal)
        over, rates = await phase(gateway.port, times * CAPACITY, seconds)
        goodput = over.codes[200] / seconds
        tell(f"{times} x {CAPACITY} clients", over, goodput, normal)
        click.echo(f"  least half second: {min(rates) / normal:.0%} of the peak")
        after, rates = await phase(gateway.port, CAPACITY, 5)
        tell("after it", after, after.codes[200] / 5, normal)
        back = next((0.5 * (i + 1) for i, rate in enumerate(rates) if rate >= 0.8 * normal), None)
        click.echo(f"  back at 80 % of the peak within {back} s" if back else "  not back at 80 % of the peak within 5 s")
        values = await asyncio.to_thread(gateway.metrics)
        shed = {name: int(value) for name, value in values.items() if "rejected" in name or "failures_total{cluster" in name}
        click.echo(f"  counted: {shed}")
    finally:
        await asyncio.to_thread(gateway.close)
        server.close()


def tell(name: str, tally: Tally, rate: float, normal: float) -> None:
    others = {code: count for code, count in sorted(tally.codes.items()) if code != 200}
    click.echo(
        f"{name}: {rate:.0f} good answers/s, {rate / normal:.0%} of the peak; p99 {tally.p99_ms():.0f} ms; others {others}"
    )


@click.command(help=__doc__)
@click.option("--seconds", type=click.FloatRange(1), default=60.0, show_default=True, help="Of overload.")
@click.option("--times", type=click.IntRange(2), default=4, show_default=True, help="Clients, as a multiple of the capacity.")
def main(seconds: float, times: int) -> None:
    machine = describe()
    click.echo(f"{machine}")
    asyncio.run(measure(seconds, times))


if __name__ == "__main__":
    main()
