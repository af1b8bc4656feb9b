"""Data and queues of one vm_id in one process, against plain dicts and lists."""

import errno
import hashlib
import os
import random
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.sharing.limits import ENTRY_OVERHEAD, LARGEST_VALUE, LONGEST_NAME, MOST_QUEUES, Limits
from proxy.sharing.namespace import Namespace, Usage
from proxy.sharing.status import SharingError, Status
from proxy.sharing.store import SharedStore, Sharing

Make = Callable[..., SharedStore]
LIMITS = Limits(4096, 8)


@pytest.fixture
def namespace(make_store: Make) -> Iterator[Namespace]:
    sharing = make_store(vm=LIMITS).attach(0)
    yield sharing.namespaces[b"vm"]
    sharing.close()


Step = tuple[bytes, bytes, int, Status]


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        pytest.param([(b"k", b"v", 0, Status.OK)], {b"k": (b"v", 1)}, id="set"),
        pytest.param([], {b"k": None, b"": None}, id="absent"),
        pytest.param([(b"k", b"v", 99, Status.OK)], {b"k": (b"v", 1)}, id="19: a cas on an absent key creates it"),
        pytest.param([(b"k", b"v", 0, Status.OK), (b"k", b"w", 0, Status.OK)], {b"k": (b"w", 2)}, id="0 overwrites"),
        pytest.param([(b"k", b"v", 0, Status.OK), (b"k", b"w", 1, Status.OK)], {b"k": (b"w", 2)}, id="right cas"),
        pytest.param([(b"k", b"v", 0, Status.OK), (b"k", b"w", 2, Status.CAS_MISMATCH)], {b"k": (b"v", 1)}, id="wrong cas"),
        pytest.param(
            [(b"k", b"v", 0, Status.OK), (b"k", b"", 1, Status.OK)], {b"k": (b"", 2)}, id="20: emptied, the key stays"
        ),
        pytest.param([(b"", b"", 0, Status.OK)], {b"": (b"", 1)}, id="empty key and value"),
        pytest.param(
            [(b"a", b"1", 0, Status.OK), (b"b", b"2", 0, Status.OK), (b"a", b"3", 1, Status.OK)],
            {b"a": (b"3", 3), b"b": (b"2", 2)},
            id="one counter for all keys",
        ),
        pytest.param(
            [(b"k" * n, b"%d" % n, 0, Status.OK) for n in (510, 511, 512)],
            {b"k" * n: (b"%d" % n, i + 1) for i, n in enumerate((510, 511, 512))} | {b"k" * 513: None},
            id="keys around what LMDB allows",
        ),
        pytest.param(
            [(b"m", b"x", 0, Status.OK), (b"q\0\0\0\0", b"y", 0, Status.OK), (b"\xff\0", b"\0\xff", 0, Status.OK)],
            {b"m": (b"x", 1), b"q\0\0\0\0": (b"y", 2), b"\xff\0": (b"\0\xff", 3), b"dm": None},
            id="keys that look like the file's own",
        ),
    ],
)
def test_data(namespace: Namespace, steps: list[Step], found: dict[bytes, tuple[bytes, int] | None]) -> None:
    assert [namespace.set(key, value, cas) for key, value, cas, _ in steps] == [step[3] for step in steps]
    assert {key: namespace.get(key) for key in found} == found


def test_a_key_that_is_a_digest_of_another_is_another(namespace: Namespace) -> None:
    namespace.set(b"k" * 600, b"long", 0)
    assert namespace.get(hashlib.sha256(b"k" * 600).digest()) is None


def test_cas_leaves_out_zero(namespace: Namespace) -> None:
    namespace.board.cas = 2**32 - 2
    for expected in (2**32 - 1, 1, 2):
        namespace.set(b"k", b"", 0)
        found = namespace.get(b"k")
        assert found is not None
        assert found[1] == expected


def test_cas_never_falls_in_a_namespace_though_others_set_the_counter_back(namespace: Namespace) -> None:
    namespace.set(b"k", b"", 0)
    namespace.set(b"k", b"", 0)
    namespace.board.cas = 0
    namespace.set(b"k", b"", 0)
    assert namespace.get(b"k") == (b"", 3)


