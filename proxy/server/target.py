"""One form of a request's path, for routes, filters and the upstream alike: what Envoy's normalize_path makes of it.

Two readings of one path are how requests get past a route or a filter. So, in this order:

- refused: a backslash, bytes outside ASCII, an encoded NUL, LF or CR;
- octets that need no encoding (RFC 3986 2.3: letters, digits, `-._~`) are decoded, once; all others stay as they are,
  `%2f` and `%5c` too (RFC 3986 6.2.2.2; Envoy's path_with_escaped_slashes_action KEEP_UNCHANGED);
- dot segments are resolved (RFC 3986 5.2.4); empty segments stay (merge_slashes off);
- refused: what some server would take for a dot segment still, `..;`, `..%2f`, `..%5c`; and what decodes to something that
  could be decoded again, `%%32e`.

Queries stay as they are. Fragments, spaces and control characters are refused by the core (abi/core/heads.c). Stricter than
Envoy, which takes a backslash for a slash, resolves `..;` and passes on `..%2f`, `%0a` and `%0d`; laxer in that `"<>^|{}` and
the backquote pass as they are, where Envoy encodes them.
"""

import re

ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")
UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
FORBIDDEN = frozenset("\0\n\r")
AMBIGUOUS = re.compile(r"(?:/|%2f|%5c)\.\.?(?:$|/|;|%2f|%5c)", re.IGNORECASE)


class TargetError(ValueError):
    """A path that can be read in two ways. The text has nothing of it."""


def is_plain(target: str) -> bool:
    """Whether there is nothing to normalise, as is the rule."""
    return "%" not in target and "/." not in target and "\\" not in target and target.isascii()


def normalised(target: str) -> str:
    """A request target, origin-form or absolute-form, with its path in the one form. Raises TargetError."""
    if not target.isascii():
        raise TargetError("the path has bytes outside ASCII")
    path, question, query = target.partition("?")
    origin = ""
    if not path.startswith("/"):
        start = path.find("/", path.find("://") + 3)
        if "://" not in path or start < 0:
            return target
        origin, path = path[:start], path[start:]
    if "\\" in path:
        raise TargetError("the path has a backslash")
    if "%" in path:
        path = ENCODED.sub(decoded, path)
        if ENCODED.sub(decoded, path) != path:
            raise TargetError("the path is encoded twice")
    if "/." in path:
        path = without_dot_segments(path)
    if AMBIGUOUS.search(path):
        raise TargetError("the path has what could be a dot segment")
    return origin + path + question + query


def decoded(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    if character in FORBIDDEN:
        raise TargetError("the path has an encoded control character")
    return character if character in UNRESERVED else match[0]


def without_dot_segments(path: str) -> str:
    """RFC 3986 5.2.4 for a path that begins with a slash."""
    segments = path.split("/")
    last = segments[-1]
    kept: list[str] = []
    for segment in segments[1:]:
        if segment == "..":
            if kept:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    if last in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
