"""Shared data and queues of a gateway: made by the supervisor before it forks, used by the workers after.

What is shared lasts as long as the gateway: proxy-wasm-cpp-host erases a vm_id's data with its last VM, and with a
config that does not change the last VM goes when the gateway does. A VM built again after a trap, and a worker started
again, find what was there.
"""

import asyncio
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path

from proxy.sharing.board import Board
from proxy.sharing.directory import PrivateDirectory
from proxy.sharing.limits import MOST_QUEUES, Limits
from proxy.sharing.lock import LOCK_SIZE, WriteLock
from proxy.sharing.namespace import Namespace, create, file_path
from proxy.sharing.notifier import Notifier
from proxy.sharing.space import Space


class SharedStore:
    """The supervisor's side. It has no LMDB file open when it forks: those do not survive it."""

    def __init__(self, slots: int, limits: Mapping[bytes, Limits], bases: Sequence[Path] | None = None, spare: int = 0) -> None:
        """For `slots` workers and the vm_ids that are the keys of `limits` (see limits_by_space).

        `bases`: where its private directory may be; by default memory, or else the temporary directory. `spare`: for how many
        more there is room, see `extend`. Raises OSError.
        """
        self.limits = dict(limits)
        self.most = len(limits) + spare
        self.board = Board(slots, self.most * MOST_QUEUES)
        self.lock_memory = mmap.mmap(-1, max(1, self.most) * LOCK_SIZE)
        whole = memoryview(self.lock_memory)
        self.locks = [WriteLock(whole[at * LOCK_SIZE : (at + 1) * LOCK_SIZE]) for at in range(self.most)]
        self.directory = PrivateDirectory(sum(one.file_bytes for one in limits.values()), bases)
        for index, one in enumerate(self.limits.values()):
            create(file_path(self.directory.path, index), one)

    def extend(self, limits: Mapping[bytes, Limits]) -> None:
        """Make the vm_ids that are new; those that are gone keep what they have. For the supervisor; then `Sharing.extend` in
        each worker, with all of `self.limits`. Raises OSError, ValueError if there is no room."""
        new = {vm_id: one for vm_id, one in limits.items() if vm_id not in self.limits}
        if len(self.limits) + len(new) > self.most:
            raise ValueError(f"{len(self.limits) + len(new)} vm_ids, and room for {self.most}")
        for index, one in enumerate(new.values(), len(self.limits)):
            create(file_path(self.directory.path, index), one)
        self.limits.update(new)

    def close(self) -> None:
        """Remove everything. For the supervisor, when its workers have ended."""
        self.directory.close()
        for lock in self.locks:
            lock.close()
        self.board.close()

    def worker_ended(self, slot: int) -> None:
        """The slot's worker is dead: its queues go to other workers that registered them.

        All others look, for it may have died after it put an item and before it rang.
        """
        self.board.withdraw_all(slot)
        for other in range(self.board.slots):
            if other != slot:
                self.board.ring(other)

    def attach(self, slot: int) -> "Sharing":
        """In a worker, once: open the files. Raises OSError, lmdb.Error."""
        self.board.withdraw_all(slot)
        return Sharing(self, slot)


class Sharing:
    """A worker's side, for its one thread."""

    def __init__(self, store: SharedStore, slot: int) -> None:
        self.store = store
        self.board = store.board
        self.namespaces: dict[bytes, Namespace] = {}
        self.extend(store.limits)
        self.notifier = Notifier(store.board, slot)

    def extend(self, limits: Mapping[bytes, Limits]) -> None:
        """Open those that are new. `limits`: all that the supervisor has made, in its order. Raises OSError, lmdb.Error."""
        store = self.store
        store.limits = dict(limits)
        for index, (vm_id, one) in enumerate(limits.items()):
            if vm_id not in self.namespaces:
                self.namespaces[vm_id] = Namespace(store.directory.path, index, vm_id, one, store.board, store.locks[index])

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to deliver notifications on this loop."""
        self.notifier.start(loop)

    def space(self, vm_id: bytes) -> Space:
        """A new VM's handle. Raises KeyError for a vm_id that the store was not made for."""
        return Space(self.namespaces[vm_id], self.namespaces, self.notifier, self.board)

    def stop(self) -> None:
        """Deliver no more: queues go to other workers at once. To do when draining begins; all else still works."""
        self.notifier.stop()

    def close(self) -> None:
        """Stop, and close the files."""
        self.stop()
        for namespace in self.namespaces.values():
            namespace.close()
