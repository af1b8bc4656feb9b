"""A recorded stream as a file: JSON lines, the first of which says what the rest is. docs/record.md has the format.

Bytes are text where they are UTF-8, else {"base64": ...}.
"""

import base64
import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final

VERSION: Final = 1
KIND: Final = "penstock_recording"
HIDDEN: Final = "***"
SHORTEST_SECRET: Final = 4
"""A redacted value that is shorter is not looked for in the rest of the file: it is everywhere by chance."""

Pairs = list[tuple[bytes, bytes]]


class FormatError(Exception):
    """A file that is no recording, or one of another version."""


def packed(data: bytes) -> Any:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def unpacked(value: Any) -> bytes:
    """Raises FormatError."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, dict) and isinstance(value.get("base64"), str):
        return base64.b64decode(value["base64"])
    raise FormatError(f"{value!r} stands where a text is expected")


class Redaction:
    """What is kept out of a file: the values of some headers, wherever else in it they are."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = {name.lower().encode() for name in names}
        self.secrets: set[bytes] = set()

    def pairs(self, pairs: Iterable[tuple[bytes, bytes]]) -> list[list[Any]]:
        found = []
        for name, value in pairs:
            if name.lower() in self.names:
                self.learn(value)
                value = HIDDEN.encode()
            found.append([packed(name), packed(value)])
        return found

    def learn(self, value: bytes) -> None:
        parts = (value, *value.replace(b";", b" ").replace(b"=", b" ").split())
        self.secrets |= {part for part in parts if len(part) >= SHORTEST_SECRET and part not in (b"Basic", b"Bearer")}

    def clean(self, value: Any) -> Any:
        """A JSON value without the secrets that have been seen."""
        if isinstance(value, str):
            for secret in self.longest_first():
                value = value.replace(secret.decode("utf-8", "replace"), HIDDEN)
            return value
        if isinstance(value, dict):
            if set(value) == {"base64"}:
                data = base64.b64decode(value["base64"])
                for secret in self.longest_first():
                    data = data.replace(secret, HIDDEN.encode())
                return packed(data)
            return {key: self.clean(item) for key, item in value.items()}
        return [self.clean(item) for item in value] if isinstance(value, list) else value

    def longest_first(self) -> list[bytes]:
        return sorted(self.secrets, key=len, reverse=True)


def write(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Raises OSError. Readable by the owner only."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    with open(path, "x", encoding="utf-8", errors="surrogatepass", opener=private) as file:
        file.write(text)


def private(path: str, flags: int) -> int:
    import os

    return os.open(path, flags, 0o600)


def read(path: Path) -> list[dict[str, Any]]:
    """The lines, the first one first. Raises FormatError, OSError."""
    try:
        lines = [json.loads(line) for line in path.read_text("utf-8", "surrogatepass").splitlines() if line]
    except ValueError as error:
        raise FormatError(f"not JSON lines: {error}") from None
    if not lines or not isinstance(lines[0], dict) or KIND not in lines[0]:
        raise FormatError("no recording of Penstock")
    if lines[0][KIND] != VERSION:
        raise FormatError(f"a recording of version {lines[0][KIND]}; this is for version {VERSION}")
    return lines
