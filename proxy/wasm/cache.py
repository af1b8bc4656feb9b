"""Compiled modules on disk, by content: a start compiles only what it has not seen.

Loading native code is running it, and a flipped byte in it can end the process: so the folder must be private, and each
entry carries a keyed hash over its name and content, checked before use. The key lies in the folder, readable to its
owner alone. Writers replace files whole, so any number of processes may share a folder.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import structlog

from proxy.wasm.compile import CompileError, Request, compile_all
from proxy.wasm.settings import fingerprint

LARGEST = 1 << 30  # bytes of all entries together
SUFFIX = ".code"
MAGIC = b"penstock code 1\n"
TAG_SIZE = 32  # bytes
KEY_NAME = "key"
KEY_SIZE = 32  # bytes
TEMPORARY = ".new-"
TEMPORARY_AGE = 3600.0  # seconds after which a half-written file is nobody's

log = structlog.get_logger(__name__)


class CacheError(Exception):
    """The folder can't be used; the message says why, in one line."""


class CompileErrors(Exception):
    """Modules that could not be compiled, by their index in the requests."""

    def __init__(self, failures: dict[int, CompileError]) -> None:
        super().__init__(failures)
        self.failures = failures

    def __str__(self) -> str:
        return "\n".join(f"module {index}: {failure}" for index, failure in self.failures.items())


def load_or_compile(requests: Sequence[Request], folder: Path | None = None, fresh: bool = False) -> list[bytes]:
    """The serialised code of each module, from the cache or compiled now; in the order of the requests.

    `folder` is the default one if None. `fresh` compiles even what is cached: for an entry that the engine refuses.
    A folder that can't be used costs one warning, not the start. Raises CompileErrors with every module that failed.
    """
    names = [entry_name(request.wasm) for request in requests]
    wanted: dict[str, Request] = {}
    for name, request in zip(names, requests, strict=True):
        known = wanted.setdefault(name, request)  # one module in several filters is compiled once, by the wider limits
        wanted[name] = replace(known, seconds=max(known.seconds, request.seconds), memory=max(known.memory, request.memory))
    codes: dict[str, bytes] = {}
    failures: dict[str, CompileError] = {}
    with opened(folder or default_folder()) as cache:
        if cache is not None and not fresh:
            codes = {name: code for name in wanted if (code := cache.get(name)) is not None}
        missing = [name for name in wanted if name not in codes]
        started = time.monotonic()
        for name, outcome in zip(missing, compile_all([wanted[name] for name in missing]), strict=True):
            if isinstance(outcome, CompileError):
                failures[name] = outcome
                continue
            codes[name] = outcome
            if cache is not None:
                cache.put(name, outcome)
        if missing:
            log.info("modules compiled", modules=len(missing), seconds=round(time.monotonic() - started, 3))
    if failures:
        raise CompileErrors({index: failures[name] for index, name in enumerate(names) if name in failures})
    return [codes[name] for name in names]


def default_folder() -> Path:
    """$PENSTOCK_CACHE, else penstock in $XDG_CACHE_HOME (if absolute, as its specification demands) or ~/.cache."""
    if given := os.environ.get("PENSTOCK_CACHE"):
        return Path(given).absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        with contextlib.suppress(RuntimeError):  # a user without a home
            base = Path.home() / ".cache"
    return base.absolute() / "penstock"


def entry_name(wasm: bytes) -> str:
    """Names the code of this module, compiled by this engine version with these settings for this CPU."""
    return hashlib.sha256(fingerprint().encode() + hashlib.sha256(wasm).digest()).hexdigest() + SUFFIX


@contextlib.contextmanager
def opened(folder: Path) -> Iterator["Cache | None"]:
    """The cache in this folder, or None with a warning if it can't be used."""
    try:
        cache = Cache(folder)
    except (CacheError, OSError) as error:
        log.warning("compile cache is off: modules are compiled at every start", folder=str(folder), reason=str(error))
        yield None
        return
    with cache:
        yield cache