def test_cas_counts_for_all_vm_ids(make_store: Make) -> None:
    sharing = make_store(a=LIMITS, b=LIMITS).attach(0)
    a, b = sharing.namespaces.values()
    a.set(b"k", b"", 0)
    b.set(b"k", b"", 0)
    a.set(b"l", b"", 0)
    assert [a.get(b"k"), b.get(b"k"), a.get(b"l")] == [(b"", 1), (b"", 2), (b"", 3)]
    sharing.close()


def test_data_over_the_limit_is_refused_and_changes_nothing(namespace: Namespace) -> None:
    room = LIMITS.data_bytes - ENTRY_OVERHEAD - 1
    with pytest.raises(SharingError, match=r"limits\.shared_data \(4096\)"):
        namespace.set(b"k", bytes(room + 1), 0)
    assert namespace.get(b"k") is None
    assert namespace.set(b"k", bytes(room), 0) == Status.OK
    with pytest.raises(SharingError):
        namespace.set(b"", b"", 0)
    with pytest.raises(SharingError):
        namespace.set(b"k", bytes(room + 1), 0)
    assert namespace.set(b"k", bytes(room + 1), 77) == Status.CAS_MISMATCH
    assert namespace.get(b"k") == (bytes(room), 1)
    assert namespace.set(b"k", b"", 1) == Status.OK
    assert namespace.set(b"l", bytes(room - ENTRY_OVERHEAD - 1), 0) == Status.OK
    assert namespace.usage().data_bytes == LIMITS.data_bytes


def test_no_number_of_empty_keys_gets_past_the_limit(namespace: Namespace) -> None:
    count = 0
    with pytest.raises(SharingError):
        for count in range(100):
            namespace.set(b"%04d" % count, b"", 0)
    assert count == LIMITS.data_bytes // (ENTRY_OVERHEAD + 4)


def test_sizes_that_would_hold_up_the_loop_are_refused(make_store: Make) -> None:
    sharing = make_store().attach(0)
    namespace = sharing.namespaces[b"vm"]
    number = namespace.open_queue(b"q")
    assert namespace.set(b"k", bytes(LARGEST_VALUE), 0) == Status.OK
    assert namespace.enqueue(number, bytes(LARGEST_VALUE)) == Status.OK
    long = bytes(LONGEST_NAME)
    assert namespace.set(long, b"", 0) == Status.OK
    assert namespace.get(long) == (b"", 2)
    for call in (
        lambda: namespace.set(b"k", bytes(LARGEST_VALUE + 1), 0),
        lambda: namespace.set(long + b"x", b"", 0),
        lambda: namespace.enqueue(number, bytes(LARGEST_VALUE + 1)),
        lambda: namespace.open_queue(long + b"x"),
    ):
        with pytest.raises(SharingError, match="is the most"):
            call()
    assert namespace.get(long + b"x") is None
    assert namespace.find_queue(long + b"x") is None
    sharing.close()


def test_queues(namespace: Namespace) -> None:
    assert namespace.find_queue(b"") is None
    assert (namespace.enqueue(0, b"x"), namespace.dequeue(0)) == (Status.NOT_FOUND, Status.NOT_FOUND)
    a, b = namespace.open_queue(b""), namespace.open_queue(b"n" * 600)
    assert (a, b) == (0, 1)
    assert (namespace.open_queue(b""), namespace.find_queue(b"n" * 600)) == (a, b)
    assert namespace.dequeue(a) == Status.EMPTY
    for item in (b"1", b"", b"\0" * 300):
        assert namespace.enqueue(a, item) == Status.OK
    assert namespace.enqueue(b, b"other") == Status.OK
    assert namespace.open_queue(b"") == a
    assert [namespace.dequeue(a) for _ in range(4)] == [b"1", b"", b"\0" * 300, Status.EMPTY]
    assert (namespace.counts(a), namespace.counts(b), namespace.counts(2)) == ((3, 3), (0, 1), None)
    assert namespace.usage() == Usage(0, ENTRY_OVERHEAD + 5, 1, 2, 0)


