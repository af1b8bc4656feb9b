"""The private directory that holds the namespaces' files.

In memory (/dev/shm) where there is room: nothing in it is worth a disk, it ends with the gateway. Whoever uses it holds
a lock on it, which the kernel drops with the last process; a directory without a lock was left behind and is removed.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

PREFIX = "penstock-shared-"
MEMORY = Path("/dev/shm")
ATTEMPTS = 100


class PrivateDirectory:
    """A directory of mode 0700, locked while this process or a child forked from it lives."""

    def __init__(self, needed: int, bases: Sequence[Path] | None = None) -> None:
        """Creates it in the first of `bases` that can be written and has `needed` bytes free, or else in the last.

        Raises OSError.
        """
        bases = bases if bases is not None else (MEMORY, Path(tempfile.gettempdir()))
        for base in bases:
            remove_left_behind(base)
        base = next((base for base in bases if has_room(base, needed)), bases[-1])
        for _ in range(ATTEMPTS):
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
            self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if take(self.fd) and is_same(self.path, self.fd):
                return
            os.close(self.fd)  # another gateway was cleaning up and took it for left behind: it is removing it
        raise OSError(f"no private directory in {base}")

    def close(self) -> None:
        """Remove it. For the process that created it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.fd)


def remove_left_behind(base: Path) -> None:
    """Remove this user's directories in `base` that no process holds any more."""
    for path in base.glob(PREFIX + "*"):
        with suppress(OSError):  # another gateway is at it, or has done it
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                status = os.fstat(fd)
                if status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) == 0o700 and take(fd):
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(fd)


def take(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_same(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False


def has_room(base: Path, needed: int) -> bool:
    try:
        space = os.statvfs(base)
    except OSError:
        return False
    return os.access(base, os.W_OK | os.X_OK) and space.f_bavail * space.f_frsize >= needed
