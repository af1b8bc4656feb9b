"""Logs: structlog, as JSON lines or for a console, on stderr.

`configure()` once per process, before the first line. Lines go through one `Writer`, which never waits for whoever
reads stderr: what cannot be written is kept up to a cap and then dropped and counted. Whatever a string holds, a line
stays one line of printable characters. The standard library's loggers (asyncio, aiohttp) end up here too.
"""

import logging
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Hashable, MutableMapping
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, Processor

from proxy.telemetry.recent import RecentLines
from proxy.telemetry.writer import Writer

Format = Literal["auto", "json", "console"]

STDLIB_PER_SECOND = 5.0
MAX_LIMITED_KEYS = 1024


class Output:
    """The process's log output: where lines go, in which format, from which level on."""

    def __init__(self) -> None:
        self.writer = Writer()
        self.level = logging.INFO
        self.format: Format = "auto"
        self.json = True
        self.recent = RecentLines()


output = Output()
"""Logging is process-wide by nature (structlog and the standard library both are), so its state is too."""


def configure(level: str = "info", format: Format = "auto", writer: Writer | None = None) -> None:
    """Set up structlog and the standard library. `auto` is console on a terminal, else JSON.

    Raises ValueError for an unknown level.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"unknown log level {level!r}")
    if writer is not None:
        output.writer = writer
    output.level = number
    output.format = format
    output.json = format == "json" or (format == "auto" and not sys.stderr.isatty())
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        add_logger_name,
        render_exception,
        keep_recent,
    ]
    if output.json:
        processors += [named_fields_first, structlog.processors.JSONRenderer(separators=(",", ":"), default=repr)]
    else:
        console = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), sort_keys=False, pad_event_to=0, timestamp_key="time"
        )
        processors += [escape_fields, console]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=LineLogger,
        cache_logger_on_first_use=False,
    )
    output.writer.report = report_dropped
    root = logging.getLogger()
    root.handlers[:] = [StdlibHandler()]
    root.setLevel(max(number, logging.INFO))
    logging.captureWarnings(True)


def set_level(level: str) -> None:
    """Change the level at run time. Raises ValueError for an unknown one."""
    configure(level, output.format)


def level_name() -> str:
    """The level as the config writes it."""
    return logging.getLevelName(output.level).lower()


def get_logger(name: str, **fields: Any) -> Any:
    """A structlog logger; each line carries `logger: name` and the given fields. May be made at import time."""
    return structlog.get_logger(name, **fields)


def report_dropped(count: int) -> None:
    get_logger("log").warning("log lines dropped", count=count)


class LineLogger:
    """structlog's end of the line: one method per level, each given a finished line."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        output.writer.write(line)

    def urgent(self, line: str) -> None:
        output.writer.write(line)
        output.writer.flush()

    debug = info = log = msg
    warning = warn = error = err = critical = fatal = exception = failure = urgent


def add_logger_name(logger: Any, method: str, fields: EventDict) -> EventDict:
    fields["logger"] = logger.name
    return fields


def printable(text: str) -> str:
    """`text` with everything that is not printable (controls, bidi marks, line separators, lone surrogates) escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def escape_fields(logger: Any, method: str, fields: EventDict) -> EventDict:
    """For the console, which shows strings as they are (containers by repr, which escapes)."""
    block = fields.pop("exception", None)
    escaped: dict[str, Any] = {
        printable(key): value if isinstance(value, int | float) else printable(value if isinstance(value, str) else repr(value))
        for key, value in fields.items()
    }
    if block is not None:
        # Indented, so that a newline inside an exception's text cannot pass for a line of the log.
        escaped["exception"] = "\n".join("    " + printable(line) for line in str(block).split("\n"))
    return escaped


def render_exception(logger: Any, method: str, fields: EventDict) -> EventDict:
    """exc_info (True, an exception, a triple) -> the text of the traceback, in the field `exception`."""
    info = fields.pop("exc_info", None)
    if not info:
        return fields
    if isinstance(info, tuple):
        info = info[1]
    error = info if isinstance(info, BaseException) else sys.exc_info()[1]
    if error is not None:
        fields["exception"] = "".join(traceback.format_exception(error)).rstrip()
    return fields


def keep_recent(logger: Any, method: str, fields: EventDict) -> EventDict:
    """The lines about filters stay at hand for the admin pages."""
    if "filter" in fields and fields["event"] != "request":
        output.recent.keep(str(fields["filter"]), fields)
    return fields


def named_fields_first(logger: Any, method: str, fields: EventDict) -> MutableMapping[str, Any]:
    """time, level, event, logger, then the rest as given."""
    ordered: dict[str, Any] = {
        "time": fields.pop("time", None),
        "level": fields.pop("level", method),
        "event": fields.pop("event", ""),
        "logger": fields.pop("logger", ""),
    }
    ordered.update(fields)
    return ordered


class StdlibHandler(logging.Handler):
    """Hands the standard library's records to structlog, each message template at most 5 times a second.

    A client can make aiohttp log a traceback per malformed request; the limit keeps that from flooding the log.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if limited(("stdlib", record.name, str(record.msg)), STDLIB_PER_SECOND):
            return
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = str(record.msg)
        level = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}.get(record.levelno, "info")
        getattr(get_logger(record.name), level)(message, exc_info=record.exc_info)


class Bucket:
    """One key's allowance: `tokens` left at `time`, and what was held back since the last line."""

    __slots__ = ("held_back", "time", "tokens")

    def __init__(self, tokens: float, now: float) -> None:
        self.tokens = tokens
        self.time = now
        self.held_back = 0


buckets: OrderedDict[Hashable, Bucket] = OrderedDict()


def limited(key: Hashable, per_second: float) -> bool:
    """True if this would be one line too many: at most `per_second` a second per key (a burst of at least one).

    Once lines pass again, a line tells how many were held back. Holds the 1,024 keys used last.
    """
    now = time.monotonic()
    burst = max(per_second, 1.0)
    bucket = buckets.get(key)
    if bucket is None:
        if len(buckets) >= MAX_LIMITED_KEYS:
            buckets.popitem(last=False)
        bucket = buckets[key] = Bucket(burst, now)
    else:
        buckets.move_to_end(key)
        bucket.tokens = min(burst, bucket.tokens + (now - bucket.time) * per_second)
        bucket.time = now
    if bucket.tokens < 1.0:
        bucket.held_back += 1
        return True
    bucket.tokens -= 1.0
    if bucket.held_back:
        held_back, bucket.held_back = bucket.held_back, 0
        get_logger("log").warning("log lines held back", key=repr(key), count=held_back)
    return False
