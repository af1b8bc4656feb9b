"""Python values to and from wasmtime's component values, by type.

wasmtime-py asks the C API for the type of every value again at every call, which costs 200 to 350 us for ten headers. Here a
type becomes a pair of functions once, and the C structures are read and written by address (capi.SPACE), the many small
strings of a head in a few strided copies.

How values look in Python: numbers and bool as themselves; strings as bytes of UTF-8, a byte-string as the bytes it stands for;
lists as lists; records and tuples as tuples; a variant as (number of the case, payload); an enum as a number; flags as bits;
an option as None or its value; a result as (is it ok, payload).

Nothing here trusts a length: a list or a string over its cap is refused before it is read.
"""

import struct
from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from typing import Any, Final, NamedTuple

from proxy.abi.component.types import Enum, Flags, Function, List, Option, Plain, Record, Result, Tuple, Type, Variant
from proxy.wasm.capi import COMPONENT_KINDS, ENTRY_SIZE, SPACE, VAL_SIZE, ffi

MOST_ITEMS: Final = 4096
"""Elements of one list that a guest gives."""
MOST_USUAL_FIELDS: Final = 128
MOST_SKELETONS: Final = 256
"""How many forms of a head are kept: a call's arguments lie at the same place each time, so a number of fields has one."""
LONGEST_TEXT: Final = 64 << 10
"""Bytes of a string that a guest gives, where the filter's config does not say more."""

Lift = Callable[[int], Any]
"""Reads the value at an address."""
Lower = Callable[[Any, int], None]
"""Writes a value to an address."""

WORDS: Final = memoryview(SPACE).cast("Q")
"""SPACE as 64-bit words, by address / 8."""

word = struct.Struct("<Q").unpack_from
two_words = struct.Struct("<2Q").unpack_from
three_words = struct.Struct("<3Q").unpack_from
signed_word = struct.Struct("<q").unpack_from
put_two = struct.Struct("<2Q").pack_into
put_three = struct.Struct("<3Q").pack_into
put_four = struct.Struct("<4Q").pack_into
put_signed = struct.Struct("<Qq").pack_into
MASKS: Final = {"bool": 0xFF, "u8": 0xFF, "u16": 0xFFFF, "u32": 0xFFFF_FFFF, "u64": 0xFFFF_FFFF_FFFF_FFFF}


class LiftError(Exception):
    """A guest's value is larger than it may be, or none of its type; the text is for its author."""


