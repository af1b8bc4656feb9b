"""`${env:NAME}` and `${file:PATH}` in config text, and the strings that carried one.

A reference may stand anywhere in a string value, more than once. `$${` writes a plain `${`. In a filter's own config other uses
of `${` are left alone: it may have a template language. Elsewhere they are mistakes: `token: ${TOKEN}` would be a token that
everybody can guess.
"""

import re
from collections.abc import Mapping
from pathlib import Path

REFERENCE = re.compile(r"\$(?:(?P<escape>\$\{)|\{(?:(?P<kind>env|file):(?P<name>[^}]*)(?P<end>\}?))?)")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
MASK = "***"
LARGEST_FILE = 1 << 20  # bytes


class Secret(str):
    """Text that came, wholly or partly, from outside the config file. It works as text, but its repr hides it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{MASK}'"


class SecretError(Exception):
    """A reference can not be resolved. Says which, never what it holds."""

    def __init__(self, problem: str, mend: str) -> None:
        super().__init__(problem, mend)
        self.problem = problem
        self.mend = mend


def resolve(text: str, base: Path, environ: Mapping[str, str], *, template: bool = False) -> str:
    """`text` with every reference replaced; a `Secret` if there was one. Relative files are relative to `base`.

    `template`: other uses of `${` are left alone. Raises SecretError: variable not set, file not readable, not UTF-8, over
    1 MiB, or a malformed reference.
    """
    if "${" not in text:
        return text
    secret = False

    def replace(match: re.Match[str]) -> str:
        nonlocal secret
        if match["escape"] is not None:
            return "${"
        if match["kind"] is None:
            if template:
                return match[0]
            raise SecretError(
                "${ stands before neither env: nor file:", "write ${env:NAME} or ${file:PATH}, or $${ for a plain ${"
            )
        secret = True
        kind, name = match["kind"], match["name"]
        if not match["end"]:
            raise SecretError(f"${{{kind}: is not closed", f"write ${{{kind}:...}} with its closing brace")
        return from_environment(name, environ) if kind == "env" else from_file(name, base)

    resolved = REFERENCE.sub(replace, text)
    return Secret(resolved) if secret else resolved


def from_environment(name: str, environ: Mapping[str, str]) -> str:
    if not NAME.match(name):
        raise SecretError(
            f'"{name}" is not the name of an environment variable', "write letters, digits and _, such as ${env:TOKEN}"
        )
    value = environ.get(name)
    if value is None:
        raise SecretError(
            f"environment variable {name} is not set", f"set it before the start, such as {name}=... penstock run ..."
        )
    if not is_text(value):
        raise SecretError(f"environment variable {name} is not UTF-8 text", "set it to text, or use ${file:PATH}")
    return value


def from_file(name: str, base: Path) -> str:
    """The file's text less one line end at its end, which editors and secret stores add."""
    if not name or "\0" in name:
        raise SecretError("${file:} names no file", "write a path, such as ${file:secrets/token}")
    path = base / name
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise SecretError(f"secret file {name} does not exist", "create it, or correct the path") from None
    except OSError as error:
        raise SecretError(f"secret file {name} can not be read: {error.strerror}", "name a readable file") from None
    if len(data) > LARGEST_FILE:
        raise SecretError(f"secret file {name} is larger than 1 MiB", "name a file that holds one secret")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise SecretError(f"secret file {name} is not UTF-8 text", "store it as text, such as Base64") from None
    return text.removesuffix("\n").removesuffix("\r")


def is_text(value: str) -> bool:
    """Whether the string can be written as UTF-8: surrogates stand for bytes that are not."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def holds_secret(tree: object) -> bool:
    if isinstance(tree, Secret):
        return True
    if isinstance(tree, Mapping):
        return any(holds_secret(item) for item in tree.values())
    if isinstance(tree, list | tuple):
        return any(holds_secret(item) for item in tree)
    return False


def mask(tree: object) -> object:
    """The same tree with `***` for each string that carried a secret."""
    if isinstance(tree, Secret):
        return MASK
    if isinstance(tree, Mapping):
        return {key: mask(item) for key, item in tree.items()}
    if isinstance(tree, list | tuple):
        return [mask(item) for item in tree]
    return tree
