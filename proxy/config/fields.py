"""The types of single config values: how the text of each is read, what it must be, how it is shown again.

Values are read in two settings. From a file (pydantic's validation context is a `Place`): durations and sizes are
text with a unit, paths are relative to the file and must exist. From code, as tests build models: numbers are taken as
seconds and bytes, and paths as they stand.
"""

import ipaddress
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, cast, get_args

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from proxy.config import units
from proxy.config.problem import WrongValueError, show
from proxy.config.regex import RegexError, compile_regex
from proxy.config.remote import EXAMPLES, PREFIXES, Remote, parse_remote
from proxy.config.secrets import Secret

REFERENCE_PATTERN = r"\$\{(env|file):[^}]+\}"
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
LABELS = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")

JsonSchema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the config being read stands: relative paths start here."""

    directory: Path


@dataclass(frozen=True, eq=False)
class Scalar:
    """Annotation of a field: `parse(value, place)` makes the typed value, `write` makes its text again.

    `parse` raises WrongValueError.
    """

    parse: Callable[[object, Place | None], Any]
    schema: JsonSchema
    write: Callable[[Any], object] | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def validate(value: object, info: core_schema.ValidationInfo[Any]) -> Any:
            return self.parse(value, cast(Place | None, info.context))

        serialization = core_schema.plain_serializer_function_ser_schema(self.write) if self.write else None
        return core_schema.with_info_plain_validator_function(validate, serialization=serialization)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return dict(self.schema)


def with_reference(pattern: str) -> str:
    """A schema pattern for values of this form, or made with `${env:}` and `${file:}`."""
    return rf"^({pattern})$|{REFERENCE_PATTERN}"


def quantity(
    kind: str,
    example: str,
    parse: Callable[[str], float],
    write: Callable[[Any], str],
    pattern: str,
    least: float,
    most: float | None = None,
    unit: str | None = None,
) -> Scalar:
    """A number with a unit, at least `least` and at most `most` seconds, bytes or events per second.

    `unit` is the one that a bare number most likely lacks.
    """

    def read(value: object, place: Place | None) -> float:
        bare = isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool) and place is not None)
        if not least and value in (0, "0") and not isinstance(value, bool):
            return 0.0
        if unit and value in (0, "0") and bare:
            raise WrongValueError(f"{show(value)} is too small", f"write {write(least)} or more, such as {example}")
        if unit and bare and not isinstance(value, Secret) and re.fullmatch(r"[0-9]{1,18}", str(value)):
            raise WrongValueError(f"{show(value)} has no unit", f"write {value}{unit}")
        if isinstance(value, str):
            amount = parse(value)
        elif isinstance(value, int | float) and not isinstance(value, bool) and (place is None or kind == "rate"):
            amount = value
        elif isinstance(value, int) and not isinstance(value, bool):
            raise WrongValueError(f"{show(value)} has no unit", f"write a {kind} such as {example}")
        else:
            raise WrongValueError(f"{show(value)} is not a {kind}", f"write a {kind} such as {example}")
        if not amount >= least:
            raise WrongValueError(f"{show(value)} is too small", f"write {write(least)} or more, such as {example}")
        if most is not None and amount > most:
            raise WrongValueError(f"{show(value)} is too large", f"write {write(most)} or less, such as {example}")
        return amount

    return Scalar(read, {"type": "string", "pattern": with_reference(pattern), "examples": [example]}, write)


def duration(example: str, least: float = 0.000001) -> Scalar:
    unit = example.lstrip("0123456789.")
    parse, write = units.parse_duration, units.format_duration
    return quantity("duration", example, parse, write, units.DURATION_PATTERN, least, unit=unit)


def size(example: str, least: int = 1, most: int | None = None) -> Scalar:
    return quantity("size", example, units.parse_size, units.format_size, units.SIZE_PATTERN, least, most)


Duration = Annotated[float, duration("10s")]
DurationOrNone = Annotated[float, duration("10s", 0)]
"""0: none."""
Deadline = Annotated[float, duration("25ms")]
Size = Annotated[int, size("16MiB")]
Memory = Annotated[int, size("16MiB", 64 << 10, 4 << 30)]
LineSize = Annotated[int, size("8KiB", 256, 1 << 20)]
Tick = Annotated[float, duration("10ms", 0.001)]
Clock = Annotated[float, duration("1ms", 0.000001)]


def rate() -> Scalar:
    read = quantity("rate", "100/s", units.parse_rate, units.format_rate, units.RATE_PATTERN, 0)
    schema = {"anyOf": [{"type": "integer", "minimum": 0}, read.schema], "examples": ["100/s"]}
    return Scalar(read.parse, schema, units.format_rate)


Rate = Annotated[int, rate()]


def whole(least: int, most: int) -> Scalar:
    """A whole number. A reference may give its digits, so that `workers: ${env:WORKERS}` works."""

    def read(value: object, place: Place | None) -> int:
        number = int(value) if isinstance(value, Secret) and re.fullmatch(r"[0-9]{1,18}", value) else value
        if isinstance(number, bool) or not isinstance(number, int):
            raise WrongValueError(f"{show(value)} is not a whole number", f"write a number from {least} to {most}")
        if not least <= number <= most:
            raise WrongValueError(f"{show(value)} is out of range", f"write a number from {least} to {most}")
        return number

    schema: JsonSchema = {"type": "integer", "minimum": least, "maximum": most}
    return Scalar(read, {"anyOf": [schema, {"type": "string", "pattern": REFERENCE_PATTERN}]})


def read_percent(value: object, place: Place | None) -> float:
    if isinstance(value, float | int) and not isinstance(value, bool) and place is None:
        return float(value)
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,4})?%", value):
        mend = f"write {value}%" if isinstance(value, int | float) and not isinstance(value, bool) else "write one such as 5%"
        raise WrongValueError(f"{show(value)} is not a share", mend)
    share = float(value.removesuffix("%")) / 100
    if share > 1:
        raise WrongValueError(f"{show(value)} is more than all", "write at most 100%")
    return share


def write_percent(share: float) -> str:
    return f"{round(share * 100, 4):g}%"


Percent = Annotated[
    float,
    Scalar(
        read_percent,
        {"type": "string", "pattern": with_reference(r"[0-9]{1,3}(\.[0-9]{1,4})?%"), "examples": ["5%"]},
        write_percent,
    ),
]
"""0 to 1, written in percent."""


def read_factor(value: object, place: Place | None) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 < value <= 1000:
        raise WrongValueError(f"{show(value)} is not a factor", "write a number above 1 and at most 1000, such as 2")
    return float(value)


Factor = Annotated[float, Scalar(read_factor, {"type": "number", "exclusiveMinimum": 1, "maximum": 1000})]


Fuel = Annotated[int, whole(1, 10**15)]
Count = Annotated[int, whole(1, 10**9)]
CountOrNone = Annotated[int, whole(0, 10**9)]


def read_switch(value: object, place: Place | None) -> bool:
    if isinstance(value, Secret) and value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise WrongValueError(f"{show(value)} is not a switch", "write true or false")
    return value


Switch = Annotated[
    bool, Scalar(read_switch, {"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": REFERENCE_PATTERN}]})
]


@dataclass(frozen=True, eq=False)
class Choice:
    """Annotation of a Literal of strings."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        values: tuple[str, ...] = get_args(source)

        def validate(value: object) -> str:
            for allowed in values:
                if value == allowed:
                    return allowed
            near = get_close_matches(value.lower(), values, 1) if isinstance(value, str) else []
            listed = f"{', '.join(values[:-1])} or {values[-1]}"
            raise WrongValueError(f"{show(value)} is not one of its values", f"write {near[0] if near else listed}")

        return core_schema.no_info_plain_validator_function(validate, metadata={"values": values})

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        values = cast(dict[str, Any], schema)["metadata"]["values"]
        return {"anyOf": [{"enum": list(values)}, {"type": "string", "pattern": REFERENCE_PATTERN}]}


