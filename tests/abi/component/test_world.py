"""wit/filter.wit and the Python that says the same; which versions fit which."""

import re
from pathlib import Path
from typing import Any

import pytest

from proxy.abi.component import world, worlds
from proxy.abi.component.types import Enum, Flags, Function, List, Option, Plain, Record, Result, Tuple, Type, Variant
from proxy.abi.component.worlds import WorldError, compatible, world_of

WIT = Path(__file__).parents[3] / "wit" / "filter.wit"
TOKEN = re.compile(r"//[^\n]*|->|%?[a-z][a-z0-9-]*(?:\.[0-9.]+)?|[0-9.]+|[^\s]")


class Wit:
    """Reads as much of WIT as the file has: functions by name, by interface."""

    def __init__(self, text: str) -> None:
        self.tokens = [token for token in TOKEN.findall(text) if not token.startswith("//")]
        self.at = 0
        self.types: dict[str, dict[str, Type]] = {}
        self.functions: dict[str, dict[str, Function]] = {}
        self.imports: list[str] = []
        self.exports: list[str] = []
        self.read()

    def take(self, wanted: str | None = None) -> str:
        token = self.tokens[self.at]
        assert wanted in (None, token), f"{wanted} expected, {token} found"
        self.at += 1
        return token.removeprefix("%")

    def peek(self) -> str:
        return self.tokens[self.at]

    def read(self) -> None:
        self.take("package")
        name = self.take() + self.take(":") + self.take() + self.take("@")
        self.package, self.version = name.removesuffix("@"), self.take()
        self.take(";")
        while self.at < len(self.tokens):
            kind, name = self.take(), self.take()
            self.take("{")
            if kind == "world":
                while self.peek() != "}":
                    (self.imports if self.take() == "import" else self.exports).append(self.take())
                    self.take(";")
            else:
                self.interface(name)
            self.take("}")

    def interface(self, name: str) -> None:
        own = self.types[name] = {}
        functions = self.functions[name] = {}
        while self.peek() != "}":
            word = self.take()
            if word == "use":
                other = self.take().split(".")[0]
                self.take(".") if self.peek() == "." else None
                self.take("{")
                for used in self.until("}"):
                    own[used] = self.types[other][used]
                self.take(";")
            elif word == "type":
                label = self.take()
                self.take("=")
                own[label] = Plain("string", isomorphic=True) if label == "byte-string" else self.type(own)
                if label == "byte-string":
                    self.type(own)
                self.take(";")
            elif word in ("record", "variant", "enum", "flags"):
                label = self.take()
                self.take("{")
                own[label] = self.body(word, own)
            else:
                self.take(":")
                self.take("func")
                self.take("(")
                params = []
                while self.peek() != ")":
                    param = self.take()
                    self.take(":")
                    params.append((param, self.type(own)))
                    if self.peek() == ",":
                        self.take()
                self.take(")")
                result = None
                if self.peek() == "->":
                    self.take()
                    result = self.type(own)
                self.take(";")
                functions[word] = Function(tuple(params), result)

    def until(self, end: str) -> list[str]:
        found = []
        while (token := self.take()) != end:
            if token != ",":
                found.append(token)
        return found

    def body(self, kind: str, own: dict[str, Type]) -> Type:
        if kind in ("enum", "flags"):
            names = tuple(self.until("}"))
            return Enum(names) if kind == "enum" else Flags(names)
        parts: list[Any] = []
        while self.peek() != "}":
            name, type_ = self.take(), None
            if self.peek() == ":":
                self.take()
                type_ = self.type(own)
            elif self.peek() == "(":
                self.take()
                type_ = self.type(own)
                self.take(")")
            parts.append((name, type_))
            if self.peek() == ",":
                self.take()
        self.take("}")
        return Record(tuple(parts)) if kind == "record" else Variant(tuple(parts))

    def type(self, own: dict[str, Type]) -> Type:
        name = self.take()
        if self.peek() != "<":
            return own.get(name) or Plain(name)
        self.take("<")
        parts: list[Type | None] = []
        while self.peek() != ">":
            if self.peek() == "_":
                self.take()
                parts.append(None)
            else:
                parts.append(self.type(own))
            if self.peek() == ",":
                self.take()
        self.take(">")
        first = parts[0]
        match name:
            case "list":
                assert first is not None
                return List(first)
            case "option":
                assert first is not None
                return Option(first)
            case "tuple":
                return Tuple(tuple(part for part in parts if part is not None))
            case "result":
                return Result(first, parts[1])
        raise AssertionError(name)


def isomorphic(type_: Any) -> str:
    """A type with its byte-strings told from its strings, which compare equal."""
    return re.sub(r"Plain\(name='string', isomorphic=True\)", "BYTES", repr(type_))


def test_the_wit_says_what_the_code_says() -> None:
    wit = Wit(WIT.read_text())
    assert (wit.package, wit.version) == (world.PACKAGE, world.VERSION)
    imports = {world.interface(name): wit.functions[name] for name in ["types", *wit.imports]}
    exports = {world.interface(name): wit.functions[name] for name in wit.exports}
    assert isomorphic(imports) == isomorphic({name: dict(found) for name, found in world.IMPORTS.items()})
    assert isomorphic(exports) == isomorphic({name: dict(found) for name, found in world.EXPORTS.items()})


def test_phases_are_the_callbacks() -> None:
    assert [f"on-{phase}" for phase in world.PHASES] == [
        name for name in world.EXPORTS[world.FILTER] if name.startswith("on-") and name != "on-http-response"
    ]


@pytest.mark.parametrize(
    ("guest", "host", "fits"),
    [
        ("0.1.0", "0.1.0", True), ("0.1.0", "0.1.4", True), ("0.1.5", "0.1.4", False), ("0.2.0", "0.1.0", False),
        ("0.1.0", "0.2.0", False), ("1.1.0", "0.1.0", False), ("", "0.1.0", False), ("0.1", "0.1.0", False),
        ("0.1.0-rc", "0.1.0", False),
    ],
)  # fmt: skip
def test_versions(guest: str, host: str, fits: bool) -> None:
    assert compatible(guest, host) is fits


FILTER = "penstock:filter/http-filter@0.1.0"


@pytest.mark.parametrize(
    ("imports", "exports", "problem"),
    [
        ([], [], "the component exports no filter; export penstock:filter/http-filter@0.1.0"),
        ([], ["penstock:filter/http-filter@0.9.0"], "is built for version 0.9.0 of .*; build it for one of: 0.1.0"),
        (["wasi:cli/environment@0.2.6"], [FILTER], "imports what is not penstock:filter/.*wasi:cli.*--stub-wasi"),
        (["env"], [FILTER], "imports what is not penstock:filter/.*: env; build it without them"),
        (["penstock:filter/shell@0.1.0"], [FILTER], "which world 0.1.0 does not have"),
        (["penstock:filter/kv@0.1.7"], [FILTER], "which world 0.1.0 does not have"),
        (["penstock:filter/\x1b[2J@0.1.0"], [FILTER], r"penstock:filter/\\x1b"),
    ],
)
def test_what_is_of_no_world(imports: list[str], exports: list[str], problem: str) -> None:
    with pytest.raises(WorldError, match=problem):
        world_of(imports, exports)


def test_the_newest_world_is_served() -> None:
    assert world_of(["penstock:filter/kv@0.1.0"], ["memory", FILTER]) is worlds.WORLDS[-1]
