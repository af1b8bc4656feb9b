"""Every path of the API is called on a running gateway, and what it answers is what its description says."""

import json
import re
import time

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from proxy.admin.app import make_app
from proxy.admin.guard import Guard
from proxy.admin.openapi import description
from proxy.admin.workers import Workers
from proxy.server.scoreboard import Scoreboard
from proxy.sharing.quarantine import QuarantineBoard
from tests.admin.conftest import HOSTILE, Running

SECRET = "Basic YWRhOmxvdmVsYWNl"


class Described:
    """Asks, and holds each answer against the description."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.document = running.json("/openapi.json")
        self.called: set[tuple[str, str]] = set()

    def __call__(self, path: str, method: str = "GET", body: object = None, status: int = 200, **values: str):
        filled = path.format(**values)
        found, media, data = self.running.ask(filled, method, body)
        assert found == status, (filled, data)
        self.called.add((path, method))
        described = self.document["paths"][path][method.lower()]["responses"][str(status)]["content"]
        assert media in described
        schema = {**described[media]["schema"], "components": self.document["components"]}
        if media != "application/json":
            return data.decode()
        answer = json.loads(data)
        Draft202012Validator(schema).validate(answer)
        return answer


def test_description_is_openapi_3_1():
    OpenAPIV31SpecValidator(description()).validate()


def test_every_route_is_described(tmp_path):
    """Both ways: nothing is served that is not described, nothing is described that is not served."""
    app = make_app(Workers(Scoreboard(1), tmp_path, QuarantineBoard(["guard"], 1)), {}, Guard(), lambda: None)
    served = {
        (route.resource.canonical, route.method.lower())
        for route in app.router.routes()
        if route.method != "HEAD" and route.resource is not None
    }
    described = {(path, method) for path, methods in description()["paths"].items() for method in methods}
    assert served - {("/", "get"), ("/static/{name}", "get")} == described


def test_api(running):
    ask = Described(running)
    for path in ("/live", "/ready", "/config", "/overview", "/routes"):
        ask(path)
    assert "# TYPE penstock_requests_total counter" in ask("/metrics")
    ask("/openapi.json")

    # The tap, and what streams leave in it.
    assert ask("/tap")["on"] is False
    running.get("/before")
    before = {one["id"] for one in ask("/streams")["streams"]}
    assert ask("/tap", "PUT", {"seconds": 60, "bodies": True})["on"] is True
    assert running.get("/<script>alert(1)</script>", authorization=SECRET, cookie="id=hunter2", x_note=HOSTILE) == 404
    assert running.get("/") == 401
    assert running.get("/status/418", x_trap="1") == 418
    assert running.get("/gone", authorization=SECRET) == 503
    streams = [one for one in ask("/streams")["streams"] if one["id"] not in before]
    by_status = {one["status"]: one for one in streams}
    assert [one["status"] for one in streams] == [503, 418, 401, 404]
    whole = ask("/streams/{id}", id=by_status[404]["id"])
    took_part = [one["name"].partition("@")[0] for one in whole["filters"]]  # header-rewrite's canary, perhaps
    assert took_part == ["basic-auth", "fragile", "header-rewrite", "body-rewrite"]
    assert all(one["calls"] and one["fuel"] > 0 and one["seconds"] > 0 for one in whole["filters"])
    assert ["authorization", "***"] in whole["heads"]["request"]["before"]
    assert ["x-note", HOSTILE] in whole["heads"]["request"]["after"]
    changes = [line for step in whole["steps"] for line in step.get("changes", ())]
    assert "request - authorization: ***" in changes
    assert "request + x-auth-user: ada" in changes
    told = json.dumps(whole)
    assert "hunter2" not in told
    assert "YWRhOmxvdmVsYWNl" not in told
    refused = ask("/streams/{id}", id=by_status[401]["id"])
    assert refused["answered_by"] == "basic-auth"
    assert [step["reply"]["status"] for step in refused["steps"] if step.get("reply")] == [401, 401]
    failed = ask("/streams/{id}", id=by_status[418]["id"])
    assert [step["filter"] for step in failed["steps"] if step.get("failed")] == ["fragile"]
    assert ask("/tap", "DELETE")["on"] is False
    running.get("/after")
    assert len({one["id"] for one in ask("/streams")["streams"]} - before) == 4
    ask("/streams/{id}", status=404, id="0-99999")
    ask("/tap", "PUT", {"seconds": 1e9}, status=400)

    # Filters.
    filters = ask("/filters")
    assert list(filters) == ["basic-auth", "fragile", "header-rewrite", "body-rewrite", "header-rewrite@canary"]
    fragile = filters["fragile"]
    assert re.fullmatch("[0-9a-f]{64}", fragile["digest"])
    assert (fragile["abi"], fragile["kind"], fragile["budgets"]["fuel"]) == ("0.2.1", "proxy-wasm", 5_000_000)
    assert list(fragile["figures"]["failures"]) == ["trap"]
    assert fragile["traps"][0]["reason"] == "trap"
    seconds = filters["basic-auth"]["figures"]["seconds"]
    assert 0 < seconds["p50"] <= seconds["p90"] <= seconds["p99"] < 1
    assert seconds["count"] == sum(filters["basic-auth"]["figures"]["calls"].values())
    lines = ask("/filters/{name}/logs", name="fragile")
    assert HOSTILE in [line.get("message") for line in lines]
    assert "filter_failed" in [line["event"] for line in lines]
    ask("/filters/{name}", name="body-rewrite")
    for path in ("/filters/{name}", "/filters/{name}/logs"):
        ask(path, status=404, name="nobody")

    # Quarantine, in both workers; the streams go on without the filter, since it fails open.
    ask("/filters/{name}/quarantine", "POST", {"reason": "a test"}, name="fragile")
    running.until(lambda: ask("/ready")["filters"]["fragile"]["degraded_workers"] == [0, 1])
    shown = ask("/filters/{name}", name="fragile")
    assert (shown["state"], shown["quarantine"]["reason"], shown["reason"]) == ("quarantined", "a test", "a test")
    assert abs(shown["since"] - time.time()) < 60
    assert running.get("/status/418", x_trap="1") == 418
    assert ask("/filters/{name}/resume", "POST", name="fragile")["was_quarantined"] is True
    running.until(lambda: ask("/ready")["status"] == "ready")
    ask("/filters/{name}/quarantine", "POST", {"reason": ""}, status=400, name="fragile")
    for path in ("/filters/{name}/quarantine", "/filters/{name}/resume"):
        ask(path, "POST", status=404, name="nobody")

    # Clusters.
    clusters = {one["name"]: one for one in ask("/clusters")}
    (gone,) = clusters["gone"]["endpoints"]
    assert (gone["state"], gone["error"]) == ("down", "Connection refused")
    assert clusters["service"]["endpoints"][0]["state"] == "up"

    # The log level, in all processes and in the filters.
    assert ask("/log")["level"] == "info"
    assert ask("/log", "PUT", {"level": "error"})["level"] == "error"
    before = running.log().count(HOSTILE)
    running.get("/status/418")
    ask("/log", "PUT", {"level": "debug"})
    assert running.log().count(HOSTILE) == before
    running.get("/status/418")
    running.until(lambda: running.log().count(HOSTILE) > before)
    ask("/log", "PUT", {"level": "info"})

    # The canary: set, rolled back, promoted and set again.
    assert list(ask("/canaries")) == ["header-rewrite"]
    name = "header-rewrite"
    assert ask("/canaries/{name}", "PUT", {"weight": "50%"}, name=name)["weight"] == 0.5
    assert ask("/canaries/{name}/rollback", "POST", {"reason": "a test"}, name=name)["state"] == "rolled_back"
    assert ask("/canaries/{name}/promote", "POST", {"by": "a test"}, name=name)["state"] == "promoted"
    ask("/canaries/{name}", "PUT", {"weight": 0.2}, name=name)
    running.until(lambda: ask("/canaries/{name}", name=name)["weight"] == 0.2)
    ask("/canaries/{name}", "PUT", {"weight": "much"}, status=400, name=name)
    for path, method in (("", "GET"), ("", "PUT"), ("/promote", "POST"), ("/rollback", "POST")):
        ask("/canaries/{name}" + path, method, status=404, name="basic-auth")

    # A reload of what serves already. The tap outlives it, and the admin process that it replaces.
    ask("/tap", "PUT", {"seconds": 60, "sample": 0.999})
    number = ask("/reload", "POST")["generation"]
    ask("/reload")
    running.until(lambda: ask("/ready")["generation"] == number)
    time.sleep(1)
    assert ask("/tap")["sample"] == 0.999
    kept = len(ask("/streams")["streams"])
    running.until(lambda: running.get("/status/200") and len(ask("/streams")["streams"]) > kept)
    ask("/tap", "DELETE")

    # Recording.
    assert ask("/record")["on"] is False
    assert ask("/record", "PUT", {"seconds": 5, "routes": ["nowhere"], "by": "a test"})["by"] == "a test"
    ask("/record", "PUT", {"seconds": 0}, status=400)
    assert ask("/record", "DELETE")["on"] is False

    # Draining.
    assert ask("/drain", "POST") == {"draining": True, "stopping": False}
    assert ask("/ready", status=503)["status"] == "draining"
    assert running.get("/status/418") == 418
    ask("/drain", "DELETE")
    assert ask("/ready")["status"] == "ready"

    described = {(path, method.upper()) for path, methods in ask.document["paths"].items() for method in methods}
    assert ask.called == described


def test_openmetrics_and_yaml(running):
    status, media, _ = running.ask("/config", Accept="application/yaml")
    assert (status, media) == (200, "application/yaml")


@pytest.mark.parametrize("path", ["/streams/0-", "/streams/-1", "/streams/9999999-1", "/streams/a-b", "/filters/%2e%2e/logs"])
def test_odd_names(running, path):
    assert running.ask(path)[0] == 404
