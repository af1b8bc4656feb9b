"""What one VM sees of shared data and queues: those of its own vm_id, and queues of others that it resolved."""

from collections.abc import Mapping

from proxy.sharing.board import Board
from proxy.sharing.limits import MOST_QUEUES
from proxy.sharing.namespace import Namespace
from proxy.sharing.notifier import Notifier, OnReady, token_of
from proxy.sharing.status import Status


class Space:
    """A VM's handle; close it with the VM. Calls raise SharingError, which the VM gets as INTERNAL_FAILURE.

    A token is a number that a filter could guess, so it is good only for a queue of the VM's own vm_id, and for putting
    into one of another vm_id that this VM resolved. Taking from another vm_id's queue is refused, unlike in Envoy.
    """

    def __init__(self, own: Namespace, namespaces: Mapping[bytes, Namespace], notifier: Notifier, board: Board) -> None:
        self.own = own
        self.namespaces = namespaces
        self.notifier = notifier
        self.board = board
        self.foreign: dict[int, tuple[Namespace, int]] = {}
        self.registered: dict[int, OnReady] = {}

    def get(self, key: bytes) -> tuple[bytes, int] | None:
        """The value and its CAS value (1 to 2**32 - 1); None if there is no such key."""
        return self.own.get(key)

    def set(self, key: bytes, value: bytes, cas: int) -> Status:
        """OK, or CAS_MISMATCH if `cas` is not 0 and an existing key has another one."""
        return self.own.set(key, value, cas)

    def register(self, name: bytes, on_ready: OnReady) -> int:
        """The token of this vm_id's queue, which is created if there is none; what lies in it stays.

        From now on `on_ready` is told of its items, and nobody else is until this VM is closed or another registers.
        """
        number = self.own.open_queue(name)
        token = token_of(self.own, number)
        before = self.registered.get(token)
        self.registered[token] = on_ready
        self.notifier.register(self.own, number, on_ready)
        if before is not None:
            self.notifier.unregister(token, before)
        return token

    def resolve(self, vm_id: bytes, name: bytes) -> int | None:
        """The token of a queue that some VM registered; an empty `vm_id` is the own one. None if there is none."""
        namespace = self.namespaces.get(vm_id) if vm_id else self.own
        number = None if namespace is None else namespace.find_queue(name)
        if namespace is None or number is None:
            return None
        token = token_of(namespace, number)
        if namespace is not self.own:
            self.foreign[token] = (namespace, number)
        return token

    def enqueue(self, token: int, value: bytes) -> Status:
        """OK, or NOT_FOUND. The queue's consumer, if there is one, is told."""
        namespace, number = self.foreign.get(token) or (self.own, self.own_number(token))
        if number < 0:
            return Status.NOT_FOUND
        status = namespace.enqueue(number, value)
        if status is Status.OK:
            consumer = self.board.consumer(token - 1)
            if consumer is not None:
                self.board.ring(consumer)
        return status

    def dequeue(self, token: int) -> bytes | Status:
        """The oldest item, EMPTY, or NOT_FOUND. Each item is taken once, by whichever VM asks first."""
        number = self.own_number(token)
        return Status.NOT_FOUND if number < 0 else self.own.dequeue(number)

    def own_number(self, token: int) -> int:
        """The number of the own queue that the token stands for; -1 if it can be none."""
        index, number = divmod(token - 1, MOST_QUEUES)
        return number if index == self.own.index else -1

    def close(self) -> None:
        """Withdraw what the VM registered. Its data and queues stay."""
        while self.registered:
            self.notifier.unregister(*self.registered.popitem())