class Arena:
    """Room for the C structures of one call at a time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.memory = ffi.new("char[]", size)
        self.start = int(ffi.cast("size_t", self.memory)) + 15 & ~15
        self.end = self.start + size - 16
        self.top = self.start
        self.kept: list[Any] = []

    def reset(self) -> None:
        self.top = self.start
        if self.kept:
            self.kept.clear()

    def take(self, size: int) -> int:
        """An address, a multiple of 8."""
        at = self.top
        top = at + size + 7 & ~7
        if top > self.end:
            more = ffi.new("char[]", size + 8)
            self.kept.append(more)
            return int(ffi.cast("size_t", more)) + 7 & ~7
        self.top = top
        return at

    def put(self, data: bytes) -> int:
        """The address of `data`, which is copied unless it is long."""
        size = len(data)
        if size > 4096:
            held = ffi.from_buffer(data)
            self.kept.append(held)
            return int(ffi.cast("size_t", held))
        at = self.take(size)
        SPACE[at : at + size] = data
        return at


class Coder(NamedTuple):
    """How values of one function go: its parameters and its result, None without one."""

    lower: tuple[Lower, ...]
    lift: tuple[Lift, ...]
    lower_result: Lower | None
    lift_result: Lift | None


class Codec:
    """Makes coders. `arena` is where they write; `longest`: bytes of a text that is no name and no header's value."""

    def __init__(self, arena: Arena, longest: int) -> None:
        self.arena = arena
        self.longest = longest
        self.names: list[Any] = []

    def coder(self, function: Function) -> Coder:
        types = [type_ for _, type_ in function.params]
        result = function.result
        return Coder(
            tuple(self.lower(type_) for type_ in types),
            tuple(self.lift(type_, self.longest) for type_ in types),
            None if result is None else self.lower(result),
            None if result is None else self.lift(result, self.longest),
        )

    def name(self, text: str) -> tuple[int, int]:
        """Size and address of a name that stays where it is."""
        data = text.encode()
        kept = ffi.new("char[]", data)
        self.names.append(kept)
        return len(data), int(ffi.cast("size_t", kept))

    # ---- Lifting ----

    def lift(self, type_: Type, longest: int) -> Lift:
        match type_:
            case Plain():
                return self.lift_plain(type_, longest)
            case List():
                return lift_list(self.lift(type_.element, LONGEST_TEXT))
            case Tuple():
                return lift_entries([self.lift(part, longest) for part in type_.parts], VAL_SIZE, 0)
            case Record():
                return lift_entries([self.lift(part, longest) for _, part in type_.fields], ENTRY_SIZE, ENTRY_SIZE - VAL_SIZE)
            case Variant():
                cases = [(name, None if part is None else self.lift(part, longest)) for name, part in type_.cases]
                return lift_variant(cases)
            case Enum():
                return lift_enum(type_.names)
            case Flags():
                return lift_flags(type_.names)
            case Option():
                return lift_option(self.lift(type_.some, longest))
            case Result():
                ok, err = (None if part is None else self.lift(part, longest) for part in (type_.ok, type_.err))
                return lift_result(ok, err)

    def lift_plain(self, type_: Plain, longest: int) -> Lift:
        if type_.name == "string":
            return lift_bytes(longest) if type_.isomorphic else lift_string(longest)
        if type_.name == "s64":
            return lambda at: signed_word(SPACE, at + 8)[0]
        mask = MASKS[type_.name]
        return lambda at: word(SPACE, at + 8)[0] & mask

    # ---- Lowering ----

    def lower(self, type_: Type) -> Lower:
        match type_:
            case Plain():
                return self.lower_plain(type_)
            case List(Tuple((Plain("string"), Plain("string")))):
                return self.lower_headers()
            case List():
                return self.lower_list(self.lower(type_.element))
            case Tuple():
                return self.lower_tuple([self.lower(part) for part in type_.parts])
            case Record():
                return self.lower_record([(self.name(name), self.lower(part)) for name, part in type_.fields])
            case Variant():
                cases = [(self.name(name), None if part is None else self.lower(part)) for name, part in type_.cases]
                return self.lower_variant(cases)
            case Enum():
                return self.lower_enum([self.name(name) for name in type_.names])
            case Flags():
                return self.lower_flags([self.name(name) for name in type_.names])
            case Option():
                return self.lower_option(self.lower(type_.some))
            case Result():
                ok, err = (None if part is None else self.lower(part) for part in (type_.ok, type_.err))
                return self.lower_result(ok, err)

    def lower_plain(self, type_: Plain) -> Lower:
        kind = COMPONENT_KINDS[type_.name]
        if type_.name == "s64":
            return lambda value, at: put_signed(SPACE, at, kind, value)
        if type_.name != "string":
            mask = MASKS[type_.name]
            return lambda value, at: put_two(SPACE, at, kind, value & mask)
        put = self.arena.put
        isomorphic = type_.isomorphic

        def lower(value: bytes, at: int) -> None:
            if not value.isascii():
                if isomorphic:
                    value = value.decode("latin-1").encode()
                else:
                    value.decode()  # wasmtime ends the process over a string that is not UTF-8
            put_three(SPACE, at, kind, len(value), put(value))

        return lower

    def lower_headers(self) -> Lower:
        """list<tuple<string, string>> from pairs of bytes: each ASCII, or taken for a byte-string."""
        arena = self.arena
        list_kind = COMPONENT_KINDS["list"]
        skeletons: dict[tuple[int, int], bytes] = {}

        def lower(pairs: Sequence[tuple[bytes, bytes]], at: int) -> None:
            texts = list(chain.from_iterable(pairs))
            data = b"".join(texts)
            if not data.isascii():
                texts = [text if text.isascii() else text.decode("latin-1").encode() for text in texts]
                data = b"".join(texts)
            n = len(texts) // 2
            place = arena.take(96 * n)
            skeleton = skeletons.get((n, place))
            if skeleton is None:
                skeleton = header_skeleton(n, place)
                if n <= MOST_USUAL_FIELDS and len(skeletons) < MOST_SKELETONS:
                    skeletons[n, place] = skeleton
            SPACE[place : place + 96 * n] = skeleton
            sizes = array("Q", map(len, texts))
            starts = array("Q", accumulate(sizes, initial=arena.put(data)))
            del starts[-1]
            put_three(SPACE, at, list_kind, n, place)
            middle, last = (place >> 3) + 4 * n, (place >> 3) + 12 * n
            WORDS[middle + 1 : last : 4] = sizes
            WORDS[middle + 2 : last : 4] = starts

        return lower

    def lower_list(self, element: Lower) -> Lower:
        arena, kind = self.arena, COMPONENT_KINDS["list"]

        def lower(values: Sequence[Any], at: int) -> None:
            place = arena.take(VAL_SIZE * len(values))
            put_three(SPACE, at, kind, len(values), place)
            for value in values:
                element(value, place)
                place += VAL_SIZE

        return lower

    def lower_tuple(self, parts: Sequence[Lower]) -> Lower:
        arena, kind = self.arena, COMPONENT_KINDS["tuple"]

        def lower(values: Sequence[Any], at: int) -> None:
            place = arena.take(VAL_SIZE * len(parts))
            put_three(SPACE, at, kind, len(parts), place)
            for part, value in zip(parts, values, strict=True):
                part(value, place)
                place += VAL_SIZE

        return lower

    def lower_record(self, parts: Sequence[tuple[tuple[int, int], Lower]]) -> Lower:
        arena, kind = self.arena, COMPONENT_KINDS["record"]

        def lower(values: Sequence[Any], at: int) -> None:
            place = arena.take(ENTRY_SIZE * len(parts))
            put_three(SPACE, at, kind, len(parts), place)
            for (name, part), value in zip(parts, values, strict=True):
                put_two(SPACE, place, *name)
                part(value, place + ENTRY_SIZE - VAL_SIZE)
                place += ENTRY_SIZE

        return lower

    def lower_variant(self, cases: Sequence[tuple[tuple[int, int], Lower | None]]) -> Lower:
        arena, kind = self.arena, COMPONENT_KINDS["variant"]

        def lower(value: tuple[int, Any], at: int) -> None:
            number, payload = value
            (size, name), part = cases[number]
            place = 0
            if part is not None:
                place = arena.take(VAL_SIZE)
                part(payload, place)
            put_four(SPACE, at, kind, size, name, place)

        return lower

    def lower_enum(self, names: Sequence[tuple[int, int]]) -> Lower:
        kind = COMPONENT_KINDS["enum"]
        return lambda value, at: put_three(SPACE, at, kind, *names[value])

    def lower_flags(self, names: Sequence[tuple[int, int]]) -> Lower:
        arena, kind = self.arena, COMPONENT_KINDS["flags"]

        def lower(value: int, at: int) -> None:
            found = [name for i, name in enumerate(names) if value >> i & 1]
            place = arena.take(16 * len(found))
            put_three(SPACE, at, kind, len(found), place)
            for name in found:
                put_two(SPACE, place, *name)
                place += 16

        return lower

    def lower_option(self, some: Lower) -> Lower:
        arena, kind = self.arena, COMPONENT_KINDS["option"]

        def lower(value: Any, at: int) -> None:
            place = 0
            if value is not None:
                place = arena.take(VAL_SIZE)
                some(value, place)
            put_two(SPACE, at, kind, place)

        return lower

    def lower_result(self, ok: Lower | None, err: Lower | None) -> Lower:
        arena, kind = self.arena, COMPONENT_KINDS["result"]

        def lower(value: tuple[bool, Any], at: int) -> None:
            is_ok, payload = value
            part = ok if is_ok else err
            place = 0
            if part is not None:
                place = arena.take(VAL_SIZE)
                part(payload, place)
            put_three(SPACE, at, kind, int(is_ok), place)

        return lower


