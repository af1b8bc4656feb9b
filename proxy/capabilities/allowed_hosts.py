"""Where a filter may call: `capabilities.allowed_hosts`, compiled at load. Nothing is allowed without an entry.

An entry is
- `cluster:NAME`: the cluster, wherever its endpoints are;
- `[scheme://]host[:port]`, the host with an optional leading `*.` (subdomains at any depth, not the apex). Without a scheme
  both http and https are allowed, without a port the scheme's own. An IP address must be listed as itself, and is then allowed
  whatever it is;
- a network such as `10.0.0.0/8`: names that are allowed may lead to its addresses although they are not public ones. It
  allows no host by itself, and admits a cloud's metadata service only if it is that one address (`169.254.169.254/32`).

Two questions, asked in this order: `target` (may it call this host?), then, with what the name resolved to, `check` (may it
call all of these addresses?). The connection must go to an address that was checked.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from proxy.capabilities.addresses import IpAddress, IpNetwork, OwnAddresses, Special, classify, embedded
from proxy.capabilities.hosts import DEFAULT_PORTS, HostError, join, literal, split

LONGEST_SHOWN = 80

Rule = tuple[str | None, int | None]
"""Scheme and port, None where the entry has none."""


class EntryError(ValueError):
    """An entry that says nothing."""


class DeniedError(Exception):
    """The filter may not call there. `entry` is what to add to allowed_hosts, "" if nothing would allow it."""

    def __init__(self, reason: str, entry: str = "") -> None:
        super().__init__(reason, entry)
        self.reason = reason
        self.entry = entry

    @property
    def line(self) -> str:
        """The line to add to the filter's config."""
        return f'capabilities: {{allowed_hosts: ["{self.entry}"]}}' if self.entry else ""

    def __str__(self) -> str:
        return f"{self.reason}; to allow it: {self.line}" if self.entry else self.reason


@dataclass(frozen=True, slots=True)
class Target:
    """A host that is allowed: what to resolve, to dial and to name. `host` is normalised, an IPv6 address without brackets."""

    scheme: str
    host: str
    port: int

    @property
    def address(self) -> IpAddress | None:
        """The host, if it is an address."""
        return literal(self.host)

    @property
    def authority(self) -> str:
        """For the Host header: without the port where it is the scheme's own."""
        return join(self.host, None if self.port == DEFAULT_PORTS[self.scheme] else self.port)

    @property
    def endpoint(self) -> str:
        """`host:port`."""
        return join(self.host, self.port)

    @property
    def entry(self) -> str:
        """What allows just this."""
        return f"{self.scheme}://{self.authority}"


