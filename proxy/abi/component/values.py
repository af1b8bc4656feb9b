"""The world's values and the gateway's bytes: content, and edits of a head."""

from collections.abc import Callable, Sequence
from itertools import chain

from proxy.abi.component.world import ADD, BINARY, REMOVE, TEXT
from proxy.abi.settings import Settings

Pair = tuple[bytes, bytes]


def data_of(data: bytes) -> tuple[int, bytes]:
    """Content as a guest sees it: text where it is valid UTF-8."""
    if data.isascii():
        return TEXT, data
    try:
        data.decode()
    except UnicodeDecodeError:
        return BINARY, data
    return TEXT, data


def content(value: tuple[int, bytes]) -> bytes:
    """The bytes that a guest's data stands for."""
    return value[1]


def edited(
    pairs: Sequence[Pair],
    edits: Sequence[tuple[int, Pair | bytes]],
    settings: Settings,
    refuse: Callable[[str], None],
) -> list[Pair]:
    """The fields after a guest's edits. One that would pass the filter's limits is refused and left out, as the call of a
    proxy-wasm filter would be; what is no valid name or value shows when the head is written, for either kind.
    """
    found = list(pairs)
    for edit in edits:
        found = with_edit(found, *edit)
    if len(found) <= settings.headers and size_of(found) <= settings.header_bytes:
        return found
    # Which of them was too much?
    found = list(pairs)
    for edit in edits:
        after = with_edit(found, *edit)
        if len(after) > max(settings.headers, len(found)):
            refuse(f"more than limits.headers {settings.headers}")
        elif size_of(after) > max(settings.header_bytes, size_of(found)):
            refuse(f"more than limits.header_bytes {settings.header_bytes}")
        else:
            found = after
    return found


def with_edit(found: list[Pair], kind: int, edit: Pair | bytes) -> list[Pair]:
    if isinstance(edit, bytes):
        assert kind == REMOVE
        name = edit.lower()
        return [pair for pair in found if pair[0] != name]
    name = edit[0].lower()
    field = name, edit[1]
    if kind != ADD or name.startswith(b":"):
        place = next((i for i, pair in enumerate(found) if pair[0] == name), None)
        if place is not None:
            return [field if i == place else pair for i, pair in enumerate(found) if i == place or pair[0] != name]
    return [*found, field]


def size_of(pairs: Sequence[Pair]) -> int:
    return sum(map(len, chain.from_iterable(pairs)))
