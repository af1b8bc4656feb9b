"""What a reload hands to the processes: a config and its compiled filters, in memory that has no name (memfd_create(2)).

The supervisor makes the memory, a child of its fills it, workers inherit it or are given its descriptor. Nobody else can open
it, nothing of it (secrets, machine code) is ever on a disk, and so a pickle is safe in it.
"""

import mmap
import os
import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxy.config.model import Config
from proxy.sharing.limits import Limits

SIZES = struct.Struct("<QQ")


@dataclass(frozen=True)
class Revision:
    """`spaces`: what filters share in, with the limits of each; `fingerprint`: of the files that the config names."""

    number: int
    config: Config
    spaces: Mapping[bytes, Limits]
    fingerprint: str


def new_memory() -> int:
    """A descriptor. Inherited by children, not by other programs."""
    return os.memfd_create("penstock-revision", os.MFD_CLOEXEC)


def save(fd: int, revision: Revision, prepared: Any) -> None:
    """Into new memory. Raises OSError."""
    parts = [pickle.dumps(part, protocol=5) for part in (revision, prepared)]
    with open(fd, "wb", closefd=False) as file:
        file.write(SIZES.pack(*map(len, parts)))
        file.writelines(parts)


def load(fd: int) -> Revision:
    """The revision, without its filters."""
    revision: Revision = part_of(fd, 0)
    return revision


def load_filters(fd: int) -> Any:
    """The revision's prepared filters."""
    return part_of(fd, 1)


def part_of(fd: int, number: int) -> Any:
    # Mapped, not read: the descriptor's position is common to all processes.
    with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as memory, memoryview(memory) as view:
        sizes = SIZES.unpack_from(view)
        start = SIZES.size + sum(sizes[:number])
        with view[start : start + sizes[number]] as part:
            return pickle.loads(part)
