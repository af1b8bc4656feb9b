"""The micro-benchmarks of this tree against those of another commit, with the same interpreter, in turn.

The commit is checked out into a temporary git worktree. Both trees are measured with the benchmarks of this one, so that
the same work is compared; what can't run there, since an interface has changed, is measured with the commit's own.
Each figure is the least median of the rounds, since what disturbs a run only ever makes it longer.

\b
Example:
  python -m benchmarks.micro.compare HEAD~1
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
MICRO = Path("benchmarks/micro")
Medians = Mapping[str, float]


@click.command(help=__doc__)
@click.argument("ref")
@click.option("--rounds", type=click.IntRange(1, 20), default=2, show_default=True, help="How often each tree is measured.")
@click.option("--select", default="", help="Only benchmarks whose names match, as pytest's -k.")
def main(ref: str, rounds: int, select: str) -> None:
    if importlib.util.find_spec("pytest_benchmark") is None:
        raise click.ClickException("pytest-benchmark is not installed: pip install -e '.[bench]'")
    found = subprocess.run(
        ["git", "rev-parse", "--verify", f"{ref}^{{commit}}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if found.returncode:
        raise click.ClickException(f"{ref} is not a commit of this repository; write one such as HEAD~1, a tag or a hash")
    commit = found.stdout.strip()
    with tempfile.TemporaryDirectory(prefix="penstock-ref-") as directory:
        tree = Path(directory) / "tree"
        git("worktree", "add", "--detach", "--quiet", str(tree), commit)
        try:
            theirs, mine = measure(tree, Path(directory), rounds, select)
        finally:
            git("worktree", "remove", "--force", str(tree))
    click.echo("\n".join(table(theirs, mine, f"{ref} ({commit[:9]})")))


def measure(tree: Path, directory: Path, rounds: int, select: str) -> tuple[Medians, Medians]:
    """Medians in seconds by benchmark: of the commit's tree, of this one."""
    own = (tree / MICRO).exists()
    if own:
        shutil.move(tree / MICRO, directory / "own")
    install(ROOT / MICRO, tree)
    # The filters that the benchmarks run are the same too.
    shutil.copytree(ROOT / "benchmarks/filters", tree / "benchmarks/filters", dirs_exist_ok=True)
    theirs: dict[str, float] = {}
    mine: dict[str, float] = {}
    for number in range(rounds):
        click.echo(f"round {number + 1} of {rounds}", err=True)
        for root, kept in ((tree, theirs), (ROOT, mine)):
            keep_least(kept, benchmarked(root, directory / "result.json", select))
    if own and mine.keys() - theirs.keys():
        install(directory / "own", tree)
        missing = {
            name: value for name, value in benchmarked(tree, directory / "result.json", select).items() if name not in theirs
        }
        keep_least(theirs, missing)
    return theirs, mine


def install(source: Path, tree: Path) -> None:
    """The benchmarks of `source` as those of a tree; it may be too old to have a package for them."""
    shutil.rmtree(tree / MICRO, ignore_errors=True)
    shutil.copytree(source, tree / MICRO, ignore=shutil.ignore_patterns("__pycache__"))
    (tree / MICRO.parent / "__init__.py").touch()


def keep_least(kept: dict[str, float], found: Medians) -> None:
    for name, value in found.items():
        kept[name] = min(value, kept.get(name, value))


def benchmarked(root: Path, output: Path, select: str) -> Medians:
    """Runs the benchmarks in a tree; what fails there is not among the medians."""
    output.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(MICRO),
        "-q",
        "--no-header",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(root),
    ]
    command += ["--benchmark-json", str(output), "--benchmark-max-time", "0.5", *(["-k", select] if select else [])]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if not output.exists() or not output.stat().st_size:
        raise click.ClickException(f"the benchmarks did not run in {root}:\n{(run.stdout + run.stderr)[-2000:]}")
    return {one["name"]: one["stats"]["median"] for one in json.loads(output.read_text())["benchmarks"]}


def table(theirs: Medians, mine: Medians, name: str) -> list[str]:
    """A line for each benchmark, in microseconds; below 1 this tree is faster."""
    width = max([len(one) for one in (*theirs, *mine)], default=9)
    out = [f"{'benchmark':<{width}}  {name:>24}  {'this tree':>12}  ratio"]
    for one in dict.fromkeys((*mine, *theirs)):
        there, here = theirs.get(one), mine.get(one)
        ratio = f"{here / there:.2f}" if here is not None and there else "-"
        out.append(f"{one:<{width}}  {microseconds(there):>24}  {microseconds(here):>12}  {ratio:>5}")
    return out


def microseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e6:.2f} us"


def git(*arguments: str) -> None:
    """Raises ClickException with what git said."""
    run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        raise click.ClickException(f"git {arguments[0]}: {run.stderr.strip()}")


if __name__ == "__main__":
    main()
