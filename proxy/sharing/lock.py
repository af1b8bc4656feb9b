"""The write lock of a namespace, waited for only so long.

LMDB has a lock of its own, a robust mutex: when its owner dies, the next one in line gets it. But LMDB waits for it
without end, so a worker that is stopped (SIGSTOP, a debugger) in the middle of a write would stop the event loops of
all. This one, of the same kind, is taken first. Without contention neither makes a system call.
"""

import errno
import time
from typing import Any

import cffi

from proxy.sharing.status import SharingError

PATIENCE_SECONDS = 0.25
"""How long a write waits. A holder that runs is done in microseconds. What takes longer is other processes being given
the CPU: with eight that do nothing but write, on two cores, the longest wait in 500,000 was 0.1 s."""

LITTLE_PATIENCE_SECONDS = 0.001
"""How long it waits after it has waited in vain, until it gets the lock again."""

LOCK_SIZE = 64
"""Bytes of shared memory for one lock; pthread_mutex_t has 40 on x86-64 and 48 on ARM64."""

PTHREAD_PROCESS_SHARED = 1
PTHREAD_MUTEX_ROBUST = 1

ffi = cffi.FFI()
ffi.cdef(
    """
    struct timespec { long tv_sec; long tv_nsec; };
    int pthread_mutexattr_init(void *);
    int pthread_mutexattr_setpshared(void *, int);
    int pthread_mutexattr_setrobust(void *, int);
    int pthread_mutex_init(void *, const void *);
    int pthread_mutex_trylock(void *);
    int pthread_mutex_timedlock(void *, const struct timespec *);
    int pthread_mutex_consistent(void *);
    int pthread_mutex_unlock(void *);
    """
)
libc: Any = ffi.dlopen(None)


class WriteLock:
    """A lock in LOCK_SIZE bytes of memory that processes share; made before they fork. For one thread of each."""

    def __init__(self, memory: memoryview) -> None:
        """Makes the lock in `memory`, aligned to 8 bytes. Raises OSError."""
        assert memory.nbytes == LOCK_SIZE
        self.mutex = ffi.from_buffer(memory)
        self.patience = PATIENCE_SECONDS
        attributes = ffi.new("char[]", LOCK_SIZE)
        check(libc.pthread_mutexattr_init(attributes))
        check(libc.pthread_mutexattr_setpshared(attributes, PTHREAD_PROCESS_SHARED))
        check(libc.pthread_mutexattr_setrobust(attributes, PTHREAD_MUTEX_ROBUST))
        check(libc.pthread_mutex_init(self.mutex, attributes))

    def acquire(self) -> None:
        """Raises SharingError if it is not free in time."""
        result = libc.pthread_mutex_trylock(self.mutex)
        if result == errno.EBUSY:
            # The call knows no other clock than the one that may be set back; it then waits longer, once.
            give_up = divmod(time.time_ns() + int(self.patience * 1e9), 1_000_000_000)
            result = libc.pthread_mutex_timedlock(self.mutex, ffi.new("struct timespec *", give_up))
        if result == errno.ETIMEDOUT:
            self.patience = LITTLE_PATIENCE_SECONDS
            raise SharingError("shared data is locked by a worker process that does not go on")
        if result == errno.EOWNERDEAD:
            # What it was writing is LMDB's to undo; this lock guards nothing else.
            result = libc.pthread_mutex_consistent(self.mutex)
        check(result)
        self.patience = PATIENCE_SECONDS

    def release(self) -> None:
        check(libc.pthread_mutex_unlock(self.mutex))

    def close(self) -> None:
        """Let go of the memory. The lock stays for the other processes."""
        ffi.release(self.mutex)


def check(result: int) -> None:
    if result:
        raise OSError(result, "pthread mutex")