def header_skeleton(n: int, place: int) -> bytes:
    """The structures of `n` fields at an address: n tuples, then two strings of each, without the strings' sizes and places."""
    words = array("Q", bytes(96 * n))
    behind = place + 32 * n
    words[0 : 4 * n : 4] = array("Q", [COMPONENT_KINDS["tuple"]]) * n
    words[1 : 4 * n : 4] = array("Q", [2]) * n
    words[2 : 4 * n : 4] = array("Q", range(behind, behind + 64 * n, 64))
    words[4 * n :: 4] = array("Q", [COMPONENT_KINDS["string"]]) * (2 * n)
    return words.tobytes()


def lift_string(longest: int) -> Lift:
    def lift(at: int) -> bytes:
        size, data = two_words(SPACE, at + 8)
        if size > longest:
            raise too_long(size, longest)
        text: bytes = SPACE[data : data + size]
        return text

    return lift


def lift_bytes(longest: int) -> Lift:
    def lift(at: int) -> bytes:
        size, data = two_words(SPACE, at + 8)
        if size > 2 * longest:  # two bytes of UTF-8 for each from 0x80 on
            raise too_long(size, 2 * longest)
        text: bytes = SPACE[data : data + size]
        if not text.isascii():
            try:
                return text.decode().encode("latin-1")
            except UnicodeEncodeError:
                return text
        return text

    return lift


