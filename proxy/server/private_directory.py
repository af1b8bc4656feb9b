"""The supervisor's private directory: unix sockets and small files for its own processes and its own user."""

import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from proxy.server.asking import ABOUT


def make_private_directory(config_path: Path) -> Path:
    """A new one, which says whose it is. Those that killed supervisors of this user could not remove go. Raises OSError."""
    try:
        # mkdtemp makes it 0700; a socket's path must fit in 108 bytes (unix(7)), which a long TMPDIR would break.
        base = tempfile.gettempdir() if len(tempfile.gettempdir()) < 60 else "/tmp"
        remove_left_behind(Path(base))
        path = Path(tempfile.mkdtemp(prefix=f"penstock-{os.getpid()}-", dir=base))
    except OSError as error:
        raise OSError(
            f"no temporary folder can be written to: {error.strerror}; set TMPDIR to one, such as /dev/shm"
        ) from error
    (path / ABOUT).write_text(json.dumps({"pid": os.getpid(), "config": str(config_path.resolve())}))
    return path


def remove_left_behind(base: Path) -> None:
    """Remove the directories of supervisors of this user that were killed and could not."""
    for path in base.glob("penstock-*-*"):
        pid = path.name.split("-")[1]
        with suppress(OSError):
            mine = path.is_dir() and not path.is_symlink() and path.lstat().st_uid == os.getuid()
            if mine and pid.isdecimal() and not Path("/proc", pid).exists():
                shutil.rmtree(path, ignore_errors=True)
