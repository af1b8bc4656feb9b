#!/usr/bin/env python3
"""Writes docs/commands.md: every command and option, from the definitions in proxy/cli.

    python docs/build_commands.py             write it
    python docs/build_commands.py --check     fail if what is there is not what would be written

What stands above the marker in the page is written by hand and kept.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "commands.md"
BEGIN = "<!-- From here on written by docs/build_commands.py: change the texts in proxy/cli. -->"


def commands(group: click.Group, before: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its full name, in the order of --help."""
    for name in sorted(group.commands):
        command = group.commands[name]
        if isinstance(command, click.Group):
            yield from commands(command, f"{before} {name}")
        elif not command.hidden:
            yield f"{before} {name}", command


def section(name: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    usage = " ".join([name, *(["[OPTIONS]"] if options else []), *(one.make_metavar(context) for one in arguments)])
    yield f"## {name}\n"
    yield f"`{usage}`\n"
    yield from paragraphs(command.help or "")
    if options:
        yield "| option | default | |\n|---|---|---|"
        yield "\n".join(row(option, context) for option in options) + "\n"


def paragraphs(text: str) -> Iterator[str]:
    """The help; what click keeps as it stands (\\b) is a block of code."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if not paragraph.startswith("\b"):  # click's mark for what is not to be filled
            yield paragraph + "\n"
            continue
        title, *lines = paragraph.removeprefix("\b").strip("\n").splitlines()
        yield f"{title}\n"
        yield "\n".join(["```sh", *(line.removeprefix("  ") for line in lines), "```\n"])


def row(option: click.Option, context: click.Context) -> str:
    names = ", ".join(f"`{name}`" for name in sorted(option.opts, key=len, reverse=True))
    names += "".join(f", `{name}`" for name in option.secondary_opts)
    metavar = "" if option.is_flag or option.count else f" {plain(option.make_metavar(context))}"
    default = ""
    if not option.is_flag and isinstance(option.default, str | int | float | Path) and str(option.default):
        default = f"`{option.default}`".replace("\n", r"\n")
    needed = "must be given. " if option.required else ""
    return f"| {names}{metavar} | {default} | {needed}{plain(option.help or '')} |"


def plain(text: str) -> str:
    """For a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def page(old: str) -> str:
    from proxy.cli.main import main as penstock

    head = old.partition(BEGIN)[0]
    parts = [line for name, command in commands(penstock, "penstock") for line in section(name, command)]
    return f"{head}{BEGIN}\n\n" + "\n".join(parts)


def main(arguments: list[str]) -> int:
    old = PAGE.read_text() if PAGE.exists() else ""
    new = page(old)
    if arguments == ["--check"]:
        if new != old:
            print("docs/commands.md is not what proxy/cli says: python docs/build_commands.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(DOCS.parent))
    sys.exit(main(sys.argv[1:]))
