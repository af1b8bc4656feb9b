#!/usr/bin/env python3
"""Writes docs/errors.md: every problem of a config and every reason why a filter is not loaded, read from the sources.

    python docs/build_errors.py             write it
    python docs/build_errors.py --check     fail if what is there is not what would be written

A problem is two texts, what is wrong and what to write, wherever the code makes one: as arguments of the calls in `CALLS`, as a
tuple or as `problem; mend` in the functions of `TUPLES` and `LINES`. What is put into a text when it is made shows as `…`.
"""

from __future__ import annotations

import ast
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "errors.md"
PROXY = DOCS.parent / "proxy"
BEGIN = "<!-- From here on written by docs/build_errors.py: change the texts in proxy/. -->"
ANY = "…"

CALLS = {
    "WrongValueError": 0, "SecretError": 0, "WorldError": 0, "CompileError": 0, "RegexError": 0,
    "report": 1, "report_unless_known": 1, "problem": 1, "refuse": 1, "LoadProblem": 2,
    "SourceProblem": 1, "FetchError": 0, "SignatureError": 0, "__init__": 0,
}  # fmt: skip
"""Where in a call's arguments the problem is; what to write is the next one."""
TUPLES = {"describe", "describe_unknown_key", "listeners", "clusters", "refusals"}
"""Functions that return or yield (..., problem, mend)."""
LINES = {"check_limits", "structural"}
"""Functions whose texts are `problem; mend`."""
ROWS = {"SYNTAX": ("not valid YAML: ", "CHECK_AROUND")}
"""Constants whose rows end in problem and mend: what stands before the problem, and the mend for what is in no row."""
STARTS = {"start_problem": f"filter {ANY} did not start: {ANY}"}
"""Functions whose problem is an error's own text, and what that is."""
BROKEN = {"ModuleError": 0, "fail": 0}
"""What is wrong with a file's bytes; what to write is always the same."""
REBUILD = "name a WebAssembly module built for proxy-wasm"

SECTIONS = [
    ("The file itself", ("config/yaml.py", "config/load.py")),
    ("References to secrets", ("config/secrets.py",)),
    ("Keys", ("config/validation.py",)),
    ("Values", ("config/fields.py", "config/units.py", "config/section.py", "config/route.py", "config/regex.py")),
    ("Names", ("config/references.py",)),
    ("Certificates and grants", ("server/tls_files.py", "server/check.py")),
    ("Filters from elsewhere", ("config/remote.py", "sources/")),
    ("Loading a filter", ("abi/",)),
    ("Starting a filter", ("server/assembly.py",)),
    ("Compiling a filter", ("wasm/compile.py", "wasm/compiler.py", "wasm/cache.py")),
    ("A damaged or foreign file", ("wasm/",)),
    ("Commands", ("cli/", "server/", "admin/")),
]
CAUSES = {
    "The file itself": "What was read is not YAML, or not a config; or `filters_directory` holds what it cannot use.",
    "References to secrets": "A `${env:NAME}` or `${file:PATH}` leads nowhere. What a secret holds is never shown.",
    "Keys": "A key that does not exist, that has to be there, or whose value is of another kind.",
    "Values": "The key exists, and what is written there is not one of its values.",
    "Names": "Names that must be unique, or must exist: of clusters, filters and routes; addresses.",
    "Certificates and grants": "Files that do not hold what they must, and grants of functions that do not exist.",
    "Filters from elsewhere": "A `wasm:` that is fetched, and signatures.",
    "Loading a filter": "It is WebAssembly, and no filter that is admitted. `penstock filter inspect FILE` tells the same.",
    "Starting a filter": "The filter's own start failed.",
    "Compiling a filter": "The engine's own checks, in a child process with limits.",
    "A damaged or foreign file": f"The bytes cannot be read as a module or a component. What to do is always: {REBUILD}.",
    "Commands": "Of single commands.",
}
MOST_TEXTS = 8


class Entry(NamedTuple):
    """A problem's text and what to write, with `…` for what is filled in."""

    file: str
    problem: str
    mend: str


def entries() -> list[Entry]:
    """All of them, in the order of the sources, each once."""
    found: list[Entry] = []
    for path in sorted(PROXY.rglob("*.py")):
        name = path.relative_to(PROXY).as_posix()
        if not name.startswith("kit/"):
            found += Source(name, ast.parse(path.read_text())).entries()
    return list(dict.fromkeys(found))


