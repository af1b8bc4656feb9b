"""One vm_id's data and queues: an LMDB file, opened by each worker after the fork.

Reading takes no lock and never waits. A write is one transaction: it is there for all workers when it returns, and if
its process is killed in the middle it has not happened. Keys in the file:

    m                  usage of the whole namespace (USAGE)
    d KEY, D SHA-256   shared data: its CAS value (u32), then the value; the digest stands for a key that is too long
    n NAME, N SHA-256  a queue's number (u32)
    q NUMBER           a queue: how many items were ever taken and put (QUEUE)
    i NUMBER COUNT     an item, by how many were put before it
"""

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

import lmdb

from proxy.sharing.board import Board
from proxy.sharing.limits import ENTRY_OVERHEAD, LARGEST_VALUE, LONGEST_NAME, MOST_QUEUES, Limits
from proxy.sharing.lock import WriteLock
from proxy.sharing.status import SharingError, Status
from proxy.telemetry.logging import get_logger, limited

log = get_logger("sharing")

P = ParamSpec("P")
T = TypeVar("T")

LONGEST_KEY = 511  # bytes that LMDB allows (MDB_MAXKEYSIZE)
U32 = struct.Struct("<I")
QUEUE = struct.Struct("<QQ")
QUEUE_KEY = struct.Struct(">cI")
ITEM_KEY = struct.Struct(">cIQ")
USAGE = struct.Struct("<QQQQQ")
USAGE_KEY = b"m"
SPARE_READERS = 64  # slots for readers that died, until reader_check() clears them


class Usage(NamedTuple):
    """What the namespace holds. Bytes count ENTRY_OVERHEAD for each entry; `cas` is the last value given out."""

    data_bytes: int = 0
    queue_bytes: int = 0
    items: int = 0
    queues: int = 0
    cas: int = 0


def create(path: Path, limits: Limits) -> None:
    """Create the file, so that workers that start together only open it. Raises OSError."""
    try:
        open_file(path, limits, 1).close()
    except lmdb.Error as error:
        raise OSError(f"{path}: {error}") from error


def open_file(path: Path, limits: Limits, readers: int) -> lmdb.Environment:
    # No sync: the file ends with the gateway, and the death of a process loses nothing that the kernel holds. The map
    # is not writable: a full disk is then an error of the write, where it would be a SIGBUS.
    return lmdb.open(
        str(path), subdir=False, map_size=limits.file_bytes, mode=0o600, sync=False, metasync=False, readahead=False,
        writemap=False, max_readers=readers + SPARE_READERS, max_spare_txns=1,
    )  # fmt: skip


def entry_key(short: bytes, long: bytes, name: bytes) -> bytes:
    return short + name if len(name) < LONGEST_KEY else long + hashlib.sha256(name).digest()


