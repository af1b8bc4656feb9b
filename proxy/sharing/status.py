"""How a call on shared data or a queue ends, in proxy-wasm's status numbers."""

from enum import IntEnum


class Status(IntEnum):
    """The statuses that the sharing host functions give (proxy_wasm_enums.h of the C++ SDK)."""

    OK = 0
    NOT_FOUND = 1
    EMPTY = 7
    CAS_MISMATCH = 8
    INTERNAL_FAILURE = 10


class SharingError(Exception):
    """The call was refused or could not be done: a limit, a lock not free in time, a full disk. Nothing has changed.

    Its text says why, for the filter's author; `status` is what the filter gets.
    """

    status = Status.INTERNAL_FAILURE