class Source:
    """One file."""

    def __init__(self, name: str, tree: ast.Module) -> None:
        self.name = name
        self.tree = tree
        self.constants = assignments(tree.body)

    def entries(self) -> Iterator[Entry]:
        for name, (before, otherwise) in ROWS.items():
            for value in self.constants.get(name, ()):
                rows: list[list[str]] = [list(row[-2:]) for row in ast.literal_eval(value)]
                for problem, mend in [*rows, ["", *rendered(ast.Name(otherwise), self.constants)]]:
                    yield Entry(self.name, before + (problem or ANY), mend)
        for function in (node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            texts = {**self.constants, **assignments(ast.walk(function))}
            for node in ast.walk(function):
                for problem, mend in self.pairs(function.name, node):
                    for one, other in itertools.product(rendered(problem, texts), rendered(mend, texts)):
                        if says(one) and says(other):
                            yield Entry(self.name, one, other)
                if function.name in LINES and (line := added(node)) is not None:
                    for text in rendered(line, texts):
                        problem_text, _, mend_text = text.partition("; ")
                        if says(problem_text):
                            yield Entry(self.name, problem_text, mend_text)

    def pairs(self, function: str, node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
        """The expressions of problem and mend that a node makes."""
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            at = CALLS.get(called)
            if at is not None and len(node.args) > at + 1 and not any(isinstance(arg, ast.Starred) for arg in node.args):
                yield ast.Constant(STARTS[function]) if function in STARTS else node.args[at], node.args[at + 1]
            elif called in BROKEN and len(node.args) == 1:
                yield node.args[0], ast.Constant(REBUILD)
        elif isinstance(node, ast.Dict):
            named = {
                key.value: value for key, value in zip(node.keys, node.values, strict=True) if isinstance(key, ast.Constant)
            }
            if "problem" in named and "mend" in named:
                yield named["problem"], named["mend"]
        elif function in TUPLES and isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load) and len(node.elts) >= 2:
            yield node.elts[-2], node.elts[-1]


def says(text: str) -> bool:
    """It is a sentence about something, not a key or one placeholder."""
    return " " in text.replace(f"{ANY} ", "").strip() or len(text.replace(ANY, "").split()) > 1


def added(node: ast.AST) -> ast.expr | None:
    """What a node adds to a list of lines."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "append":
        return node.args[0] if not isinstance(node.args[0], ast.Name) else None
    if isinstance(node, ast.ListComp):
        return node.elt if isinstance(node.elt, ast.JoinedStr) else None
    return None


def assignments(nodes: Iterator[ast.AST] | list[ast.stmt]) -> dict[str, list[ast.expr]]:
    """What is assigned to each name."""
    found: dict[str, list[ast.expr]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
            if isinstance(target, ast.Name):
                found.setdefault(target.id, []).append(node.value)
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for name, value in zip(target.elts, node.value.elts, strict=False):
                    if isinstance(name, ast.Name):
                        found.setdefault(name.id, []).append(value)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found.setdefault(node.target.id, []).append(node.value)
    return found


def rendered(node: ast.expr, texts: dict[str, list[ast.expr]], depth: int = 0) -> list[str]:
    """The texts that an expression can give."""
    if depth > 4:
        return [ANY]
    match node:
        case ast.Constant(value=str() as text):
            return [text]
        case ast.JoinedStr(values=parts):
            every = [[str(part.value)] if isinstance(part, ast.Constant) else filled(part, texts, depth + 1) for part in parts]
            texts_made = ("".join(one) for one in itertools.islice(itertools.product(*every), MOST_TEXTS))
            return [text.replace(ANY + ANY, ANY) for text in texts_made]
        case ast.IfExp(body=body, orelse=other):
            return [*rendered(body, texts, depth + 1), *rendered(other, texts, depth + 1)]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            both = itertools.product(rendered(left, texts, depth + 1), rendered(right, texts, depth + 1))
            return ["".join(one) for one in both]
        case ast.Name(id=name) if name in texts:
            return [text for value in texts[name] for text in rendered(value, texts, depth + 1)]
    return [ANY]


def filled(part: ast.expr, texts: dict[str, list[ast.expr]], depth: int) -> list[str]:
    """What stands at a {...}: the texts that it can be, if all of them are known."""
    assert isinstance(part, ast.FormattedValue)
    found = rendered(part.value, texts, depth)
    return found if all(ANY not in text for text in found) else [ANY]


def section_of(file: str) -> str:
    for title, places in SECTIONS:
        if file.startswith(places):
            return title
    raise SystemExit(f"build_errors.py: {file} has problems and no section")


def pattern(entry: Entry) -> re.Pattern[str]:
    """What `problem; mend` looks like."""
    parts = f"{entry.problem}; {entry.mend}".split(ANY)
    return re.compile(".+?".join(map(re.escape, parts)).replace(r"\.\+\?", ".+?"), re.DOTALL)


def table() -> Iterator[str]:
    by_section: dict[str, list[Entry]] = {}
    for entry in entries():
        by_section.setdefault(section_of(entry.file), []).append(entry)
    for title, _ in SECTIONS:
        rows = sorted({(plain(one.problem), plain(one.mend)) for one in by_section.get(title, ())}, key=order)
        if not rows:
            continue
        yield f"## {title}\n\n{CAUSES[title]}\n"
        if all(mend == REBUILD for _, mend in rows):
            yield "\n".join(f"- {problem}" for problem, _ in rows) + "\n"
        else:
            yield "| it says | what to write or do |\n|---|---|"
            yield "\n".join(f"| {problem} | {mend} |" for problem, mend in rows) + "\n"


def order(row: tuple[str, str]) -> tuple[str, str]:
    return row[0].lower().lstrip(ANY + " "), row[1]


def plain(text: str) -> str:
    """For a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("\n", " ")


def page(old: str) -> str:
    head = old.partition(BEGIN)[0]
    return f"{head}{BEGIN}\n\n" + "\n".join(table())


def main(arguments: list[str]) -> int:
    old = PAGE.read_text() if PAGE.exists() else ""
    new = page(old)
    if arguments == ["--check"]:
        if new != old:
            print("docs/errors.md is not what proxy/ says: python docs/build_errors.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
