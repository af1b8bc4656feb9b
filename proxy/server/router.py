"""Which route takes a request: pure, compiled once when the config is loaded.

The first route that matches wins. A route matches if all of its conditions hold:

- `path`: the path, up to a query or fragment, is this text. `prefix`: it begins with this text, letter for letter, as
  Envoy's prefix does: `/api` takes `/api`, `/api/x` and `/apix` too; write `/api/` to end at the slash. `regex`: the
  expression (RE2) matches the whole path, as Envoy's safe_regex does. All three are case-sensitive and decode nothing. Paths
  without a leading slash (the `*` of OPTIONS, the authority of CONNECT) match no prefix.
- `host`: the authority without its port, in any case. `*.example.com` takes subdomains at any depth, but not
  example.com.
- `methods`: one of them, case-sensitive (RFC 9110 section 9.1).
- `headers`: each holds. `exact` and `regex` compare the whole value; `present: false` wants the header absent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from proxy.config.regex import compile_regex
from proxy.config.route import HeaderMatch, Match, Route

HeaderLookup = Callable[[str], str | None]
"""Gives a request header's value by its lower-case name, or None. Repeated headers come joined with a comma."""
Condition = Callable[[str, str, HeaderLookup], bool]
"""Whether a method, a host (lower case, no port) and the headers fit."""


@dataclass(frozen=True, slots=True)
class CompiledRoute:
    route: Route
    takes_path: Callable[[str], object]
    conditions: tuple[Condition, ...]


class Router:
    """The routes of a config, ready to match."""

    __slots__ = ("catch_all", "routes")

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(CompiledRoute(route, compile_path(route.match), conditions(route.match)) for route in routes)
        first = self.routes[0] if self.routes else None
        # The most common config is one route for everything: it needs neither the host nor the query cut off.
        self.catch_all = first.route if first and first.route.match.prefix == "/" and not first.conditions else None

    def match(self, method: str, authority: str, path: str, headers: HeaderLookup) -> Route | None:
        """The first route that takes the request, or None. `path` may carry a query; `authority` may carry a port."""
        if self.catch_all is not None and path.startswith("/"):
            return self.catch_all
        path = bare_path(path)
        host: str | None = None
        for compiled in self.routes:
            if not compiled.takes_path(path):
                continue
            if compiled.conditions:
                if host is None:
                    host = bare_host(authority)
                if not all(condition(method, host, headers) for condition in compiled.conditions):
                    continue
            return compiled.route
        return None


def bare_path(path: str) -> str:
    """The path without query and fragment, as Envoy's path matchers see it."""
    if "?" in path:
        path = path[: path.index("?")]
    if "#" in path:
        path = path[: path.index("#")]
    return path


def bare_host(authority: str) -> str:
    """The host in lower case without port and without the root's trailing dot; IPv6 addresses keep their brackets."""
    host, colon, port = authority.rpartition(":")
    if not colon or not (port == "" or port.isdecimal()) or (":" in host and not host.endswith("]")):
        host = authority
    return host.lower().removesuffix(".")


def compile_path(match: Match) -> Callable[[str], object]:
    if match.path is not None:
        return match.path.__eq__
    if match.prefix is not None:
        prefix = match.prefix
        return lambda path: path.startswith(prefix)
    if match.regex is not None:
        return compile_regex(match.regex)
    raise ValueError("a match without path, prefix and regex")


def conditions(match: Match) -> tuple[Condition, ...]:
    """The conditions besides the path, the cheapest first."""
    found: list[Condition] = []
    if match.methods is not None:
        found.append(method_condition(frozenset(match.methods)))
    if match.host is not None:
        found.append(host_condition(match.host))
    found.extend(header_condition(name, condition) for name, condition in match.headers.items())
    return tuple(found)


def method_condition(methods: frozenset[str]) -> Condition:
    return lambda method, host, headers: method in methods


def host_condition(pattern: str) -> Condition:
    if pattern.startswith("*."):
        suffix = pattern[1:]
        return lambda method, host, headers: len(host) > len(suffix) and host.endswith(suffix)
    return lambda method, host, headers: host == pattern


def header_condition(name: str, match: HeaderMatch) -> Condition:
    if match.regex is not None:
        matches = compile_regex(match.regex)
        return lambda method, host, headers: (value := headers(name)) is not None and matches(value) is not None
    if match.present is not None:
        present = match.present
        return lambda method, host, headers: (headers(name) is not None) is present
    exact = match.exact
    return lambda method, host, headers: headers(name) == exact