QUOTE = "put it in quotes, as it is written there"
"""A number does not know how it was written: 007, 1.10, 64 digits that begin with 0."""


def as_text(value: object, kind: str, example: str) -> str:
    if not isinstance(value, str):
        fix = QUOTE if isinstance(value, int | float) else f"write text, such as {example}"
        raise WrongValueError(f"{show(value)} is not {kind}", fix)
    return value


def matching(kind: str, pattern: str, example: str, rule: str) -> Scalar:
    """Text that matches a pattern as a whole."""
    compiled = re.compile(pattern)

    def read(value: object, place: Place | None) -> str:
        text = as_text(value, kind, example)
        if not compiled.fullmatch(text):
            raise WrongValueError(f"{show(value)} is not {kind}", f"write {rule}, such as {example}")
        return str(text)

    return Scalar(read, {"type": "string", "pattern": with_reference(pattern)})


def text(example: str) -> Scalar:
    return Scalar(lambda value, place: as_text(value, "text", example), {"type": "string"})


Text = Annotated[str, text('"text"')]
NAME_RULE = "letters, digits, '.', '_' and '-'"
NAME_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
Name = Annotated[str, matching("a name", NAME_PATTERN, "service", NAME_RULE)]
Sha256 = Annotated[str, matching("a SHA-256 sum", "[0-9a-f]{64}", "9f86d0...", "the 64 lower-case hex digits of sha256sum")]
Pseudonym = Annotated[
    str,
    matching("a name for the Via header", TOKEN.pattern + "(:[0-9]{1,5})?", "penstock", "a token or host[:port] (RFC 9110)"),
]
Url = Annotated[
    str, matching("a URL", r"https?://[!-~]+", "http://127.0.0.1:4318/v1/traces", "one that begins with http:// or https://")
]
Token = Annotated[
    str,
    matching("a token", r"[!-~]{16,1000}", "${file:secrets/admin-token}", "16 to 1,000 printable characters without spaces"),
]
HostFunction = Annotated[str, matching("a host function", r"[a-z0-9_.*-]+", "proxy_get_*", "its name, * standing for any part")]
VariableName = Annotated[str, matching("a variable's name", r"[A-Za-z_][A-Za-z0-9_]*", "MODE", "letters, digits and _")]


