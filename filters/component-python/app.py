"""A token check as a component in Python: without the token 401, with it the request goes on with x-client, and the service's
JSON gets a field. Configured with {"token": "...", "client": "..."}.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import config, logging
from wit_world.imports.types import (
    Action_Continue,
    Action_Pause,
    Action_Respond,
    BodyResult,
    Data,
    Data_Text,
    FilterInfo,
    HeaderEdit_Remove,
    HeaderEdit_Set,
    HeadersResult,
    HeldResult,
    LocalResponse,
    Phases,
)

Headers = list[tuple[str, str]]
UNCHANGED = Action_Continue()

wanted = ""
client = "unknown"
"""An instance has one configuration for life."""

answering_json: set[int] = set()
"""Streams whose answer is JSON: instances serve many at once."""


def header(headers: Headers, name: str) -> str | None:
    return next((value for key, value in headers if key == name), None)


def is_json(headers: Headers) -> bool:
    return (header(headers, "content-type") or "").startswith("application/json")


class HttpFilter(exports.HttpFilter):
    def metadata(self) -> FilterInfo:
        wants = Phases.REQUEST_HEADERS | Phases.RESPONSE_HEADERS | Phases.RESPONSE_BODY
        return FilterInfo("token-check", "1.0.0", wants)

    def configure(self, text: str) -> None:
        global wanted, client
        token = config.get("token")
        if not token:
            raise Err("the config has no token")
        wanted = f"Bearer {token}"
        client = config.get("client") or client

    def on_request_headers(self, id: int, headers: Headers, end_of_stream: bool) -> HeadersResult:
        if header(headers, "authorization") != wanted:
            logging.log(logging.Level.INFO, f"refused {header(headers, ':path')}")
            answer = LocalResponse(401, [("www-authenticate", "Bearer")], Data_Text("no valid token"), "no_token")
            return HeadersResult([], Action_Respond(answer))
        return HeadersResult([HeaderEdit_Remove("authorization"), HeaderEdit_Set(("x-client", client))], UNCHANGED)

    def on_response_headers(self, id: int, headers: Headers, end_of_stream: bool) -> HeadersResult:
        if not is_json(headers):
            return HeadersResult([], UNCHANGED)
        answering_json.add(id)
        return HeadersResult([HeaderEdit_Remove("content-length")], UNCHANGED)  # the body's length will change

    def on_response_body(self, id: int, chunk: Data, end_of_stream: bool) -> BodyResult:
        if id not in answering_json:
            return BodyResult(None, UNCHANGED)
        if not end_of_stream:
            return BodyResult(None, Action_Pause())
        answering_json.discard(id)
        try:
            found = json.loads(chunk.value)
        except ValueError:
            return BodyResult(None, UNCHANGED)
        if not isinstance(found, dict):
            return BodyResult(None, UNCHANGED)
        return BodyResult(Data_Text(json.dumps({**found, "checked": True}, separators=(",", ":"))), UNCHANGED)

    def on_request_body(self, id: int, chunk: Data, end_of_stream: bool) -> BodyResult:
        return BodyResult(None, UNCHANGED)

    def on_request_trailers(self, id: int, trailers: Headers, held: Data | None) -> HeldResult:
        return HeldResult([], None, UNCHANGED)

    def on_response_trailers(self, id: int, trailers: Headers, held: Data | None) -> HeldResult:
        return HeldResult([], None, UNCHANGED)

    def on_http_response(self, id: int, call: int, response: object) -> HeldResult:
        return HeldResult([], None, UNCHANGED)

    def on_log(self, id: int) -> None:
        pass
