"""Durations (`250ms`), sizes (`16MiB`) and rates (`100/s`) as config writes them."""

import re
from decimal import Decimal

from proxy.config.problem import WrongValueError, show
from proxy.config.secrets import Secret

DURATION_PATTERN = r"[0-9]+(\.[0-9]+)?(us|ms|s|m|h)"
SIZE_PATTERN = r"[0-9]+(\.[0-9]+)?(B|KiB|MiB|GiB)"
RATE_PATTERN = r"[0-9]+/s"

SECONDS = {"h": Decimal(3600), "m": Decimal(60), "s": Decimal(1), "ms": Decimal("0.001"), "us": Decimal("0.000001")}
BYTES = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}
# What people write instead, and what they mean by it.
SIZE_ALIASES = {"": "B", "b": "B", "k": "KiB", "kb": "KiB", "m": "MiB", "mb": "MiB", "g": "GiB", "gb": "GiB"}
SIZE_ALIASES |= {"kib": "KiB", "mib": "MiB", "gib": "GiB", "bytes": "B"}
DURATION_ALIASES = {"sec": "s", "secs": "s", "second": "s", "seconds": "s", "min": "m", "mins": "m", "minutes": "m"}
DURATION_ALIASES |= {"hour": "h", "hours": "h", "msec": "ms", "µs": "us", "": "s", "minute": "m"}
LONGEST = 365 * 24 * 3600.0  # seconds: longer ones are typing errors, and timers can not hold any length
LARGEST = 1 << 40  # bytes

WRITTEN = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,40})?)\s*([A-Za-zµ]*)")


def parse_duration(text: str) -> float:
    """Seconds. Raises WrongValueError: no unit, unknown unit, no number, over a year."""
    number, unit = split(text, SECONDS, DURATION_ALIASES, "a duration", "us, ms, s, m or h, such as 250ms, 10s or 5m")
    seconds = float(number * SECONDS[unit])
    if seconds > LONGEST:
        raise WrongValueError(f"{show(text)} is longer than a year", "write a duration of at most 8760h")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads as the same number."""
    exact = Decimal(repr(seconds))
    for unit, worth in SECONDS.items():
        count = exact / worth
        if count == count.to_integral_value() and (count or unit == "s"):
            return f"{count:.0f}{unit}"
    return f"{exact:f}s"


def parse_size(text: str) -> int:
    """Bytes. Raises WrongValueError: no unit, unknown unit, no number, a part of a byte, over 1 TiB."""
    number, unit = split(text, BYTES, SIZE_ALIASES, "a size", "B, KiB, MiB or GiB, such as 8KiB or 16MiB")
    size = number * BYTES[unit]
    if size != size.to_integral_value():
        raise WrongValueError(f"{show(text)} is not a whole number of bytes", "write a size such as 8KiB or 16MiB")
    if size > LARGEST:
        raise WrongValueError(f"{show(text)} is more than 1024GiB", "write a smaller size")
    return int(size)


def format_size(size: int) -> str:
    """The text with the largest unit that divides the size."""
    for unit, worth in BYTES.items():
        if size and size % worth == 0:
            return f"{size // worth}{unit}"
    return f"{size}B"


def parse_rate(text: str) -> int:
    """Events per second. Raises WrongValueError if it is not `NUMBER/s`."""
    if not re.fullmatch(r"[0-9]{1,12}/s", text):
        raise WrongValueError(f"{show(text)} is not a rate", "write a whole number per second, such as 100/s")
    return int(text.removesuffix("/s"))


def format_rate(rate: int) -> str:
    return f"{rate}/s"


def split(
    text: str, units: dict[str, Decimal] | dict[str, int], aliases: dict[str, str], kind: str, units_text: str
) -> tuple[Decimal, str]:
    match = WRITTEN.fullmatch(text.strip())
    if match is None:
        raise WrongValueError(f"{show(text)} is not {kind}", f"write a number with a unit {units_text}")
    number, unit = match[1], match[2]
    if unit in units and number + unit == text:
        return Decimal(number), unit
    problem = f"{show(text)} has no unit" if not unit else f"{show(text)} has an unknown unit"
    if unit in units:
        problem = f"{show(text)} has a blank in it"
    meant = None if isinstance(text, Secret) else unit if unit in units else aliases.get(unit.lower())
    raise WrongValueError(problem, f"write {number}{meant}" if meant else f"write a number with a unit {units_text}")
