import socket

import pytest

from proxy.server.sockets import ListenError, bound_address, check_free, join_address, open_sockets, split_address
from tests import requires


@pytest.mark.parametrize(
    ("address", "parts"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:8080", ("::1", 8080)), ("localhost:0", ("localhost", 0))],
)
def test_address_round_trip(address, parts):
    assert split_address(address) == parts
    assert join_address(*parts) == address


@pytest.mark.parametrize("count", [1, 3])
def test_all_on_one_port(count):
    opened = open_sockets("127.0.0.1:0", count)
    try:
        assert len({bound_address(sock) for sock in opened}) == 1
        assert len(opened) == count
        with pytest.raises(ListenError, match="address in use"):
            open_sockets(bound_address(opened[0]), 1)
        with pytest.raises(ListenError, match="address in use"):
            open_sockets(bound_address(opened[0]), 2)
    finally:
        for sock in opened:
            sock.close()


def test_ipv6():
    requires.ipv6()
    [sock] = open_sockets("[::1]:0", 1)
    assert bound_address(sock).startswith("[::1]:")
    sock.close()


@pytest.mark.parametrize(
    ("address", "reason"),
    [("192.0.2.1:8080", "no interface"), ("nothing.invalid:80", "nothing.invalid:80: the host is not known; write")],
)
def test_cannot_listen(address, reason):
    with pytest.raises(ListenError, match=reason):
        open_sockets(address, 2)


def test_check_free_leaves_the_address_free():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = join_address(*taken.getsockname())
        with pytest.raises(ListenError):
            check_free(address)
    check_free(address)
    check_free(address)
