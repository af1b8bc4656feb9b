"""What a recording keeps of components' host calls, and a replay gives again: what does not follow from the stream itself."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from proxy.abi.component.values import content, data_of
from proxy.abi.component.world import CONFLICT
from proxy.chain.record_file import packed, unpacked

NUMBERS: Final = ("clock.now-ns", "clock.monotonic-ns", "random.get-u64")
KEPT: Final = frozenset({*NUMBERS, "kv.get", "kv.set", "properties.get"})
OK: Final = 0

Answer = Callable[..., Any]
"""A function that a component imports, with its values as the codec has them."""


def arguments_of(name: str, values: Sequence[Any]) -> list[Any]:
    """A call's arguments, as JSON."""
    if name == "kv.set":
        key, value, version = values
        return [packed(key), packed(content(value)), version]
    return [packed(value) for value in values]


def told(name: str, answer: Any) -> tuple[int, Any]:
    """An answer as a status, 0 or 1 more than the number of the error's case, and a value as JSON."""
    if name in NUMBERS:
        return OK, answer
    if name == "properties.get":
        return OK, None if answer is None else packed(answer)
    ok, payload = answer
    if not ok:
        case, text = payload
        return 1 + case, None if text is None else packed(text)
    if name == "kv.set" or payload is None:
        return OK, None
    value, version = payload
    return OK, [packed(content(value)), version]


def answer_of(name: str, status: int, value: Any) -> Any:
    """The answer of which `told` has told."""
    if name in NUMBERS:
        return value
    if name == "properties.get":
        return None if value is None else unpacked(value)
    if status != OK:
        case = status - 1
        return False, (case, None if case == CONFLICT else unpacked(value))
    return True, None if value is None else (data_of(unpacked(value[0])), value[1])
