"""What a reload would change, and what it cannot change."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from proxy.config.model import Config
from proxy.config.problem import KeyPath, Problem, path_text, show

MEND = "restart to change it"


def unchangeable(now: Config, new: Config) -> list[Problem]:
    """The differences that need a restart, each at its place in the new config."""
    found = []

    def need(path: KeyPath, before: object, after: object) -> None:
        if before != after:
            found.append(new.problem(path, f"is {text(before)} in the gateway that runs, and {text(after)} here", MEND))

    need(("listeners",), count(now.listeners, "listener"), count(new.listeners, "listener"))
    for index, (before, after) in enumerate(zip(now.listeners, new.listeners, strict=False)):
        need(("listeners", index, "address"), str(before.address), str(after.address))
        need(("listeners", index, "tls"), "on" if before.tls else "off", "on" if after.tls else "off")
        need(("listeners", index, "trailers"), before.trailers, after.trailers)
    need(("workers",), now.worker_count(), new.worker_count())
    need(("event_loop",), now.event_loop, new.event_loop)
    need(("admin", "address"), address(now), address(new))
    need(("tracing",), now.tracing, new.tracing)
    return found


def address(config: Config) -> str | None:
    return None if config.admin is None else str(config.admin.address)


def count(items: Sequence[object], noun: str) -> str:
    return f"{len(items)} {noun}s" if len(items) != 1 else f"1 {noun}"


def text(value: object) -> str:
    return value if isinstance(value, str) and " " in value else show(value)


def differences(now: Config, new: Config) -> list[str]:
    """A line for each value that is another: `+ filters[cors]: ...`, `- clusters[old]: ...`, `routes[0].timeout: 15s -> 30s`.

    Things with a name are compared by it; secrets show as `***`, and one that has changed as `*** (changed)`.
    """
    lines = list(compare((), now.redacted(), new.redacted(), now, new))
    order = [one.name for one in now.filters if one.name in {other.name for other in new.filters}]
    ordered = [one.name for one in new.filters if one.name in order]
    if order != ordered:
        lines.append(f"filters: order {', '.join(order)} -> {', '.join(ordered)}")
    return lines


def compare(path: tuple[str | int, ...], now: Any, new: Any, real_now: Any, real_new: Any) -> Iterator[str]:
    if isinstance(now, Mapping) and isinstance(new, Mapping):
        for key in [*now, *(key for key in new if key not in now)]:
            step = (*path, str(key))
            if key not in new:
                yield f"- {path_text(step)}: {brief(now[key])}"
            elif key not in now:
                yield f"+ {path_text(step)}: {brief(new[key])}"
            else:
                yield from compare(step, now[key], new[key], part(real_now, key), part(real_new, key))
    elif named(now) and named(new):
        reals = by_name(real_now), by_name(real_new)
        sides = by_name(now), by_name(new)
        for name in [*sides[0], *(name for name in sides[1] if name not in sides[0])]:
            here = f"{path_text(path)}[{name}]"
            if name not in sides[1]:
                yield f"- {here}"
            elif name not in sides[0]:
                yield f"+ {here}"
            else:
                yield from compare((here,), sides[0][name], sides[1][name], reals[0][name], reals[1][name])
    elif isinstance(now, list) and isinstance(new, list) and len(now) == len(new) and any(isinstance(one, dict) for one in now):
        for index in range(len(now)):
            yield from compare((*path, index), now[index], new[index], real_now[index], real_new[index])
    elif now != new:
        yield f"{path_text(path)}: {brief(now)} -> {brief(new)}"
    elif real_now != real_new and not isinstance(now, dict | list):
        yield f"{path_text(path)}: {brief(now)} (changed)"


def named(items: Any) -> bool:
    return isinstance(items, list) and all(isinstance(one, Mapping) and isinstance(one.get("name"), str) for one in items)


def by_name(items: Any) -> dict[str, Any]:
    return {one["name"] if isinstance(one, Mapping) else one.name: one for one in items}


def part(real: Any, key: str) -> Any:
    """The value behind the redacted one."""
    if isinstance(real, Mapping):
        return real.get(key)
    return getattr(real, key, None)


def brief(value: object) -> str:
    shown = value if isinstance(value, str) else repr(value)
    return shown if len(shown) <= 100 else f"{shown[:100]}..."
