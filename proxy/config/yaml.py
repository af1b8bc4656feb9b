"""YAML read into plain values, with the line of every key and item.

Scalars follow the core schema of YAML 1.2, not PyYAML's 1.1: `off`, `yes`, `12:30` and `2024-01-01` are text, so that
no value of the config changes its type by surprise. Digits may be grouped (`5_000_000`). Mapping keys are always text,
as in JSON. Anchors, aliases and merge keys (`<<`) work; a key written twice is an error.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from proxy.config.problem import KeyPath, Problem, path_text
from proxy.config.secrets import is_text

LARGEST_DOCUMENT = 200_000  # values; a few nested aliases can stand for billions
CORE_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}
NULLS = {"", "~", "null", "Null", "NULL"}
BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
MERGE_TAG = "tag:yaml.org,2002:merge"
MAP_TAG = "tag:yaml.org,2002:map"


class CoreLoader(yaml.SafeLoader):
    """PyYAML's reader with the scalar rules of the YAML 1.2 core schema."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  (PyYAML declares it so; replaced as a whole, never changed in place)


for name, pattern, first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
     list("-+0123456789.")),
    ("merge", r"<<", ["<"]),
):  # fmt: skip
    CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{name}", re.compile(rf"(?:{pattern})\Z"), first)


@dataclass
class Document:
    """One YAML file: its value (mappings, lists, text, numbers, booleans, None) and what is wrong with its syntax."""

    file: str
    value: object = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, path: KeyPath) -> int:
        """The line (from 1) of the key or item, or of the nearest thing around it that is written in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def report(self, path: KeyPath, problem: str, mend: str, line: int | None = None) -> None:
        line = self.line(path) if line is None else line
        self.problems.append(Problem(self.file, line, path_text(path), problem, mend))

    def report_unless_known(self, path: KeyPath, problem: str, mend: str) -> None:
        """Report, unless the place has a problem already, such as a reference without a value: this follows from it."""
        if all(known.path != path_text(path) for known in self.problems):
            self.report(path, problem, mend)


def parse(data: bytes, file: str) -> Document:
    """Read one YAML document. Never raises for bad input: see `Document.problems`."""
    document = Document(file)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        document.report((), "is not UTF-8 text", "save the file as UTF-8", line)
        return document
    try:
        node = yaml.compose(text, Loader=CoreLoader)
        if node is not None:
            Construction(document).start(node)
    except yaml.MarkedYAMLError as error:
        report_syntax(document, error)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        document.report((), "holds a character that YAML does not allow", "remove the control character", line)
    except RecursionError:
        document.report((), "is nested too deeply", "write fewer levels")
    except TooLargeError:
        problem = f"stands for more than {LARGEST_DOCUMENT} values"
        document.report((), problem, "use fewer aliases (*name), or a smaller file")
    return document


CHECK_AROUND = "check indentation, quotes and brackets here and on the line before"
# PyYAML's words (a part of them), ours, and what to write.
SYNTAX = (
    ("'\\t'", "a tab stands where YAML wants blanks", "indent with blanks"),
    ("expected a single document", "holds more than one document", "remove what follows the line ---"),
    ("mapping values are not allowed", 'a second ": " on the line', "put the text in quotes, or check the indentation"),
    ("expected ',' or ']'", "a list in [ ] lacks its ] or a comma", "write [one, two]"),
    ("expected ',' or '}'", "a mapping in { } lacks its } or a comma", "write {key: value, other: value}"),
    ("while scanning a quoted scalar", "a quote is not closed", "close it, or double it if it is part of the text"),
    ("while parsing a block", "the indentation does not fit the lines above", "indent the keys of a section alike"),
    ("could not find expected ':'", "a key has no colon", "write key: value"),
    ("found undefined alias", "", "define it further up with &name, or put the text in quotes if a plain * is meant"),
    ("cannot start any token", "", "put the text in quotes"),
)


def report_syntax(document: Document, error: yaml.MarkedYAMLError) -> None:
    said = f"{error.context or ''} {error.problem or ''}"
    problem, mend = next(((ours, mend) for theirs, ours, mend in SYNTAX if theirs in said), ("", CHECK_AROUND))
    mark = error.context_mark if "quoted scalar" in said else error.problem_mark or error.context_mark
    line = mark.line + 1 if mark is not None else 1
    document.report((), f"not valid YAML: {problem or error.problem or error.context}", mend, line)


class TooLargeError(Exception):
    """The document stands for more values than a config can need."""


@dataclass
class Construction:
    """Values from PyYAML's nodes, noting lines on the way."""

    document: Document
    count: int = 0
    ancestors: set[int] = field(default_factory=set)

    def start(self, node: yaml.Node) -> None:
        self.document.lines[()] = node.start_mark.line + 1
        self.document.value = self.value(node, ())

    def value(self, node: yaml.Node, path: KeyPath) -> object:
        self.count += 1
        if self.count > LARGEST_DOCUMENT:
            raise TooLargeError
        if node.tag not in CORE_TAGS:
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            self.document.report(path, f"the tag {tag} is not supported", "write the value without a tag")
            return None
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        if id(node) in self.ancestors:
            self.document.report(path, "an alias holds itself", "write the value in full")
            return None
        self.ancestors.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, path)
            return [self.item(item, (*path, index)) for index, item in enumerate(node.value)]
        finally:
            self.ancestors.discard(id(node))

    def item(self, node: yaml.Node, path: KeyPath) -> object:
        self.document.lines[path] = node.start_mark.line + 1
        return self.value(node, path)

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        result: dict[str, object] = {}
        written: dict[str, int] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == MERGE_TAG:
                merged.extend(value.value if isinstance(value, yaml.SequenceNode) else [value])
                continue
            if not isinstance(key, yaml.ScalarNode):
                self.document.report(path, "a key is a list or a mapping", "write text as the key", line)
                continue
            name = key.value
            if name in written:
                problem = f'the key "{name}" is here twice (first on line {written[name]})'
                self.document.report((*path, name), problem, "remove one of the two", line)
                continue
            written[name] = line
            self.document.lines[(*path, name)] = line
            result[name] = self.value(value, (*path, name))
        for key, value in self.pairs(merged, path):
            if key not in result:
                self.document.lines[(*path, key)] = value.start_mark.line + 1
                result[key] = self.value(value, (*path, key))
        return result

    def pairs(self, merged: list[yaml.Node], path: KeyPath) -> Iterator[tuple[str, yaml.Node]]:
        """The keys that `<<` brings in: an earlier mapping wins over a later one, and over what it merges itself."""
        for node in merged:
            if not isinstance(node, yaml.MappingNode):
                self.document.report(path, "<< merges something that is not a mapping", "write <<: *name of a mapping")
                continue
            if id(node) in self.ancestors:
                self.document.report(path, "an alias holds itself", "write the value in full")
                continue
            inner: list[yaml.Node] = []
            for key, value in node.value:
                if key.tag == MERGE_TAG:
                    inner.extend(value.value if isinstance(value, yaml.SequenceNode) else [value])
                elif isinstance(key, yaml.ScalarNode):
                    self.count += 1
                    yield key.value, value
            if inner:
                self.ancestors.add(id(node))
                yield from self.pairs(inner, path)
                self.ancestors.discard(id(node))

    def scalar(self, node: yaml.ScalarNode, path: KeyPath) -> object:
        text: str = node.value
        if not is_text(text):
            self.document.report(path, "holds half of a surrogate pair", "write the character itself")
            return None
        kind = node.tag.rpartition(":")[2]
        try:
            match kind:
                case "null" if text in NULLS:
                    return None
                case "bool" if text in BOOLS:
                    return BOOLS[text]
                case "int":
                    return integer(text)
                case "float":
                    return float(re.sub(r"\.(inf|nan)\Z", r"\1", text.lower()))
                case "str" | "merge":
                    return text
        except ValueError:
            pass  # an explicit tag that does not fit its text: reported below
        self.document.report(path, f"the text does not fit its tag !!{kind}", "write the value without a tag")
        return None


def integer(text: str) -> int:
    if text.startswith("0o"):
        return int(text, 8)
    if text.startswith("0x"):
        return int(text, 16)
    if len(text) > 1000:
        raise ValueError("too many digits")
    return int(text.replace("_", ""), 10)
