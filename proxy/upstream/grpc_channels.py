"""grpcio's channels to the endpoints of clusters and to the hosts that filters call.

grpcio resolves and dials by itself, in its own threads. So that it goes only where a filter may, it is never given a name: a
channel's target is a list of addresses that were resolved and checked here (`ipv4:` and `ipv6:` targets are dialled as they
stand), and everything else that could lead it elsewhere is off: proxies, service configs, retries, shared connections.
"""

import asyncio
import ipaddress
import ssl
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.upstream.cluster import Cluster

if TYPE_CHECKING:
    import grpc.aio

MAX_CHANNELS = 32
"""Channels of one filter that are kept."""
MAX_MESSAGE = 1 << 20
MAX_METADATA = 64 << 10

Key = tuple[str, int, str]
"""Endpoint host, port, and the `:authority` of calls."""


class TlsUnavailableError(Exception):
    """TLS as the cluster wants it is not possible here."""


class Kept:
    """A channel, the addresses it may dial, and how many calls use it."""

    def __init__(self, channel: "grpc.aio.Channel", target: str) -> None:
        self.channel = channel
        self.target = target
        self.calls = 0
        self.closing = False


class GrpcChannels:
    """One filter's channels. Filters share no connections: each has its own rights."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        import grpc.aio  # never before a worker is forked, and never for filters that make no gRPC calls

        self.grpc = grpc
        self.loop = loop
        self.kept: OrderedDict[Key, Kept] = OrderedDict()
        self.closers: set[asyncio.Task[None]] = set()

    async def take(self, cluster: Cluster, authority: str) -> Kept:
        """A channel to the cluster's next endpoint; give it back. Raises OSError, TlsUnavailableError.

        A channel that is connected goes on being used; else the name is resolved (and checked) anew.
        """
        pool = cluster.next_pool()
        assert pool is not None
        key = pool.host, pool.port, authority
        kept = self.kept.get(key)
        states = self.grpc.ChannelConnectivity
        if kept is None or kept.channel.get_state() is not states.READY:
            target = target_of(await cluster.resolver.addresses(pool.host), pool.port)
            kept = self.kept.get(key)  # another call may have been here meanwhile
            if kept is not None and (
                kept.target != target or kept.channel.get_state() in (states.TRANSIENT_FAILURE, states.SHUTDOWN)
            ):
                # grpcio would wait before it tries again: a call that is made now is to be tried now.
                self.drop(key)
                kept = None
            if kept is None:
                kept = self.kept[key] = Kept(self.dial(cluster, target, authority, pool.host), target)
                if len(self.kept) > MAX_CHANNELS:
                    self.drop(next(iter(self.kept)))
        self.kept.move_to_end(key)
        kept.calls += 1
        return kept

    def give_back(self, kept: Kept) -> None:
        """A call is over."""
        kept.calls -= 1
        if kept.closing and not kept.calls:
            self.close_soon(kept.channel)

    def dial(self, cluster: Cluster, target: str, authority: str, host: str) -> "grpc.aio.Channel":
        options: list[tuple[str, Any]] = [
            ("grpc.default_authority", authority),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.lb_policy_name", "pick_first"),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_send_message_length", MAX_MESSAGE),
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.max_metadata_size", MAX_METADATA),
            ("grpc.absolute_max_metadata_size", MAX_METADATA),
            ("grpc.compression_enabled_algorithms_bitset", 1),  # none: what is small on the wire is small here
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", max(1, round(cluster.connect_timeout * 1000))),  # its connect timeout
            ("grpc.client_idle_timeout_ms", max(1000, round(cluster.idle_timeout * 1000))),
        ]
        if cluster.tls is None:
            return self.grpc.aio.insecure_channel(target, options=options)
        credentials = self.grpc.ssl_channel_credentials(root_certificates=authorities(cluster.tls))
        options.append(("grpc.ssl_target_name_override", cluster.server_name or host))
        return self.grpc.aio.secure_channel(target, credentials, options=options)

    def drop(self, key: Key) -> None:
        """Close a channel once its calls are over."""
        kept = self.kept.pop(key)
        kept.closing = True
        if not kept.calls:
            self.close_soon(kept.channel)

    def close_soon(self, channel: "grpc.aio.Channel") -> None:
        task = self.loop.create_task(channel.close())
        self.closers.add(task)
        task.add_done_callback(self.closers.discard)

    async def close(self) -> None:
        """Close all; calls that still run end."""
        for key in list(self.kept):
            self.kept[key].calls = 0
            self.drop(key)
        while self.closers:
            await asyncio.wait(self.closers)


def target_of(addresses: list[str], port: int) -> str:
    """grpcio's name for literal addresses: those of the first one's family, for it takes one family at a time."""
    family = ipaddress.ip_address(addresses[0]).version
    same = [address for address in addresses if ipaddress.ip_address(address).version == family]
    return f"ipv{family}:" + ",".join(f"[{one}]:{port}" if family == 6 else f"{one}:{port}" for one in same)


def authorities(context: ssl.SSLContext) -> bytes:
    """The certificates that a client context trusts, as PEM. Raises TlsUnavailableError."""
    if context.verify_mode == ssl.CERT_NONE:
        raise TlsUnavailableError("tls.verify is false, and grpcio always verifies")
    loaded = context.get_ca_certs(binary_form=True)
    if loaded:
        return "".join(map(ssl.DER_cert_to_PEM_cert, loaded)).encode()
    # A directory of certificates is read by OpenSSL as they are needed: then none is loaded yet.
    directory = ssl.get_default_verify_paths().capath
    found = b"\n".join(path.read_bytes() for path in sorted(Path(directory).glob("*.0"))) if directory else b""
    if not found:
        raise TlsUnavailableError("the system has no certificate authorities")
    return found