class Namespace:
    """A namespace as one worker has it open; for one thread. Closed by the end of the process, too.

    Writing raises SharingError for whatever is not the caller's ordinary business: a limit, a lock held too long, a full
    disk. `index` is its place among the gateway's namespaces.
    """

    def __init__(self, directory: Path, index: int, vm_id: bytes, limits: Limits, board: Board, lock: WriteLock) -> None:
        """Raises OSError, lmdb.Error."""
        self.index = index
        self.vm_id = vm_id
        self.limits = limits
        self.board = board
        self.file = open_file(file_path(directory, index), limits, board.slots)
        self.file.reader_check()  # frees what a killed predecessor was reading
        self.lock = lock
        self.usage()  # a first read takes this process's slot among the readers, so that no later one can fail to

    def close(self) -> None:
        self.file.close()

    def write(self, change: Callable[Concatenate[lmdb.Transaction, P], T], *args: P.args, **options: P.kwargs) -> T:
        """Run `change` as a transaction. Nothing of it stays if it raises."""
        self.lock.acquire()
        try:
            try:
                with self.file.begin(write=True) as transaction:
                    return change(transaction, *args, **options)
            except lmdb.MapFullError:
                if not self.file.reader_check():  # a dead reader keeps old pages from being used again
                    raise
            with self.file.begin(write=True) as transaction:
                return change(transaction, *args, **options)
        except lmdb.Error as error:
            if not limited(("sharing", self.vm_id), 1.0):
                log.error("shared data can't be written", vm_id=text(self.vm_id), reason=str(error))
            raise SharingError(f"shared data can't be written: {error}") from error
        finally:
            self.lock.release()

    def usage(self) -> Usage:
        """What it holds now."""
        with self.file.begin() as transaction:
            return read_usage(transaction)

    # Data

    def get(self, key: bytes) -> tuple[bytes, int] | None:
        """The value and its CAS value; None if there is no such key."""
        if len(key) > LONGEST_NAME:
            return None
        with self.file.begin(buffers=True) as transaction:
            found = transaction.get(entry_key(b"d", b"D", key))
            return None if found is None else (bytes(found[U32.size :]), U32.unpack_from(found)[0])

    def set(self, key: bytes, value: bytes, cas: int) -> Status:
        """Set a value. CAS_MISMATCH if `cas` is not 0 and an existing key has another one (shared_data.cc of
        proxy-wasm-cpp-host); a key that does not exist is created whatever `cas` is. Keys can't be removed, only
        emptied."""
        check_length("a key", key, LONGEST_NAME)
        check_length("a shared value", value, LARGEST_VALUE)
        return self.write(self.set_in, key, value, cas)

    def set_in(self, transaction: lmdb.Transaction, key: bytes, value: bytes, cas: int) -> Status:
        stored = entry_key(b"d", b"D", key)
        old = transaction.get(stored)
        usage = read_usage(transaction)
        if old is None:
            data_bytes = usage.data_bytes + ENTRY_OVERHEAD + len(key) + len(value)
        elif cas and cas != U32.unpack_from(old)[0]:
            return Status.CAS_MISMATCH
        else:
            data_bytes = usage.data_bytes + len(value) - (len(old) - U32.size)
        if data_bytes > self.limits.data_bytes:
            raise SharingError(
                f"shared data of vm_id {text(self.vm_id)!r} would take {data_bytes} bytes,"
                f" more than limits.shared_data ({self.limits.data_bytes})"
            )
        count = self.next_cas(usage.cas)
        transaction.put(stored, U32.pack(count & 0xFFFFFFFF) + value)
        transaction.put(USAGE_KEY, USAGE.pack(*usage._replace(data_bytes=data_bytes, cas=count)))
        return Status.OK

    def next_cas(self, last: int) -> int:
        """The next CAS value, as a count whose low 32 bits are it: as in proxy-wasm-cpp-host one counter for all
        vm_ids, that leaves 0 out. Writers of other namespaces may set the common counter back, so what counts within
        this one is that it exceeds the last value given out here."""
        count = max(last, self.board.cas) + 1
        if not count & 0xFFFFFFFF:
            count += 1
        self.board.cas = count
        return count

    # Queues

    def open_queue(self, name: bytes) -> int:
        """The number of the queue with this name, which is created if there is none."""
        number = self.find_queue(name)
        if number is None:
            check_length("a queue's name", name, LONGEST_NAME)
            number = self.write(self.open_queue_in, name)
        return number

    def open_queue_in(self, transaction: lmdb.Transaction, name: bytes) -> int:
        stored = entry_key(b"n", b"N", name)
        found = transaction.get(stored)
        if found is not None:
            return int(U32.unpack(found)[0])
        usage = read_usage(transaction)
        if usage.queues >= MOST_QUEUES:
            raise SharingError(f"vm_id {text(self.vm_id)!r} has {MOST_QUEUES} shared queues, the most there can be")
        transaction.put(stored, U32.pack(usage.queues))
        transaction.put(QUEUE_KEY.pack(b"q", usage.queues), QUEUE.pack(0, 0))
        transaction.put(USAGE_KEY, USAGE.pack(*usage._replace(queues=usage.queues + 1)))
        return usage.queues

    def find_queue(self, name: bytes) -> int | None:
        """The number of the queue with this name; None if there is none."""
        if len(name) > LONGEST_NAME:
            return None
        with self.file.begin() as transaction:
            found = transaction.get(entry_key(b"n", b"N", name))
            return None if found is None else int(U32.unpack(found)[0])

    def counts(self, number: int) -> tuple[int, int] | None:
        """How many items were ever taken from and put into the queue; None if there is no such queue."""
        with self.file.begin() as transaction:
            return read_queue(transaction, number)

    def enqueue(self, number: int, value: bytes) -> Status:
        """NOT_FOUND if there is no such queue."""
        check_length("a queued item", value, LARGEST_VALUE)
        return self.write(self.enqueue_in, number, value)

    def enqueue_in(self, transaction: lmdb.Transaction, number: int, value: bytes) -> Status:
        queue = read_queue(transaction, number)
        if queue is None:
            return Status.NOT_FOUND
        taken, put = queue
        usage = read_usage(transaction)
        queue_bytes = usage.queue_bytes + ENTRY_OVERHEAD + len(value)
        if usage.items >= self.limits.items:
            raise SharingError(
                f"the shared queues of vm_id {text(self.vm_id)!r} hold limits.queued_items ({self.limits.items})"
            )
        if queue_bytes > self.limits.data_bytes:
            raise SharingError(
                f"the shared queues of vm_id {text(self.vm_id)!r} would take {queue_bytes} bytes,"
                f" more than limits.shared_data ({self.limits.data_bytes})"
            )
        transaction.put(ITEM_KEY.pack(b"i", number, put), value)
        transaction.put(QUEUE_KEY.pack(b"q", number), QUEUE.pack(taken, put + 1))
        transaction.put(USAGE_KEY, USAGE.pack(*usage._replace(queue_bytes=queue_bytes, items=usage.items + 1)))
        return Status.OK

    def dequeue(self, number: int) -> bytes | Status:
        """The oldest item, which is then gone; NOT_FOUND if there is no such queue, EMPTY."""
        queue = self.counts(number)
        if queue is None:
            return Status.NOT_FOUND
        if queue[0] == queue[1]:
            return Status.EMPTY  # found without a lock: filters ask until it is empty
        return self.write(self.dequeue_in, number)

    def dequeue_in(self, transaction: lmdb.Transaction, number: int) -> bytes | Status:
        queue = read_queue(transaction, number)
        if queue is None or queue[0] == queue[1]:
            return Status.EMPTY
        taken, put = queue
        item = transaction.pop(ITEM_KEY.pack(b"i", number, taken))
        assert item is not None  # put in the transaction that counted it
        usage = read_usage(transaction)
        transaction.put(QUEUE_KEY.pack(b"q", number), QUEUE.pack(taken + 1, put))
        left = usage._replace(queue_bytes=usage.queue_bytes - ENTRY_OVERHEAD - len(item), items=usage.items - 1)
        transaction.put(USAGE_KEY, USAGE.pack(*left))
        return bytes(item)


def file_path(directory: Path, index: int) -> Path:
    return directory / f"{index}.mdb"


def read_usage(transaction: lmdb.Transaction) -> Usage:
    found = transaction.get(USAGE_KEY)
    return Usage() if found is None else Usage(*USAGE.unpack(found))


def read_queue(transaction: lmdb.Transaction, number: int) -> tuple[int, int] | None:
    found = transaction.get(QUEUE_KEY.pack(b"q", number))
    if found is None:
        return None
    taken, put = QUEUE.unpack(found)
    return taken, put


def check_length(what: str, value: bytes, most: int) -> None:
    if len(value) > most:
        raise SharingError(f"{what} of {len(value)} bytes; {most} is the most")


def text(vm_id: bytes) -> str:
    return vm_id.decode(errors="backslashreplace")
