"""Host names and addresses as a filter or the config writes them, brought into the one form that is compared and dialled.

What could be read in two ways is refused, never mended: the form that was checked must be the form that is used.
"""

import ipaddress
import re

import idna

DEFAULT_PORTS = {"http": 80, "https": 443}
MOST_TEXT = 512
"""Characters of `[scheme://]host[:port]`: a name has at most 253 (RFC 1035 section 2.3.4)."""

FORBIDDEN = re.compile(r"[\x00-\x20\x7f\"#%'<>?@\\^`{|}]")
LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
NAME = re.compile(rf"{LABEL}(?:\.{LABEL})*")
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
PORT = re.compile(r"[1-9][0-9]{0,4}")


class HostError(ValueError):
    """The text names no host; `str()` says why."""


def split(text: str) -> tuple[str | None, str, int | None]:
    """`[http[s]://]host[:port][/]` to (scheme, host, port), what is absent as None. Raises HostError.

    The host is as `normalise` gives it; the slash may stand only behind a scheme.
    """
    if len(text) > MOST_TEXT:
        raise HostError("it is too long")
    if FORBIDDEN.search(text):
        raise HostError("it has a character that no host has")
    scheme, separator, rest = text.partition("://")
    found: str | None = None
    if separator:
        found = scheme.lower()
        if found not in DEFAULT_PORTS:
            raise HostError("its scheme is neither http nor https")
        rest = rest.removesuffix("/")
    else:
        rest = text
    if "/" in rest:
        raise HostError("it has a path")
    if rest.startswith("["):
        host, bracket, tail = rest.partition("]")
        host += bracket
        colon, port = tail[:1], tail[1:]
        if tail and colon != ":":
            raise HostError("it has something behind its bracket")
    else:
        host, colon, port = rest.partition(":")
    if not colon:
        return found, normalise(host), None
    if not PORT.fullmatch(port) or int(port) > 65535:
        raise HostError("its port is not a number from 1 to 65535")
    return found, normalise(host), int(port)


def normalise(host: str) -> str:
    """A name in lower case, in its ASCII form (IDNA 2008 with the mapping of UTS 46), without the trailing dot; an address in
    its shortest form, IPv6 without brackets. Raises HostError.

    A name whose last label is a number is an address (WHATWG URL section 3.5) and must be four plain decimals.
    """
    if host.startswith("[") and host.endswith("]"):
        if not re.fullmatch("[0-9A-Fa-f:.]+", host[1:-1]):
            raise HostError("it has no IPv6 address in its brackets")
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise HostError("it has no IPv6 address in its brackets") from None
    name = host.lower()
    if not host.isascii():
        try:
            name = idna.encode(host, uts46=True, std3_rules=True).decode("ascii")
        except UnicodeError:
            raise HostError("it is not an international domain name") from None
    name = name.removesuffix(".")
    if len(name) > 253 or not NAME.fullmatch(name):
        raise HostError("it is not a host")
    if NUMBER.fullmatch(name.rpartition(".")[2]):
        # `host.lower()`, not `name`: circled digits and ideographic dots have become ASCII by now, a trailing dot has gone.
        if literal(host.lower()) is None:
            raise HostError("it is an IPv4 address in an odd spelling")
        return host.lower()
    return name


def literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a normalised host is, None if it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def join(host: str, port: int | None = None) -> str:
    """`host[:port]`, an IPv6 address in brackets."""
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if port is None else f"{bracketed}:{port}"
