"""The world's values and the gateway's bytes: content, and edits of a head."""

from collections.abc import Callable, Sequence

from proxy.abi.component.world import ADD, BINARY, REMOVE, TEXT
from proxy.abi.proxy_wasm.settings import Settings

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
    size = sum(len(name) + len(value) for name, value in found)
    for kind, edit in edits:
        if kind == REMOVE:
            assert isinstance(edit, bytes)
            name = edit.lower()
            found = [pair for pair in found if pair[0] != name]
            continue
        assert isinstance(edit, tuple)
        name, value = edit[0].lower(), edit[1]
        place = None
        if kind != ADD or name.startswith(b":"):
            place = next((i for i, pair in enumerate(found) if pair[0] == name), None)
        if place is None:
            if len(found) >= settings.headers:
                refuse(f"more than limits.headers {settings.headers}")
                continue
            after = [*found, (name, value)]
        else:
            after = [(name, value) if i == place else pair for i, pair in enumerate(found) if i == place or pair[0] != name]
        grown = sum(len(name) + len(value) for name, value in after)
        if grown > settings.header_bytes and grown > size:
            refuse(f"more than limits.header_bytes {settings.header_bytes}")
            continue
        found, size = after, grown
    return found
