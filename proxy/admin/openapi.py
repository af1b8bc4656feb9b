"""The admin API's description, OpenAPI 3.1: served at /openapi.json, and what the tests hold every answer against.

Objects are closed (additionalProperties: false) and all their properties required, unless said otherwise.
"""

from typing import Any, Final

from proxy.admin.answers import program_version
from proxy.admin.schemas import SCHEMAS, array, const_true, obj, one_of, ref

Json = dict[str, Any]

NAME: Final[Json] = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}, "description": "A filter."}
STREAM: Final[Json] = {
    "name": "id", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[0-9]+-[0-9]+$"},
    "description": "A stream's id: worker and number.",
}  # fmt: skip


def answer(text: str, schema: Json, media: str = "application/json") -> Json:
    return {"description": text, "content": {media: {"schema": schema}}}


def operation(
    name: str, summary: str, ok: Json, *errors: int, body: Json | None = None, parameters: tuple[Json, ...] = ()
) -> Json:
    found: Json = {"operationId": name, "summary": summary, "responses": {"200": ok}}
    if parameters:
        found["parameters"] = list(parameters)
    if body is not None:
        found["requestBody"] = {"required": False, "content": {"application/json": {"schema": body}}}
    for status in (*errors, 401, 403, 421) if body is not None or name.startswith(WRITES) else (*errors, 401, 421):
        found["responses"][str(status)] = answer(ERRORS[status], ref("Error"))
    return found


WRITES: Final = ("put", "post", "delete")
ERRORS: Final = {
    400: "The request's body is wrong.",
    401: "A token is needed (admin.token).",
    403: "A browser asks from another site's page.",
    404: "There is none of that name.",
    421: "Asked by a name that is not among admin.hosts.",
    503: "No worker answers.",
}

TEXT: Final[Json] = {"type": "string"}


