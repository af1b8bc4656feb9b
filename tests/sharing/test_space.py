"""What a VM may reach: its own vm_id, and of others only queues it resolved, to put into."""

from collections.abc import Callable, Iterator

import pytest

from proxy.sharing.limits import MOST_QUEUES, Limits
from proxy.sharing.status import SharingError, Status
from proxy.sharing.store import SharedStore, Sharing

Make = Callable[..., SharedStore]


def ignore(token: int) -> None:
    """No consumer's business."""


@pytest.fixture
def sharing(make_store: Make) -> Iterator[Sharing]:
    limits = Limits(4096, 4)
    made = make_store(a=limits, b=limits).attach(0)
    yield made
    made.close()


def test_vms_of_one_vm_id_share_and_others_do_not(sharing: Sharing) -> None:
    one, two, other = (sharing.space(vm_id) for vm_id in (b"a", b"a", b"b"))
    assert one.set(b"k", b"v", 0) == Status.OK
    assert two.get(b"k") == (b"v", 1)
    for key in (b"k", b"a/k", b"a\0k", b"dk", b"../0.mdb"):
        assert other.get(key) is None
    with pytest.raises(KeyError):
        sharing.space(b"c")


def test_a_queue_has_one_token(sharing: Sharing) -> None:
    one, two, other = (sharing.space(vm_id) for vm_id in (b"a", b"a", b"b"))
    token = one.register(b"q", ignore)
    assert token == 1
    assert two.register(b"q", ignore) == token
    assert one.register(b"r", ignore) == token + 1
    assert [space.resolve(b"a", b"q") for space in (one, two, other)] == [token] * 3
    assert one.resolve(b"", b"q") == token
    assert other.resolve(b"", b"q") is None
    assert other.register(b"q", ignore) == token + MOST_QUEUES
    assert one.resolve(b"b", b"q") == token + MOST_QUEUES
    for vm_id, name in ((b"a", b"none"), (b"no such vm", b"q"), (b"a\0", b"q"), (b"", b"")):
        assert one.resolve(vm_id, name) is None


def test_a_token_is_good_in_every_vm_of_its_vm_id(sharing: Sharing) -> None:
    token = sharing.space(b"a").register(b"q", ignore)
    assert sharing.space(b"a").enqueue(token, b"1") == Status.OK
    assert sharing.space(b"a").dequeue(token) == b"1"
    assert sharing.space(b"a").dequeue(token) == Status.EMPTY


def test_a_guessed_token_of_another_vm_id_is_good_for_nothing(sharing: Sharing) -> None:
    own, other = sharing.space(b"a"), sharing.space(b"b")
    token = own.register(b"q", ignore)
    own.enqueue(token, b"secret")
    assert (other.enqueue(token, b"x"), other.dequeue(token)) == (Status.NOT_FOUND, Status.NOT_FOUND)
    assert other.resolve(b"a", b"q") == token
    assert other.enqueue(token, b"x") == Status.OK
    assert other.dequeue(token) == Status.NOT_FOUND
    assert [own.dequeue(token) for _ in range(2)] == [b"secret", b"x"]


@pytest.mark.parametrize("token", [0, 3, MOST_QUEUES, MOST_QUEUES + 1, 3 * MOST_QUEUES, 2**31, 2**32 - 1])
def test_tokens_that_are_no_queue(sharing: Sharing, token: int) -> None:
    space = sharing.space(b"a")
    space.register(b"q", ignore)
    assert (space.enqueue(token, b""), space.dequeue(token)) == (Status.NOT_FOUND, Status.NOT_FOUND)


def test_a_queue_is_bounded_by_its_own_vm_ids_limits(sharing: Sharing) -> None:
    own, other = sharing.space(b"a"), sharing.space(b"b")
    token = own.register(b"q", ignore)
    other.resolve(b"a", b"q")
    for _ in range(4):
        assert other.enqueue(token, b"x") == Status.OK
    with pytest.raises(SharingError, match="queued_items"):
        other.enqueue(token, b"x")
    assert other.enqueue(other.register(b"mine", ignore), b"x") == Status.OK


def test_a_closed_vm_leaves_its_data(sharing: Sharing) -> None:
    space = sharing.space(b"a")
    token = space.register(b"q", ignore)
    space.set(b"k", b"v", 0)
    space.enqueue(token, b"1")
    space.close()
    assert sharing.board.consumer(token - 1) is None
    successor = sharing.space(b"a")
    assert successor.get(b"k") == (b"v", 1)
    assert successor.register(b"q", ignore) == token
    assert successor.dequeue(token) == b"1"
