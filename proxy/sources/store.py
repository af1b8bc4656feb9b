"""What was fetched, by content, on disk: so that a gateway starts, and goes on, when its sources are down.

A blob is named by its SHA-256 and compared with it whenever it is read. A *ref* says what a source gave last: the digests of
its parts, and what the gateway's checks found. Refs carry the folder's keyed hash, as compiled code does (wasm/cache.py,
whose rules for the folder hold here too: private, one owner, writers replace files whole). What no ref names any more is
deleted.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from proxy.wasm.cache import MAGIC, Cache, CacheError, default_folder

log = structlog.get_logger("sources")

BLOB = ".blob"
REF = ".ref"
UNUSED_SECONDS = 180 * 86400.0
"""A ref that nobody has read for so long is deleted."""
YOUNG_SECONDS = 3600.0
"""A blob is written before the ref that names it: one so young is left alone."""


@dataclass(frozen=True, slots=True)
class Ref:
    """What a source gave last. `parts`: name to SHA-256. `name`, `version` and `signer` are the signature's, "" without one.
    Times are seconds since 1970: when it was fetched, and when the source last confirmed it."""

    source: str
    parts: Mapping[str, str]
    tag: str
    fetched: float
    checked: float
    name: str = ""
    version: str = ""
    signer: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """A ref with its parts' bytes, all compared with their digests."""

    ref: Ref
    parts: Mapping[str, bytes]


class Store(Cache):
    """An open store. Use `with`."""

    def __init__(self, folder: Path | None = None) -> None:
        """Opens and creates at need. Raises CacheError for a folder that is not private, OSError."""
        super().__init__(folder if folder is not None else default_folder() / "sources")

    def kept(self, key: str) -> Kept | None:
        """What the source gave last, whole; None if there is nothing, or not all of it."""
        data = self.get(name_of(key))
        if data is None:
            return None
        try:
            ref = Ref(**json.loads(data))
        except TypeError:  # another version's
            return None
        parts = {}
        for name, digest in ref.parts.items():
            blob = self.blob(digest)
            if blob is None:
                return None
            parts[name] = blob
        return Kept(ref, parts)

    def blob(self, digest: str) -> bytes | None:
        """The bytes with this SHA-256. What is found changed is deleted, with a warning."""
        try:
            data = self.read(digest + BLOB, 0o022)
        except FileNotFoundError:
            return None
        except (OSError, CacheError) as error:
            log.warning("stored_part_rejected", digest=digest, reason=str(error))
            self.delete(digest + BLOB)
            return None
        if hashlib.sha256(data).hexdigest() != digest:
            log.warning("stored_part_rejected", digest=digest, reason="its content is not what was written")
            self.delete(digest + BLOB)
            return None
        return data

    def keep(self, key: str, ref: Ref, parts: Mapping[str, bytes]) -> None:
        """Raises OSError: the disk refuses."""
        for name, data in parts.items():
            digest = ref.parts[name]
            if self.blob(digest) is None:
                self.write(digest + BLOB, (data,))
        self.put_ref(key, ref)
        self.prune()

    def put_ref(self, key: str, ref: Ref) -> None:
        """Raises OSError."""
        name = name_of(key)
        content = json.dumps(dataclasses.asdict(ref)).encode()
        self.write(name, (MAGIC, self.tag(name, content), content))

    def reject(self, name: str, reason: str) -> None:
        log.warning("stored_source_rejected", entry=name, reason=reason)
        self.delete(name)

    def prune(self) -> None:
        now = time.time()
        named: set[str] = set()
        blobs = []
        with os.scandir(self.directory) as found:
            names = [entry.name for entry in found]
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                age = now - os.stat(name, dir_fd=self.directory, follow_symlinks=False).st_mtime
                if name.endswith(BLOB):
                    blobs.append((name, age))
                elif name.endswith(REF) and age > UNUSED_SECONDS:
                    self.delete(name)
                elif name.endswith(REF) and (data := self.get(name)) is not None:
                    os.utime(name, (now - age, now - age), dir_fd=self.directory)  # looking is not using
                    named |= {digest + BLOB for digest in json.loads(data)["parts"].values()}
        for name, age in blobs:
            if name not in named and age > YOUNG_SECONDS:
                self.delete(name)


def name_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest() + REF
