"""Which addresses are special, and which are the gateway's own."""

import ipaddress

import pytest

from proxy.capabilities.addresses import OwnAddresses, classify


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("93.184.216.34", None),
        ("1.1.1.1", None),
        ("9.255.255.255", None),
        ("11.0.0.0", None),
        ("100.63.255.255", None),
        ("100.128.0.0", None),
        ("172.15.255.255", None),
        ("172.32.0.0", None),
        ("223.255.255.255", None),
        ("2606:4700:4700::1111", None),
        ("2a00:1450:4001::200e", None),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("::1", "loopback"),
        ("10.0.0.0", "private"),
        ("10.255.255.255", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("fc00::1", "private"),
        ("fdff::1", "private"),
        ("fec0::1", "private"),
        ("100.64.0.1", "CGNAT"),
        ("100.127.255.255", "CGNAT"),
        ("169.254.0.1", "link-local"),
        ("fe80::1", "link-local"),
        ("febf::1", "link-local"),
        ("169.254.169.254", "metadata"),
        ("169.254.170.2", "metadata"),
        ("168.63.129.16", "metadata"),
        ("100.100.100.200", "metadata"),
        ("192.0.0.192", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("fd20:ce::254", "metadata"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("240.0.0.1", "reserved"),
        ("192.0.0.8", "reserved"),
        ("192.0.2.1", "reserved"),
        ("198.18.0.1", "reserved"),
        ("198.51.100.1", "reserved"),
        ("203.0.113.1", "reserved"),
        ("2001:db8::1", "reserved"),
        ("3fff::1", "reserved"),
        ("100::1", "reserved"),
        ("5f00::1", "reserved"),
        ("4000::1", "reserved"),
        ("2001:20::1", "reserved"),
        ("::ffff:127.0.0.1", "IPv4-mapped"),
        ("::ffff:93.184.216.34", "IPv4-mapped"),
        ("::127.0.0.1", "IPv4-mapped"),
        ("64:ff9b::7f00:1", "NAT64"),
        ("64:ff9b:1::a00:1", "NAT64"),
        ("2002:7f00:1::", "6to4"),
        ("192.88.99.1", "6to4"),
        ("2001:0:4136:e378::1", "Teredo"),
        ("2606:4700::5efe:10.0.0.1", "ISATAP"),
        ("2606:4700::200:5efe:10.0.0.1", "ISATAP"),
    ],
)
def test_classify(address: str, what: str | None) -> None:
    special = classify(ipaddress.ip_address(address))
    if what is None:
        assert special is None
    else:
        assert special is not None
        assert what in special.what


@pytest.mark.parametrize(
    ("address", "port", "own"),
    [
        ("127.0.0.1", 8080, True),
        ("::ffff:127.0.0.1", 8080, True),
        ("127.0.0.1", 8081, False),
        ("127.0.0.2", 8080, False),
        ("::1", 8080, False),
        ("127.0.0.1", 9000, True),
        ("127.0.0.2", 9000, True),
        ("::ffff:127.0.0.1", 9000, True),
        ("93.184.216.34", 9000, False),
    ],
)
def test_own_addresses(address: str, port: int, own: bool) -> None:
    """8080 is listened on at one address, 9000 at all of the machine's."""
    listeners = OwnAddresses([("127.0.0.1", 8080), ("0.0.0.0", 9000)])
    assert listeners.hold(ipaddress.ip_address(address), port) is own