def paths() -> Json:
    ready = answer("Traffic is served.", ref("Ready"))
    get_ready = operation(
        "getReady", "Whether traffic should come here; which worker and filter is degraded, since when, why", ready
    )
    get_ready["responses"]["503"] = answer("No worker serves, or the gateway drains.", ref("Ready"))
    post_reload = operation(
        "postReload", "Take the config as it is now; answers when that is over", answer("It serves.", ref("ReloadOutcome")), 503
    )
    post_reload["responses"]["409"] = answer("It is refused; what served goes on.", ref("ReloadOutcome"))
    return {
        "/live": {"get": operation("getLive", "The admin process answers", answer("It does.", obj(status={"const": "live"})))},
        "/ready": {"get": get_ready},
        "/metrics": {
            "get": operation(
                "getMetrics", "Prometheus text, or OpenMetrics if accepted; sums over the workers",
                answer("The metrics.", TEXT, "text/plain"),
            )
        },
        "/overview": {"get": operation("getOverview", "The gateway's figures in short", answer("Figures.", ref("Overview")))},
        "/config": {
            "get": operation(
                "getConfig", "The effective config, secrets left out; YAML if accepted",
                answer("The config.", {"type": "object", "additionalProperties": True}),
            )
        },
        "/routes": {"get": operation("getRoutes", "The routes, in order", answer("Routes.", array(ref("Route"))))},
        "/clusters": {
            "get": operation("getClusters", "Clusters and their endpoints", answer("Clusters.", array(ref("Cluster"))))
        },
        "/filters": {
            "get": operation(
                "getFilters", "The chain: state, grants, budgets and figures of each filter, in order",
                answer("Filters by name.", {"type": "object", "additionalProperties": ref("Filter")}),
            )
        },
        "/filters/{name}": {
            "get": operation("getFilter", "One filter", answer("The filter.", ref("Filter")), 404, parameters=(NAME,))
        },
        "/filters/{name}/logs": {
            "get": operation(
                "getFilterLogs", "The last lines about a filter, of all processes, oldest first",
                answer("Lines.", array(ref("LogLine"))), 404, parameters=(NAME,),
            )
        },
        "/filters/{name}/quarantine": {
            "post": operation(
                "postQuarantine", "Take a filter out, in all workers, until it is resumed",
                answer("It is out.", obj(filter=TEXT, quarantined=const_true())), 400, 404, 503,
                body=one_of(reason={"type": "string", "minLength": 1, "maxLength": 200}), parameters=(NAME,),
            )
        },
        "/filters/{name}/resume": {
            "post": operation(
                "postResume", "Let a filter in again, in all workers",
                answer("It is in.", obj(filter=TEXT, was_quarantined={"type": "boolean"})), 404, parameters=(NAME,),
            )
        },
        "/canaries": {
            "get": operation(
                "getCanaries", "The canaries by filter: what holds, both sides' figures, what to write into the config",
                answer("Canaries.", {"type": "object", "additionalProperties": ref("Canary")}),
            )
        },
        "/canaries/{name}": {
            "get": operation("getCanary", "One canary", answer("The canary.", ref("Canary")), 404, parameters=(NAME,)),
            "put": operation(
                "putCanary", "Set its weight: 0 to 1, or a share such as 10%; one that was rolled back begins again",
                answer("The canary now.", ref("Canary")), 400, 404, parameters=(NAME,),
                body=one_of(weight={"type": ["number", "string"]}, by=TEXT),
            ),
        },
        "/canaries/{name}/promote": {
            "post": operation(
                "postPromote", "Let it serve everybody, until the config says so itself",
                answer("The canary now.", ref("Canary")), 400, 404, body=one_of(by=TEXT), parameters=(NAME,),
            )
        },
        "/canaries/{name}/rollback": {
            "post": operation(
                "postRollback", "Let nobody meet it any more",
                answer("The canary now.", ref("Canary")), 400, 404, body=one_of(by=TEXT, reason=TEXT), parameters=(NAME,),
            )
        },
        "/record": {
            "get": operation("getRecord", "Whether streams are recorded, and where they lie", answer("It.", ref("Record"))),
            "put": operation(
                "putRecord", "Record the streams that fulfil all of these, for so many seconds (300)",
                answer("What holds now.", ref("Record")), 400,
                body=one_of(
                    headers={"type": "object", "additionalProperties": TEXT}, routes=array(TEXT), errors={"type": "boolean"},
                    sample={"type": "number", "minimum": 0, "maximum": 1}, body={"type": "integer", "minimum": 0},
                    most={"type": "integer", "minimum": 1, "maximum": 10_000},
                    seconds={"type": "number", "minimum": 1, "maximum": 86_400}, by=TEXT,
                ),
            ),
            "delete": operation("deleteRecord", "Record no more", answer("What holds now.", ref("Record"))),
        },
        "/log": {
            "get": operation("getLog", "The log level", answer("The level.", ref("Level"))),
            "put": operation(
                "putLog", "Set the log level of all processes, their filters' too",
                answer("The level now.", ref("Level")), 400, body=ref("Level"),
            ),
        },
        "/reload": {
            "get": operation("getReload", "The generation that serves, and the last reload", answer("It.", ref("Reloads"))),
            "post": post_reload,
        },
        "/drain": {
            "post": operation(
                "postDrain", "/ready says 503, so that traffic goes elsewhere; with stop: as by SIGTERM",
                answer("It drains.", ref("Drain")), 400, body=one_of(stop={"type": "boolean"}),
            ),
            "delete": operation("deleteDrain", "/ready tells the workers' state again", answer("Done.", ref("Drain"))),
        },
        "/tap": {
            "get": operation("getTap", "Whether recent streams are kept", answer("The tap.", ref("Tap"))),
            "put": operation(
                "putTap", "Keep recent streams for so many seconds from now (300)",
                answer("The tap now.", ref("Tap")), 400,
                body=one_of(
                    seconds={"type": "number", "minimum": 1, "maximum": 3600},
                    sample={"type": "number", "minimum": 0.0001, "maximum": 1},
                    bodies={"type": "boolean"},
                ),
            ),
            "delete": operation("deleteTap", "Keep no more streams", answer("The tap now.", ref("Tap"))),
        },
        "/streams": {
            "get": operation(
                "getStreams", "The streams that the tap has kept, newest first, 200 at most",
                answer("Streams.", obj(tap=ref("Tap"), streams=array(ref("StreamLine")))),
            )
        },
        "/streams/{id}": {
            "get": operation(
                "getStream", "What each filter did to one stream",
                answer("The stream.", ref("Stream")), 404, parameters=(STREAM,),
            )
        },
    }  # fmt: skip


def description() -> Json:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Penstock admin API",
            "version": program_version(),
            "description": "Figures are sums over the workers. Seconds, bytes; times are seconds since 1970.",
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {}],
        "paths": {
            "/openapi.json": {
                "get": operation(
                    "getOpenapi", "This description", answer("OpenAPI 3.1.", {"type": "object", "additionalProperties": True})
                )
            },
            **paths(),
        },
        "components": {"schemas": SCHEMAS, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def index() -> dict[str, dict[str, str]]:
    """Path to method to what it does: for whoever asks / without a browser."""
    return {
        path: {method.upper(): operation["summary"] for method, operation in methods.items()}
        for path, methods in description()["paths"].items()
    }