def test_queue_limits(namespace: Namespace) -> None:
    a, b = namespace.open_queue(b"a"), namespace.open_queue(b"b")
    for number in (a, b) * 4:
        namespace.enqueue(number, b"x")
    with pytest.raises(SharingError, match=r"hold limits\.queued_items \(8\)"):
        namespace.enqueue(a, b"x")
    assert namespace.set(b"k", bytes(4000), 0) == Status.OK  # the data have a budget of their own
    assert [namespace.dequeue(a) for _ in range(5)] == [b"x"] * 4 + [Status.EMPTY]
    room = LIMITS.data_bytes - 4 * (ENTRY_OVERHEAD + 1) - ENTRY_OVERHEAD
    with pytest.raises(SharingError, match=r"limits\.shared_data \(4096\)"):
        namespace.enqueue(a, bytes(room + 1))
    assert namespace.enqueue(a, bytes(room)) == Status.OK
    assert namespace.dequeue(a) == bytes(room)


def test_there_are_only_so_many_queues(namespace: Namespace) -> None:
    numbers = [namespace.open_queue(b"%d" % index) for index in range(MOST_QUEUES)]
    assert numbers == list(range(MOST_QUEUES))
    with pytest.raises(SharingError, match="most there can be"):
        namespace.open_queue(b"one more")
    assert namespace.open_queue(b"5") == 5


