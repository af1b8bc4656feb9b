"""Heads and actions as text: what `penstock explain` prints offline and the admin pages show of live streams."""

from collections.abc import Collection, Iterator, Sequence
from typing import Final

ACTIONS: Final = ("Continue", "Pause", "2 (stop, watermark)")
HIDDEN: Final = "***"

Pairs = Sequence[tuple[bytes, bytes]]


def action_text(action: int) -> str:
    return ACTIONS[action] if action < len(ACTIONS) else str(action)


def difference(before: Pairs, after: Pairs, hidden: Collection[bytes] = ()) -> Iterator[str]:
    """Fields that went and came, as - and + lines; the values of the `hidden` names (lower case) are not told."""
    left = list(after)
    for pair in before:
        if pair in left:
            left.remove(pair)
        else:
            yield f"- {field_text(pair, hidden)}"
    yield from (f"+ {field_text(pair, hidden)}" for pair in left)


def field_text(pair: tuple[bytes, bytes], hidden: Collection[bytes] = ()) -> str:
    name, value = pair
    return f"{text(name)}: {HIDDEN if name.lower() in hidden else text(value)}"


def text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