class Cache:
    """An open cache folder. All access goes through its file descriptor: the path can't be swapped underneath."""

    def __init__(self, folder: Path, largest: int = LARGEST) -> None:
        """Opens and creates at need. Raises CacheError for a folder that is not private, OSError."""
        self.largest = largest
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(self.directory)
            if status.st_uid != os.geteuid():
                raise CacheError(f"the folder belongs to user {status.st_uid}, not to {os.geteuid()}")
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise CacheError("others may write to the folder; run chmod 700 on it")
            self.key = self.load_key()
        except BaseException:
            os.close(self.directory)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.directory)

    def get(self, name: str) -> bytes | None:
        """The entry's content, None if there is none. A bad entry is deleted, with a warning."""
        try:
            data = self.read(name, 0o022)
        except FileNotFoundError:
            return None
        except (OSError, CacheError) as error:
            self.reject(name, str(error))
            return None
        start = len(MAGIC) + TAG_SIZE
        if not data.startswith(MAGIC):
            self.reject(name, "it is not a cache entry")
            return None
        content = memoryview(data)[start:]
        if not hmac.compare_digest(data[len(MAGIC) : start], self.tag(name, content)):
            self.reject(name, "its content is not what was written")
            return None
        with contextlib.suppress(OSError):
            os.utime(name, dir_fd=self.directory)  # what is used stays
        return bytes(content)

    def put(self, name: str, content: bytes) -> None:
        """Stores the entry, then makes room. A disk that refuses costs a warning."""
        try:
            self.write(name, (MAGIC, self.tag(name, content), content))
            self.evict(name)
        except OSError as error:
            log.warning("compiled module is not cached", entry=name, reason=str(error))

    def evict(self, kept: str) -> None:
        """Deletes the entries used longest ago until the rest fits; `kept` stays. Also what crashed writers left."""
        entries = []
        now = time.time()
        with os.scandir(self.directory) as found:
            names = [entry.name for entry in found]
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=self.directory, follow_symlinks=False)
                if name.endswith(SUFFIX):
                    entries.append((name != kept, status.st_mtime, name, status.st_size))
                elif name.startswith(TEMPORARY) and now - status.st_mtime > TEMPORARY_AGE:
                    self.delete(name)
        total = sum(size for *_, size in entries)
        for removable, _, name, size in sorted(entries):
            if removable and total > self.largest:
                self.delete(name)
                total -= size

    def tag(self, name: str, content: bytes | memoryview) -> bytes:
        digest = hashlib.blake2b(name.encode() + b"\0", key=self.key, digest_size=TAG_SIZE)
        digest.update(content)
        return digest.digest()

    def reject(self, name: str, reason: str) -> None:
        log.warning("cached module is rejected and compiled anew", entry=name, reason=reason)
        self.delete(name)

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.directory)

    def load_key(self) -> bytes:
        """The folder's key; the first process makes it, and any process replaces one that others could have read."""
        for _ in range(3):
            try:
                key = self.read(KEY_NAME, 0o077)
                if len(key) == KEY_SIZE:
                    return key
                raise CacheError("it has a wrong length")
            except FileNotFoundError:
                pass
            except CacheError as error:
                log.warning("the cache's key is replaced, and what is cached is lost", reason=str(error))
                self.delete(KEY_NAME)
            with contextlib.suppress(FileExistsError):
                self.write(KEY_NAME, (secrets.token_bytes(KEY_SIZE),), replace_existing=False)
        raise CacheError("the key file changes all the time")

    def read(self, name: str, forbidden: int) -> bytes:
        """A whole file. Raises CacheError: not a plain file of ours, or with one of the forbidden mode bits."""
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.directory)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise CacheError("it is not a plain file")
            if status.st_uid != os.geteuid():
                raise CacheError(f"it belongs to user {status.st_uid}")
            if status.st_mode & forbidden:
                raise CacheError(f"its mode {stat.S_IMODE(status.st_mode):o} lets others in")
            return file.read()

    def write(self, name: str, parts: Sequence[bytes], replace_existing: bool = True) -> None:
        """Writes a file that appears whole or not at all. Raises FileExistsError only without `replace_existing`."""
        temporary = f"{TEMPORARY}{secrets.token_hex(16)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600, dir_fd=self.directory)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(parts)
            if replace_existing:
                os.rename(temporary, name, src_dir_fd=self.directory, dst_dir_fd=self.directory)
                return
            os.link(temporary, name, src_dir_fd=self.directory, dst_dir_fd=self.directory)
            self.delete(temporary)
        except BaseException:
            self.delete(temporary)
            raise
