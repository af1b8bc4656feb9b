"""The world `penstock:filter/filter@0.1.0`, as wit/filter.wit has it (a test compares them)."""

from typing import Final

from proxy.abi.component.types import Enum, Flags, Function, Interfaces, List, Option, Plain, Record, Result, Tuple, Variant

PACKAGE: Final = "penstock:filter"
VERSION: Final = "0.1.0"

BOOL, U16, U32, U64, S64 = Plain("bool"), Plain("u16"), Plain("u32"), Plain("u64"), Plain("s64")
STRING: Final = Plain("string")
BYTES: Final = Plain("string", isomorphic=True)

FIELD: Final = Tuple((STRING, BYTES))
HEADERS: Final = List(FIELD)
DATA: Final = Variant((("text", STRING), ("binary", BYTES)))
EDIT: Final = Variant((("set", FIELD), ("add", FIELD), ("remove", STRING)))
RESPONSE: Final = Record((("status", U16), ("headers", HEADERS), ("body", Option(DATA)), ("details", STRING)))
ACTION: Final = Variant((("continue", None), ("pause", None), ("respond", RESPONSE)))
HEADERS_RESULT: Final = Record((("edits", List(EDIT)), ("action", ACTION)))
BODY_RESULT: Final = Record((("replace", Option(DATA)), ("action", ACTION)))
HELD_RESULT: Final = Record((("edits", List(EDIT)), ("replace", Option(DATA)), ("action", ACTION)))
PHASES: Final = (
    "request-headers", "request-body", "request-trailers", "response-headers", "response-body", "response-trailers", "log",
)  # fmt: skip
INFO: Final = Record((("name", STRING), ("version", STRING), ("wants", Flags(PHASES))))
LEVEL: Final = Enum(("trace", "debug", "info", "warn", "error", "critical"))
KV_ENTRY: Final = Record((("value", DATA), ("version", U32)))
KV_ERROR: Final = Variant((("conflict", None), ("refused", STRING)))
CALL: Final = Record(
    (("upstream", STRING), ("headers", HEADERS), ("body", Option(DATA)), ("timeout-ms", U32)),
)
ANSWER: Final = Record((("headers", HEADERS), ("body", DATA), ("trailers", HEADERS)))

TEXT, BINARY = 0, 1
SET, ADD, REMOVE = 0, 1, 2
CONTINUES, PAUSES, RESPONDS = 0, 1, 2
CONFLICT, REFUSED = 0, 1


def interface(name: str, version: str = VERSION) -> str:
    return f"{PACKAGE}/{name}@{version}"


STREAM: Final = ("id", U64)
END: Final = ("end-of-stream", BOOL)
TRAILERS: Final = Function((STREAM, ("trailers", HEADERS), ("held", Option(DATA))), HELD_RESULT)
HEAD: Final = Function((STREAM, ("headers", HEADERS), END), HEADERS_RESULT)
BODY: Final = Function((STREAM, ("chunk", DATA), END), BODY_RESULT)

IMPORTS: Final[Interfaces] = {
    interface("types"): {},
    interface("logging"): {"log": Function((("level", LEVEL), ("message", STRING)))},
    interface("config"): {"get": Function((("key", STRING),), Option(STRING))},
    interface("kv"): {
        "get": Function((("key", STRING),), Result(Option(KV_ENTRY), KV_ERROR)),
        "set": Function((("key", STRING), ("value", DATA), ("version", Option(U32))), Result(None, KV_ERROR)),
    },
    interface("http-client"): {"send": Function((("request", CALL),), Result(U32, STRING))},
    interface("metrics"): {
        "counter-add": Function((("name", STRING), ("delta", U64))),
        "gauge-set": Function((("name", STRING), ("value", S64))),
        "histogram-record": Function((("name", STRING), ("value", U64))),
    },
    interface("properties"): {"get": Function((("path", STRING),), Option(STRING))},
    interface("clock"): {"now-ns": Function((), U64), "monotonic-ns": Function((), U64)},
    interface("random"): {"get-u64": Function((), U64)},
}

FILTER: Final = interface("http-filter")
EXPORTS: Final[Interfaces] = {
    FILTER: {
        "metadata": Function((), INFO),
        "configure": Function((("config", STRING),), Result(None, STRING)),
        "on-request-headers": HEAD,
        "on-request-body": BODY,
        "on-request-trailers": TRAILERS,
        "on-response-headers": HEAD,
        "on-response-body": BODY,
        "on-response-trailers": TRAILERS,
        "on-http-response": Function((STREAM, ("call", U32), ("response", Result(ANSWER, STRING))), HELD_RESULT),
        "on-log": Function((STREAM,)),
    }
}