def path_matcher() -> Scalar:
    """A path, or what it begins with. A star is refused: elsewhere it stands for any text, here for itself."""
    plain = matching("a path", r"/[^?#\s]*", "/api/", "a path from its / on, without a query")

    def read(value: object, place: Place | None) -> str:
        found: str = plain.parse(value, place)
        if "*" in found:
            raise WrongValueError(
                f"{show(value)} has a *, which stands for itself alone", "write a prefix such as /api/, or a regex"
            )
        return found

    return Scalar(read, {"type": "string", "pattern": with_reference(r"/[^?#\s*]*")})


PathPrefix = Annotated[str, path_matcher()]


def read_method(value: object, place: Place | None) -> str:
    method = as_text(value, "a method", "GET")
    if not TOKEN.fullmatch(method):
        raise WrongValueError(f"{show(value)} is not a method", "write a method such as GET")
    if method.lower() == method and method.upper() != method:
        raise WrongValueError(
            f"{show(value)} would match no request: methods are case-sensitive", f"write {show_upper(method)}"
        )
    return str(method)


def show_upper(method: str) -> str:
    return "it in capitals" if isinstance(method, Secret) else method.upper()


Method = Annotated[str, Scalar(read_method, {"type": "string", "pattern": with_reference(TOKEN.pattern)})]


def read_header_name(value: object, place: Place | None) -> str:
    name = as_text(value, "a header's name", "x-version")
    if name.startswith(":"):
        raise WrongValueError(f"{show(value)} is not a header's name", "match it with path, prefix, regex, host or methods")
    if not TOKEN.fullmatch(name):
        raise WrongValueError(f"{show(value)} is not a header's name", "write a name such as x-version")
    return name.lower()


HeaderName = Annotated[str, Scalar(read_header_name, {"type": "string", "pattern": f"^{TOKEN.pattern}$"})]


def read_regex(value: object, place: Place | None) -> str:
    pattern = as_text(value, "a regular expression", "/v[0-9]+/.*")
    try:
        compile_regex(pattern)
    except RegexError as error:
        why = "" if isinstance(value, Secret) else f": {error}"
        raise WrongValueError(
            f"{show(value)} is not a regular expression of RE2{why}",
            "write one such as /v[0-9]+/.*, without backreferences and lookaround",
        ) from None
    return str(pattern)


Regex = Annotated[str, Scalar(read_regex, {"type": "string", "format": "regex"})]


class Address(str):
    """`host:port`, with its parts. An IPv6 address stands in brackets; `host` has none."""

    __slots__ = ()

    @property
    def host(self) -> str:
        return self.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.rpartition(":")[2])


