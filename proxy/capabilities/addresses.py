"""IP addresses that a filter must not reach by a name that it was allowed, and the gateway's own.

The table holds IANA's special-purpose registries (RFC 6890 and its updates), the forms of IPv6 that carry an IPv4 address
(RFC 6052, 8215, 3056, 4380, 5214, 4291 section 2.5.5), multicast, and the metadata services of the clouds.
"""

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Special:
    """Why an address is not an ordinary public one. `never`: no entry admits it; `alone`: only an entry for just this
    address does, not a wider network."""

    what: str
    never: bool = False
    alone: bool = False


METADATA = Special("a cloud's metadata service", alone=True)
UNSPECIFIED = Special("an unspecified address", never=True)
MULTICAST = Special("a multicast address", never=True)
BROADCAST = Special("the broadcast address", never=True)
LOOPBACK = Special("a loopback address")
PRIVATE = Special("a private address")
SHARED = Special("a shared (CGNAT) address")
LINK_LOCAL = Special("a link-local address")
RESERVED = Special("a reserved address")
MAPPED = Special("an IPv4-mapped address")
NAT64 = Special("a NAT64 address")
SIX_TO_FOUR = Special("a 6to4 address")
TEREDO = Special("a Teredo address")
ISATAP = Special("an ISATAP address")
ZONED = Special("an address with a zone", never=True)

# The first that fits is taken.
TABLE: Sequence[tuple[str, Special]] = (
    ("169.254.169.254/32", METADATA),  # AWS, Azure, Google and most others
    ("169.254.170.2/32", METADATA),  # AWS ECS
    ("168.63.129.16/32", METADATA),  # Azure
    ("100.100.100.200/32", METADATA),  # Alibaba
    ("192.0.0.192/32", METADATA),  # Oracle
    ("0.0.0.0/8", UNSPECIFIED),
    ("10.0.0.0/8", PRIVATE),
    ("100.64.0.0/10", SHARED),
    ("127.0.0.0/8", LOOPBACK),
    ("169.254.0.0/16", LINK_LOCAL),
    ("172.16.0.0/12", PRIVATE),
    ("192.0.0.0/24", RESERVED),
    ("192.0.2.0/24", RESERVED),
    ("192.88.99.0/24", SIX_TO_FOUR),
    ("192.168.0.0/16", PRIVATE),
    ("198.18.0.0/15", RESERVED),
    ("198.51.100.0/24", RESERVED),
    ("203.0.113.0/24", RESERVED),
    ("224.0.0.0/4", MULTICAST),
    ("255.255.255.255/32", BROADCAST),
    ("240.0.0.0/4", RESERVED),
    ("fd00:ec2::254/128", METADATA),  # AWS
    ("fd00:ec2::23/128", METADATA),  # AWS EKS
    ("fd20:ce::254/128", METADATA),  # Google
    ("::/128", UNSPECIFIED),
    ("::1/128", LOOPBACK),
    ("::ffff:0:0/96", MAPPED),
    ("::/96", MAPPED),
    ("64:ff9b::/96", NAT64),
    ("64:ff9b:1::/48", NAT64),
    ("2001::/32", TEREDO),
    ("2001::/23", RESERVED),
    ("2001:db8::/32", RESERVED),
    ("2002::/16", SIX_TO_FOUR),
    ("3fff::/20", RESERVED),
    ("fc00::/7", PRIVATE),
    ("fe80::/10", LINK_LOCAL),
    ("fec0::/10", PRIVATE),
    ("ff00::/8", MULTICAST),
)
NETWORKS: Sequence[tuple[IpNetwork, Special]] = [(ipaddress.ip_network(text), special) for text, special in TABLE]
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that IANA has given out of IPv6 for public use (RFC 4291 section 2.4)."""
ISATAP_MARKS = (0x00005EFE, 0x02005EFE)
"""The upper half of an interface identifier that ends in an IPv4 address (RFC 5214 section 6.1)."""


def classify(address: IpAddress) -> Special | None:
    """Why the address is special; None for an ordinary public one."""
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        return ZONED
    for network, special in NETWORKS:
        if address.version == network.version and address in network:
            return special
    if isinstance(address, ipaddress.IPv6Address):
        if address not in GLOBAL_UNICAST:
            return RESERVED
        if int(address) >> 32 & 0xFFFFFFFF in ISATAP_MARKS:
            return ISATAP
        return None
    # Whatever the registries have gained since: Python knows them too.
    return None if address.is_global else RESERVED


def embedded(address: IpAddress) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one leads to, by translation or by a tunnel."""
    if not isinstance(address, ipaddress.IPv6Address):
        return None
    special = classify(address)
    if special is SIX_TO_FOUR:
        return address.sixtofour
    if special is TEREDO:
        return address.teredo[1] if address.teredo is not None else None
    # The local NAT64 prefix may be cut into other lengths than 96 (RFC 8215); this is the usual one.
    if special in (MAPPED, NAT64, ISATAP):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


class OwnAddresses:
    """Where this gateway listens: a filter that called it would call itself."""

    def __init__(self, addresses: Iterable[tuple[str, int]] = ()) -> None:
        """(IP address, port) of each listener and of the admin server, as `getsockname` gives them."""
        self.exact: set[tuple[IpAddress, int]] = set()
        self.ports: set[int] = set()
        """Where every address of this machine is listened on."""
        for text, port in addresses:
            address = unmapped(ipaddress.ip_address(text))
            if address.is_unspecified:
                self.ports.add(port)
            else:
                self.exact.add((address, port))

    def hold(self, address: IpAddress, port: int) -> bool:
        """Whether the gateway itself would answer there."""
        address = unmapped(address)
        return (address, port) in self.exact or (port in self.ports and is_local(address))


def unmapped(address: IpAddress) -> IpAddress:
    """The IPv4 address of an IPv4-mapped one."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_local(address: IpAddress) -> bool:
    """Whether the address is one of this machine's: then, and only then, a socket can be bound to it."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