def test_what_lmdb_can_not_do_is_a_sharing_error_and_leaves_all_as_it_was(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace.set(b"k", b"v", 0)

    def fail(transaction: lmdb.Transaction) -> None:
        transaction.put(b"dk", b"\2\0\0\0w")
        raise lmdb.DiskError(os.strerror(errno.ENOSPC))

    with pytest.raises(SharingError, match="No space left"):
        namespace.write(fail)
    assert namespace.get(b"k") == (b"v", 1)
    assert namespace.set(b"k", b"w", 1) == Status.OK


def test_a_full_file_refuses_and_goes_on(make_store: Make) -> None:
    sharing = make_store(vm=Limits(64 << 10, 8)).attach(0)
    namespace = sharing.namespaces[b"vm"]
    size = namespace.limits.file_bytes

    def fill(transaction: lmdb.Transaction) -> None:
        for index in range(1 + size // LARGEST_VALUE):
            transaction.put(b"x%d" % index, bytes(LARGEST_VALUE))

    with pytest.raises(SharingError, match="MAP_FULL"):
        namespace.write(fill)
    assert namespace.set(b"k", b"v", 0) == Status.OK
    sharing.close()


@pytest.mark.parametrize("sizes", [(2041, 4081), (1, 60_000), (100, 2000, 12_000)])
def test_the_file_has_room_for_the_limits_whatever_the_order(make_store: Make, sizes: tuple[int, ...]) -> None:
    limits = Limits(1 << 20, 1024)
    sharing = make_store(vm=limits).attach(0)
    namespace = sharing.namespaces[b"vm"]
    queue = namespace.open_queue(b"q")
    chance = random.Random(1)
    refused = []
    for _ in range(5000):
        key, size = b"%d" % chance.randrange(700), chance.choice((0, *sizes))
        try:
            if chance.random() < 0.7:
                namespace.set(key, bytes(size), 0)
            elif chance.random() < 0.5:
                namespace.enqueue(queue, bytes(size))
            else:
                namespace.dequeue(queue)
        except SharingError as error:
            refused.append(str(error))
    assert refused
    assert all("limits." in reason for reason in refused)
    sharing.close()


KEYS = st.sampled_from([b"", b"a", b"b", b"m", b"\0", b"k" * 510, b"k" * 511, b"k" * 600])
VALUES = st.one_of(st.binary(max_size=20), st.integers(0, 3000).map(bytes))


class AgainstPlainPython(RuleBasedStateMachine):
    """Two namespaces of one store against dicts and deques."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = SharedStore(1, {b"a": LIMITS, b"b": LIMITS}, [Path(self.folder.name)])
        self.sharing: Sharing = self.store.attach(0)
        self.cas = 0
        self.data: dict[bytes, dict[bytes, tuple[bytes, int]]] = {b"a": {}, b"b": {}}
        self.queues: dict[bytes, dict[bytes, deque[bytes]]] = {b"a": {}, b"b": {}}

    def teardown(self) -> None:
        self.sharing.close()
        self.store.close()
        self.folder.cleanup()

    def queue_bytes(self, vm_id: bytes) -> int:
        return sum(ENTRY_OVERHEAD + len(item) for queue in self.queues[vm_id].values() for item in queue)

    @rule(vm_id=st.sampled_from([b"a", b"b"]), key=KEYS, value=VALUES, cas=st.sampled_from([0, 1, -1, "right"]))
    def set(self, vm_id: bytes, key: bytes, value: bytes, cas: int | str) -> None:
        data = self.data[vm_id]
        known = data.get(key)
        number = {0: 0, 1: 1, -1: 2**32 - 1}[cas] if isinstance(cas, int) else known[1] if known else 5
        after = sum(ENTRY_OVERHEAD + len(k) + len(v) for k, (v, _) in data.items() if k != key)
        after += ENTRY_OVERHEAD + len(key) + len(value)
        namespace = self.sharing.namespaces[vm_id]
        if known and number and number != known[1]:
            assert namespace.set(key, value, number) is Status.CAS_MISMATCH
        elif after > LIMITS.data_bytes:
            with pytest.raises(SharingError):
                namespace.set(key, value, number)
        else:
            assert namespace.set(key, value, number) is Status.OK
            self.cas += 1
            data[key] = (value, self.cas)

    @rule(vm_id=st.sampled_from([b"a", b"b"]), name=KEYS)
    def open(self, vm_id: bytes, name: bytes) -> None:
        number = self.sharing.namespaces[vm_id].open_queue(name)
        self.queues[vm_id].setdefault(name, deque())
        assert list(self.queues[vm_id]).index(name) == number

    @rule(vm_id=st.sampled_from([b"a", b"b"]), name=KEYS, value=VALUES)
    def enqueue(self, vm_id: bytes, name: bytes, value: bytes) -> None:
        namespace, queues = self.sharing.namespaces[vm_id], self.queues[vm_id]
        number = namespace.find_queue(name)
        assert (number is None) == (name not in queues)
        if number is None:
            return
        full = sum(map(len, queues.values())) >= LIMITS.items
        if full or self.queue_bytes(vm_id) + ENTRY_OVERHEAD + len(value) > LIMITS.data_bytes:
            with pytest.raises(SharingError):
                namespace.enqueue(number, value)
        else:
            assert namespace.enqueue(number, value) is Status.OK
            queues[name].append(value)

    @rule(vm_id=st.sampled_from([b"a", b"b"]), name=KEYS)
    def dequeue(self, vm_id: bytes, name: bytes) -> None:
        namespace, queue = self.sharing.namespaces[vm_id], self.queues[vm_id].get(name)
        number = namespace.find_queue(name)
        if number is not None and queue is not None:
            assert namespace.dequeue(number) == (queue.popleft() if queue else Status.EMPTY)

    @rule()
    def restart(self) -> None:
        """A worker that is started again finds all as it was."""
        self.sharing.close()
        self.sharing = self.store.attach(0)

    @invariant()
    def agree(self) -> None:
        for vm_id, namespace in self.sharing.namespaces.items():
            data = self.data[vm_id]
            for key in (b"", b"a", b"b", b"m", b"\0", b"k" * 510, b"k" * 511, b"k" * 600):
                assert namespace.get(key) == data.get(key)
            usage = namespace.usage()
            assert usage.data_bytes == sum(ENTRY_OVERHEAD + len(k) + len(v) for k, (v, _) in data.items())
            assert usage.queue_bytes == self.queue_bytes(vm_id)
            assert usage.items == sum(map(len, self.queues[vm_id].values()))


AgainstPlainPython.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestAgainstPlainPython = AgainstPlainPython.TestCase