def address(least_port: int, example: str) -> Scalar:
    mend = f"write host:port, such as {example}"

    def read(value: object, place: Place | None) -> Address:
        if not isinstance(value, str):
            raise WrongValueError(f"{show(value)} is not an address", mend)
        host, colon, port = value.rpartition(":")
        if not colon or value.endswith("]") or "://" in value:
            raise WrongValueError(f"{show(value)} is not host:port", mend)
        if not re.fullmatch("[0-9]{1,5}", port) or not least_port <= int(port) <= 65535:
            raise WrongValueError(
                f"{show(value)} has no valid port", f"write one from {least_port} to 65535, such as {example}"
            )
        if host.startswith("[") and host.endswith("]"):
            valid = is_ip(host[1:-1], 6)
        elif ":" in host:
            raise WrongValueError(f"{show(value)} is not host:port", "write an IPv6 address in brackets, such as [::1]:8080")
        else:
            valid = is_host(host.lower())
        if not valid:
            raise WrongValueError(f"{show(value)} has no valid host", mend)
        return Address(value)

    return Scalar(read, {"type": "string", "pattern": with_reference(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+):[0-9]{1,5}")}, str)


endpoint_address = address(1, "127.0.0.1:9000")
ListenAddress = Annotated[Address, address(0, "127.0.0.1:8080")]
EndpointAddress = Annotated[Address, endpoint_address]


def parse_address(text: str) -> Address:
    """A host:port whose port is known. Raises WrongValueError."""
    parsed: Address = endpoint_address.parse(text, None)
    return parsed


def is_ip(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def is_host(text: str) -> bool:
    """A DNS name or an IPv4 address. What ends in a number is an address and nothing else (WHATWG URL, section 3.5)."""
    if not LABELS.fullmatch(text) or len(text) > 253:
        return False
    return is_ip(text, 4) if re.fullmatch("[0-9]+|0x[0-9a-f]*", text.rpartition(".")[2]) else True


def read_host_pattern(value: object, place: Place | None) -> str:
    host = as_text(value, "a host", "api.example.com").lower()
    if not host.isascii():
        raise WrongValueError(
            f"{show(value)} is not a host as requests name it", "write its ASCII form, which begins with xn--"
        )
    name = host.removeprefix("*.").removesuffix(".")
    if name.startswith("[") and name.endswith("]") and host == name and is_ip(name[1:-1], 6):
        return host
    if re.search(r":[0-9]+$", name):
        raise WrongValueError(f"{show(value)} has a port, which routing ignores", "write the host alone")
    if not is_host(name):
        raise WrongValueError(f"{show(value)} is not a host", 'write one such as api.example.com or "*.example.com"')
    return host.removesuffix(".")


HostPattern = Annotated[str, Scalar(read_host_pattern, {"type": "string"})]


def read_allowed_host(value: object, place: Place | None) -> str:
    mend = 'write cluster:NAME, [scheme://]host[:port] with an optional leading "*.", or a network such as 10.0.0.0/8'
    entry = as_text(value, "an allowed host", "https://api.example.com")
    if entry.startswith("cluster:"):
        if not re.fullmatch(NAME_PATTERN, entry.removeprefix("cluster:")):
            raise WrongValueError(f"{show(value)} names no cluster", "write cluster:NAME")
        return str(entry)
    scheme, separator, rest = entry.rpartition("://")
    if separator and scheme.lower() not in ("http", "https"):
        raise WrongValueError(f"{show(value)} has another scheme than http and https", mend)
    if not separator and "/" in rest:
        try:
            ipaddress.ip_network(rest)
        except ValueError:
            raise WrongValueError(f"{show(value)} is not a network or has a path", mend) from None
        return str(entry)
    host = rest
    if match := re.fullmatch(r"(.+|\[.+\]):([0-9]{1,5})", rest):
        host, port = match[1], int(match[2])
        if not 1 <= port <= 65535:
            raise WrongValueError(f"{show(value)} has no valid port", "write a port from 1 to 65535")
    host = host.lower().removeprefix("*.").removesuffix(".")
    if host.startswith("[") and host.endswith("]") and is_ip(host[1:-1], 6):
        return str(entry)
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            raise WrongValueError(f"{show(value)} is not a host", mend) from None
    if not is_host(host):
        raise WrongValueError(f"{show(value)} is not an allowed host", mend)
    return str(entry)


AllowedHost = Annotated[str, Scalar(read_allowed_host, {"type": "string"})]


def path(kind: str, directory: bool = False) -> Scalar:
    """A file or directory that exists when read from a config file."""

    def read(value: object, place: Place | None) -> Path:
        if isinstance(value, Path):
            return value
        if not isinstance(value, str) or not value or "\0" in value:
            raise WrongValueError(f"{show(value)} is not a path", f"write the path of {kind}, relative to this file")
        if place is None:
            return Path(value)
        found = place.directory / value
        shown = show(value) if isinstance(value, Secret) else show(str(found))
        mend = f"create it, or write the path of {kind}" if directory else f"write the path of {kind}, relative to this file"
        try:
            mode = found.stat().st_mode
        except FileNotFoundError:
            raise WrongValueError(f"{shown} does not exist", mend) from None
        except OSError as error:
            raise WrongValueError(f"{shown} can not be read: {error.strerror}", mend) from None
        if not (stat.S_ISDIR(mode) if directory else stat.S_ISREG(mode)):
            raise WrongValueError(f"{shown} is not a {'directory' if directory else 'file'}", mend)
        if not os.access(found, os.R_OK):
            raise WrongValueError(f"{shown} can not be read", "make it readable for the gateway's user")
        return shortest(found)

    return Scalar(read, {"type": "string", "minLength": 1}, str)


def shortest(found: Path) -> Path:
    """The path as people would write it, `filters/a.wasm` for `config/../filters/a.wasm`; as it is where that is another file,
    as beyond a symbolic link to a directory."""
    plain = Path(os.path.normpath(found))
    return plain if ".." in found.parts and plain.exists() and plain.samefile(found) else found


wasm_file = path("a .wasm file")
WasmFile = Annotated[Path, wasm_file]


def read_wasm(value: object, place: Place | None) -> Path | Remote:
    if isinstance(value, Remote):
        return value
    if isinstance(value, str) and value.startswith(PREFIXES):
        return parse_remote(value)
    if isinstance(value, str) and re.match("[a-z]+://", value):
        raise WrongValueError(f"{show(value)} is no source of filters", f"write a path, {EXAMPLES}")
    found: Path = wasm_file.parse(value, place)
    return found


WasmSource = Annotated[Path | Remote, Scalar(read_wasm, {"type": "string", "minLength": 1}, str)]


def read_network(value: object, place: Place | None) -> str:
    text = as_text(value, "a network", "10.0.0.0/8")
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise WrongValueError(f"{show(value)} is not a network", "write one such as 10.0.0.0/8") from None


Network = Annotated[str, Scalar(read_network, {"type": "string"})]


def read_public_key(value: object, place: Place | None) -> str:
    mend = "write ed25519: and the 44 characters that penstock filter keygen printed"
    text = as_text(value, "a public key", "ed25519:...")
    if not re.fullmatch(r"ed25519:[A-Za-z0-9+/]{43}=", text):
        raise WrongValueError(f"{show(value)} is not a public key", mend)
    return text


PublicKey = Annotated[str, Scalar(read_public_key, {"type": "string"})]
CertificateFile = Annotated[Path, path("a PEM file with certificates")]
KeyFile = Annotated[Path, path("a PEM file with a private key")]
FiltersDirectory = Annotated[Path, path("a directory with .wasm files", directory=True)]


def read_new_directory(value: object, place: Place | None) -> Path:
    """A directory that need not exist yet."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value or "\0" in value:
        raise WrongValueError(f"{show(value)} is not a path", "write the path of a directory, relative to this file")
    return place.directory / value if place is not None else Path(value)


NewDirectory = Annotated[Path, Scalar(read_new_directory, {"type": "string", "minLength": 1}, str)]


def read_workers(value: object, place: Place | None) -> int | str:
    if isinstance(value, str) and value == "auto":
        return "auto"
    if isinstance(value, str) and not (isinstance(value, Secret) and value.isdigit()):
        raise WrongValueError(f"{show(value)} is not a number of workers", "write a number from 1 to 1024, or auto")
    number: int = whole(1, 1024).parse(value, place)
    return number


Workers = Annotated[
    int | str,
    Scalar(
        read_workers,
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 1024},
                {"const": "auto"},
                {"type": "string", "pattern": REFERENCE_PATTERN},
            ]
        },
    ),
]


def read_filter_config(value: object, place: Place | None) -> object:
    if isinstance(value, bool | int | float):
        raise WrongValueError(f"{show(value)} is neither text, a mapping nor a list", f'write "{show(value)}" if text is meant')
    check_json(value)
    return value


def check_json(tree: object) -> None:
    """JSON has no infinities and no NaN. Raises WrongValueError."""
    if isinstance(tree, float) and (tree != tree or tree in (float("inf"), float("-inf"))):
        raise WrongValueError(
            "holds .inf or .nan, which JSON can not carry", 'write a number, or text in quotes such as ".inf"'
        )
    for item in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        check_json(item)


FilterConfig = Annotated[Any, Scalar(read_filter_config, {"type": ["object", "array", "string", "null"]})]
