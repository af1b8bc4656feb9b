"""The shapes of the admin API's answers, JSON Schema 2020-12 as OpenAPI 3.1 has it."""

from typing import Any, Final

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
FLAG: Final[Schema] = {"type": "boolean"}
NUMBER: Final[Schema] = {"type": "number"}
WHOLE: Final[Schema] = {"type": "integer"}
ANY: Final[Schema] = {"type": "object", "additionalProperties": True}


def obj(**properties: Schema) -> Schema:
    """All of these, and no others."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def one_of(**properties: Schema) -> Schema:
    """Any of these, and no others."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


def some(required: Schema, **optional: Schema) -> Schema:
    """An object's schema with more properties that may be missing."""
    return {**required, "properties": {**required["properties"], **optional}}


def array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def mapping(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def const_true() -> Schema:
    return {"const": True}


STATE: Final = some(
    obj(state={"type": "string", "examples": ["ready", "failed", "quarantined"]}, degraded_workers=array(WHOLE)),
    reason=TEXT,
    since=NUMBER,
    rebuilt_in_seconds=NUMBER,
    resume=TEXT,
    on_failure=TEXT,
    memory_bytes=WHOLE,
    canary=ANY,
    shadow=ANY,
    probe=ANY,
)
OWN_STATE: Final = some(obj(state=TEXT), **{key: value for key, value in STATE["properties"].items() if key != "state"})

FIGURES: Final = obj(
    calls=mapping(NUMBER),
    seconds=ref("Percentiles"),
    fuel=ref("Percentiles"),
    failures=mapping(NUMBER),
    limited=mapping(NUMBER),
    host_call_errors=array(obj(function=TEXT, status=TEXT, count=NUMBER)),
    vm_rebuilds=NUMBER,
    memory_bytes=NUMBER,
    log_lines_dropped=NUMBER,
)

STREAM_LINE: Final = obj(
    id=TEXT,
    worker=WHOLE,
    number=WHOLE,
    request_id=TEXT,
    time=NUMBER,
    method=TEXT,
    path=TEXT,
    authority=TEXT,
    client=TEXT,
    route=TEXT,
    cluster=TEXT,
    upstream=TEXT,
    status=WHOLE,
    details=TEXT,
    flags=TEXT,
    answered_by=TEXT,
    running=FLAG,
    duration_seconds=NUMBER,
    upstream_seconds=NUMBER,
    filter_seconds=NUMBER,
    bytes_received=WHOLE,
    bytes_sent=WHOLE,
)

HEADS: Final = obj(before=nullable(array(array(TEXT))), after=nullable(array(array(TEXT))))

STEP: Final = some(
    obj(filter=TEXT, callback=TEXT, at_seconds=NUMBER),
    seconds=NUMBER,
    fuel=WHOLE,
    action=TEXT,
    end_of_stream=FLAG,
    changes=array({"type": "string", "pattern": "^(request|response) [-+] "}),
    body=nullable(some(obj(bytes_before=WHOLE, bytes_after=WHOLE, changed=FLAG), before=TEXT, after=TEXT)),
    reply=nullable(obj(status=WHOLE, details=TEXT, body_bytes=WHOLE)),
    failed=FLAG,
    held_seconds=NUMBER,
)

SIDE: Final = obj(streams=WHOLE, errors_5xx=WHOLE, traps=WHOLE, fuel_per_stream=WHOLE, p50_seconds=NUMBER, p99_seconds=NUMBER)

SCHEMAS: Final[dict[str, Schema]] = {
    "Record": obj(on=FLAG, seconds_left=NUMBER, kept=WHOLE, most=WHOLE, folder=TEXT, by=TEXT),
    "Canary": obj(
        filter=TEXT,
        state={"enum": ["running", "promoted", "rolled_back"]},
        weight={"type": "number", "minimum": 0, "maximum": 1},
        since=NUMBER,
        by=TEXT,
        evidence=array(TEXT),
        wasm=TEXT,
        sha256=TEXT,
        key=TEXT,
        sticky=nullable(ANY),
        config_weight=NUMBER,
        config_differs=FLAG,
        directory=TEXT,
        live=SIDE,
        canary=SIDE,
        next=TEXT,
    ),
    "Error": some(obj(error=TEXT), allowed=array(TEXT)),
    "Level": obj(level={"enum": ["debug", "info", "warning", "error"]}),
    "Drain": obj(draining=FLAG, stopping=FLAG),
    "Percentiles": obj(count=NUMBER, sum=NUMBER, p50=NUMBER, p90=NUMBER, p99=NUMBER),
    "Ready": obj(
        status={"enum": ["ready", "degraded", "draining", "not serving"]},
        serving=WHOLE,
        generation=WHOLE,
        reload=nullable(ref("ReloadOutcome")),
        workers=array(
            obj(
                slot=WHOLE,
                pid=nullable(WHOLE),
                state={"enum": ["dead", "starting", "serving", "draining", "unresponsive"]},
                restarts=WHOLE,
                uptime_seconds=NUMBER,
                filters=mapping(OWN_STATE),
            )
        ),
        filters=mapping(STATE),
    ),
    "ReloadOutcome": obj(
        result={"enum": ["ok", "unchanged", "refused"]},
        trigger={"enum": ["command", "signal", "files", "admin"]},
        generation=WHOLE,
        problems=array(TEXT),
        changes=array(TEXT),
        seconds=NUMBER,
        time=NUMBER,
    ),
    "Reloads": obj(generation=WHOLE, last=nullable(ref("ReloadOutcome")), counts=mapping(WHOLE)),
    "Overview": obj(
        version=TEXT,
        status=TEXT,
        workers=obj(configured=WHOLE, serving=WHOLE),
        uptime_seconds=NUMBER,
        figures=obj(
            requests=NUMBER,
            codes=mapping(NUMBER),
            duration=ref("Percentiles"),
            own=ref("Percentiles"),
            filters=ref("Percentiles"),
            upstream=ref("Percentiles"),
            streams=NUMBER,
            connections=NUMBER,
            upstream_connections=NUMBER,
            rejected=NUMBER,
            memory_bytes=NUMBER,
            vms=NUMBER,
        ),
    ),
    "Route": obj(
        name=TEXT,
        match=ANY,
        cluster=TEXT,
        timeout_seconds=NUMBER,
        idle_timeout_seconds=NUMBER,
        filters=array(TEXT),
        configured_here=array(TEXT),
    ),
    "Cluster": obj(
        name=TEXT,
        tls=FLAG,
        connections=WHOLE,
        max_connections=WHOLE,
        pending=WHOLE,
        endpoints=array(
            obj(
                address=TEXT,
                state={"enum": ["unknown", "up", "down"]},
                since=NUMBER,
                error=TEXT,
                idle_connections=WHOLE,
                failures=WHOLE,
            )
        ),
    ),
    "Filter": some(
        obj(
            name=TEXT,
            state=TEXT,
            degraded_workers=array(WHOLE),
            figures=FIGURES,
            quarantine=nullable(obj(since=NUMBER, worker=WHOLE, reason=TEXT)),
            traps=array(obj(worker=WHOLE, time=NUMBER, callback=TEXT, reason=TEXT, message=TEXT)),
        ),
        **{key: value for key, value in STATE["properties"].items() if key not in ("state", "degraded_workers")},
        kind={"enum": ["proxy-wasm", "component"]},
        abi=TEXT,
        version=TEXT,
        digest=TEXT,
        source=TEXT,
        isolation=TEXT,
        budgets=obj(fuel=WHOLE, memory_bytes=WHOLE, deadline_seconds=NUMBER, limits=ANY, quarantine=nullable(ANY)),
        grants=ANY,
        callbacks=array(TEXT),
    ),
    "LogLine": {
        **some(
            obj(number=WHOLE, worker=nullable(WHOLE), time=TEXT, level=TEXT, event=TEXT, filter=TEXT), message=TEXT, reason=TEXT
        ),
        "additionalProperties": True,
    },
    "Tap": obj(on=FLAG, seconds_left=NUMBER, sample=NUMBER, bodies=FLAG),
    "StreamLine": STREAM_LINE,
    "Stream": some(
        {
            **obj(
                **STREAM_LINE["properties"],
                filters=array(obj(name=TEXT, calls=WHOLE, seconds=NUMBER, fuel=WHOLE, held_seconds=NUMBER, faults=WHOLE)),
                heads=obj(request=HEADS, response=HEADS),
                steps=array(STEP),
                steps_left_out=WHOLE,
            )
        }
    ),
}