def too_long(size: int, longest: int) -> LiftError:
    return LiftError(f"a string of {size} bytes, more than the {longest} that there may be")


def lift_list(element: Lift) -> Lift:
    def lift(at: int) -> list[Any]:
        size, data = two_words(SPACE, at + 8)
        if size > MOST_ITEMS:
            raise LiftError(f"a list of {size} elements, more than the {MOST_ITEMS} that there may be")
        return [element(data + VAL_SIZE * i) for i in range(size)]

    return lift


def lift_entries(parts: Sequence[Lift], step: int, offset: int) -> Lift:
    """A tuple's or a record's values."""
    places = [(part, offset + step * i) for i, part in enumerate(parts)]
    if len(places) == 2:
        (first, first_at), (second, second_at) = places

        def lift_two(at: int) -> tuple[Any, ...]:
            data = word(SPACE, at + 16)[0]
            return first(data + first_at), second(data + second_at)

        return lift_two

    def lift(at: int) -> tuple[Any, ...]:
        data = word(SPACE, at + 16)[0]
        return tuple([part(data + place) for part, place in places])

    return lift


def lift_variant(cases: Sequence[tuple[str, Lift | None]]) -> Lift:
    known = {name.encode(): (i, part) for i, (name, part) in enumerate(cases)}

    def lift(at: int) -> tuple[int, Any]:
        size, name, payload = three_words(SPACE, at + 8)
        number, part = known[SPACE[name : name + size]]
        return number, None if part is None else part(payload)

    return lift


def lift_enum(names: Sequence[str]) -> Lift:
    known = {name.encode(): i for i, name in enumerate(names)}

    def lift(at: int) -> int:
        size, name = two_words(SPACE, at + 8)
        return known[SPACE[name : name + size]]

    return lift


def lift_flags(names: Sequence[str]) -> Lift:
    known = {name.encode(): 1 << i for i, name in enumerate(names)}

    def lift(at: int) -> int:
        count, data = two_words(SPACE, at + 8)
        bits = 0
        for i in range(min(count, len(names))):
            size, name = two_words(SPACE, data + 16 * i)
            bits |= known[SPACE[name : name + size]]
        return bits

    return lift


def lift_option(some: Lift) -> Lift:
    def lift(at: int) -> Any:
        payload = word(SPACE, at + 8)[0]
        return some(payload) if payload else None

    return lift


def lift_result(ok: Lift | None, err: Lift | None) -> Lift:
    def lift(at: int) -> tuple[bool, Any]:
        is_ok, payload = two_words(SPACE, at + 8)
        part = ok if is_ok & 0xFF else err
        return bool(is_ok & 0xFF), part(payload) if part is not None and payload else None

    return lift
