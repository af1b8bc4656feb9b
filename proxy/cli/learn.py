"""What filters need: the least `capabilities:` block, from what they tried while they ran."""

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

import click

if TYPE_CHECKING:
    from proxy.config.model import Config

ENTRY = re.compile(r'allowed_hosts: \["([^"]+)"\]')


@dataclass(slots=True)
class Denials:
    """What one filter was refused. `never`: calls that no entry would allow, with the reason."""

    hosts: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)
    never: set[str] = field(default_factory=set)


def hear(line: str, denials: dict[str, Denials]) -> None:
    """Take what a line of the gateway's log says of a denial."""
    try:
        said = json.loads(line)
        event, name = said["event"], str(said["filter"])
    except (ValueError, TypeError, KeyError):
        return
    if event == "host_call_denied":
        denials.setdefault(name, Denials()).functions.add(str(said["function"]))
    elif event == "callout denied":
        match = ENTRY.search(str(said.get("to_allow") or ""))
        found = denials.setdefault(name, Denials())
        if match is not None:
            found.hosts.add(match[1])
        else:
            found.never.add(str(said.get("reason")))


def learned(config: "Config", denials: Mapping[str, Denials]) -> Iterator[str]:
    """A block for each filter: what it has, what it was denied, and as host functions those that its module imports."""
    from proxy.config.filter import with_versions
    from proxy.sources.asks import imports_of
    from proxy.sources.news import at_hand

    for filter_, module in zip(with_versions(config.filters), at_hand(config), strict=True):
        found = denials.get(filter_.name, Denials())
        given = filter_.capabilities
        functions = {*(given.host_functions or ()), *found.functions}
        if given.host_functions is None and not isinstance(module, list):
            functions |= set(imports_of(module.data))
        hosts = [*given.allowed_hosts, *sorted(found.hosts - set(given.allowed_hosts))]
        denied = len(found.hosts) + len(found.functions) + len(found.never)
        yield f"# {filter_.name}: {denied or 'nothing'} denied"
        yield from (f"# {reason}; no entry allows that" for reason in sorted(found.never))
        yield from block(hosts, sorted(functions))


def block(hosts: list[str], functions: list[str]) -> Iterator[str]:
    """`capabilities:` as it stands in a filter's entry."""
    yield "capabilities:"
    yield f"  allowed_hosts: [{', '.join(map(json.dumps, hosts))}]"
    yield "  host_functions:" if functions else "  host_functions: []"
    yield from (f"    - {name}" if re.fullmatch("[a-z0-9_]+", name) else f"    - {json.dumps(name)}" for name in functions)


def run(config: "Config", serve: "Callable[[Config], int]") -> int:
    """Serve until told to stop, with the log as JSON on standard error as it comes, then print the blocks. What is denied stays
    denied. Gives the gateway's exit status."""
    from proxy.config.operation import Log

    level = "warning" if config.log.level == "error" else config.log.level
    logged = config.model_copy(update={"log": Log(level=level, format="json", access=config.log.access)})
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        os.close(read_end)
        os.dup2(write_end, 2)
        os.close(write_end)
        status = 1
        try:
            status = serve(logged)
            sys.stdout.flush()
        finally:
            os._exit(status)
    os.close(write_end)
    # The gateway decides when to end: a terminal's Ctrl-C reaches it too, a SIGTERM meant for us is passed on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    denials: dict[str, Denials] = {}
    with os.fdopen(read_end, encoding="utf-8", errors="replace") as lines:
        follow(lines, denials)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    click.echo("\n".join(learned(config, denials)))
    return status


def follow(lines: IO[str], denials: dict[str, Denials]) -> None:
    for line in lines:
        sys.stderr.write(line)
        sys.stderr.flush()
        hear(line, denials)