class AllowedHosts:
    """The entries of one filter."""

    def __init__(self, entries: Iterable[str] = ()) -> None:
        """Raises EntryError."""
        clusters: set[str] = set()
        self.networks: list[IpNetwork] = []
        self.hosts: dict[str, list[Rule]] = {}
        self.suffixes: dict[str, list[Rule]] = {}
        for entry in entries:
            if entry.startswith("cluster:"):
                clusters.add(entry.removeprefix("cluster:"))
            elif "/" in entry and "://" not in entry:
                self.networks.append(read_network(entry))
            else:
                self.add_host(entry)
        self.clusters = frozenset(clusters)

    def add_host(self, entry: str) -> None:
        scheme, separator, rest = entry.rpartition("://")
        wildcard = rest.startswith("*.")
        try:
            found, host, port = split(scheme + separator + rest.removeprefix("*."))
        except HostError as error:
            raise EntryError(f"{show(entry)} is not an allowed host: {error}") from None
        if wildcard and literal(host) is not None:
            raise EntryError(f"{show(entry)} is not an allowed host: an address has no subdomains")
        (self.suffixes if wildcard else self.hosts).setdefault(host, []).append((found, port))

    def check_cluster(self, name: str) -> None:
        """Raises DeniedError."""
        if name not in self.clusters:
            raise DeniedError(f"the cluster {show(name)} is not allowed", f"cluster:{name}")

    def target(self, upstream: str, scheme: str | None = None) -> Target:
        """The host that `upstream`, `[scheme://]host[:port]`, names. Raises DeniedError.

        Where it has no scheme, `scheme` (the request's `:scheme`) holds if it is http or https. Else port 443 means https,
        80 http, none the one that is allowed (https before http), any other the one that is allowed (http before https).
        """
        try:
            found, host, port = split(upstream)
        except HostError as error:
            raise DeniedError(f"{show(upstream)} is not a cluster and cannot be called: {error}") from None
        given = found or (scheme if scheme in DEFAULT_PORTS else None)
        if given is not None:
            schemes: Sequence[str] = (given,)
        elif port in (80, 443):
            schemes = ("https" if port == 443 else "http",)
        else:
            schemes = ("https", "http") if port is None else ("http", "https")
        for candidate in schemes:
            target = Target(candidate, host, DEFAULT_PORTS[candidate] if port is None else port)
            if self.allows(target):
                return target
        denied = Target(schemes[0], host, DEFAULT_PORTS[schemes[0]] if port is None else port)
        # Do not offer to paste what leads inside: an operator has to mean that.
        inside = denied.address is not None and classify(denied.address) is not None
        raise DeniedError(f"the host {show(denied.entry)} is not allowed", "" if inside else denied.entry)

    def allows(self, target: Target) -> bool:
        """Whether an entry has this scheme, host and port."""
        if fits(self.hosts.get(target.host, ()), target):
            return True
        rest = target.host if self.suffixes else ""
        while rest := rest.partition(".")[2]:
            if fits(self.suffixes.get(rest, ()), target):
                return True
        return False

    def check_authority(self, target: Target, authority: str) -> None:
        """A request's `:authority` must name the host that is called; without a port it may be. Raises DeniedError."""
        try:
            scheme, host, port = split(authority)
        except HostError as error:
            raise DeniedError(f":authority {show(authority)} names no host: {error}") from None
        if scheme is not None or host != target.host or port not in (None, target.port):
            raise DeniedError(f":authority {show(authority)} is not the host that is called, {target.endpoint}")

    def check(self, target: Target, addresses: Sequence[str], own: OwnAddresses) -> None:
        """Every address that the target's name has. Raises DeniedError for the first that must not be called."""
        if not addresses:
            raise DeniedError(f"{target.host} has no address")
        for text in addresses:
            address = literal(text)
            if address is None:
                raise DeniedError(f"{target.host} leads to {show(text)}, which is not an address")
            if own.hold(address, target.port):
                raise DeniedError(f"{target.host} leads to {join(text, target.port)}, where this gateway itself listens")
            special = classify(address)
            if special is not None and not self.admits(target, address, special):
                entry = "" if special.never else f"{address}/{address.max_prefixlen}"
                raise DeniedError(f"{target.host} leads to {address}, {special.what}", entry)

    def admits(self, target: Target, address: IpAddress, special: Special) -> bool:
        """Whether an entry asks for this special address."""
        if special.never:
            return False
        if target.address == address:
            return True  # listed as itself: else there were no target
        networks = [n for n in self.networks if address.version == n.version and address in n]
        if any(network.num_addresses == 1 for network in networks):
            return True
        if special.alone or not networks:
            return False
        # A network of translated addresses is not one of all that may stand inside them.
        inner = embedded(address)
        inside = None if inner is None else classify(inner)
        return inner is None or inside is None or self.admits(target, inner, inside)


def fits(rules: Iterable[Rule], target: Target) -> bool:
    return any(
        scheme in (None, target.scheme) and target.port == (DEFAULT_PORTS[target.scheme] if port is None else port)
        for scheme, port in rules
    )


def read_network(entry: str) -> IpNetwork:
    try:
        return ipaddress.ip_network(entry)
    except ValueError as error:
        raise EntryError(f"{show(entry)} is not a network: {error}") from None


def show(text: str) -> str:
    """What a filter wrote, for a log: on one line, short."""
    return ascii(text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "...")
