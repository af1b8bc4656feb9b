import asyncio
import json
import socket
import tempfile
import time
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from jsonschema import Draft202012Validator

from proxy.admin.app import make_app
from proxy.admin.guard import Guard
from proxy.admin.process import on_loopback
from proxy.admin.schemas import SCHEMAS, obj
from proxy.admin.workers import SILENT_SECONDS, Workers
from proxy.server.control import ControlServer, control_path
from proxy.server.scoreboard import Scoreboard, WorkerRecord, WorkerState
from proxy.sharing.quarantine import QuarantineBoard, Trap
from proxy.telemetry.stream import StreamInfo
from proxy.telemetry.telemetry import Telemetry

CONFIG = {"listeners": [{"address": "127.0.0.1:8080"}], "filters": [{"config": {"password": "***"}}]}


class Fleet:
    """A scoreboard with workers' control servers behind it, all in this process."""

    def __init__(self, directory, slots):
        self.directory = directory
        self.scoreboard = Scoreboard(slots)
        self.quarantine = QuarantineBoard(["guard"], slots)
        self.workers = Workers(self.scoreboard, directory, self.quarantine)
        self.telemetry = {}
        self.filters = {}
        self.controls = {}
        self.stopped = 0

    def stop(self):
        self.stopped += 1

    async def add(self, slot, state=WorkerState.SERVING, answers=True):
        pid = 1000 + slot
        self.telemetry[slot] = Telemetry(access=False)
        self.filters[slot] = {"guard": {"state": "ready"}}
        if answers:
            path = control_path(self.directory, slot, pid)
            control = ControlServer(path, self.telemetry[slot], lambda: {"filters": self.filters[slot]})
            control.detail = {"filters": [], "clusters": [], "routes": [], "tap": {"on": False}, "log_level": "info"}
            control.app.router.add_get("/detail", detail_of(control))
            await control.start()
            self.controls[slot] = control
        self.put(slot, pid, state)

    def put(self, slot, pid, state, started=None, restarts=0):
        now = time.monotonic() if started is None else started
        self.scoreboard.write(WorkerRecord(slot, pid, state, restarts, now))

    def serve(self, slot, count):
        for _ in range(count):
            info = StreamInfo()
            info.route_name, info.cluster_name, info.status = "r", "c", 200
            self.telemetry[slot].stream_finished(info)


def detail_of(control):
    async def get_detail(request):
        return web.json_response(control.detail)

    return get_detail


@pytest.fixture
async def fleet():
    # A unix socket's path must be short, and pytest's directories are not.
    with tempfile.TemporaryDirectory(prefix="penstock-test-") as directory:
        fleet = Fleet(Path(directory), 2)
        yield fleet
        for control in fleet.controls.values():
            await control.stop()


@pytest.fixture
async def client(fleet, aiohttp_client):
    return await aiohttp_client(make_app(fleet.workers, CONFIG, Guard(), fleet.stop))


async def test_metrics_are_sums(fleet, client):
    await fleet.add(0)
    await fleet.add(1)
    fleet.serve(0, 3)
    fleet.serve(1, 4)
    response = await client.get("/metrics")
    text = await response.text()
    assert response.headers["Content-Type"].startswith("text/plain")
    assert 'penstock_requests_total{cluster="c",code="200",route="r"} 7.0' in text
    assert 'penstock_workers{state="serving"} 2.0' in text


async def test_openmetrics(fleet, client):
    await fleet.add(0)
    response = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert (await response.text()).endswith("# EOF\n")


async def test_a_scrape_asks_afresh(fleet, client):
    await fleet.add(0)
    for count in (1, 2, 3):
        fleet.serve(0, 1)
        assert f'code="200",route="r"}} {count}.0' in await (await client.get("/metrics")).text()


async def test_a_silent_worker_costs_at_most_half_a_second(fleet, client):
    await fleet.add(0)
    fleet.serve(0, 3)
    await client.get("/metrics")
    await fleet.controls[0].stop()
    hang = []

    async def never(reader, writer):
        hang.append(writer)

    server = await asyncio.start_unix_server(never, control_path(fleet.directory, 0, 1000))
    begun = time.monotonic()
    text = await (await client.get("/metrics")).text()
    assert 0.4 < time.monotonic() - begun < 0.9
    assert 'code="200",route="r"} 3.0' in text
    server.close()
    for writer in hang:
        writer.close()


@pytest.mark.parametrize(
    ("states", "draining", "status", "word"),
    [
        ((WorkerState.SERVING, WorkerState.SERVING), False, 200, "ready"),
        ((WorkerState.SERVING, WorkerState.DEAD), False, 200, "degraded"),
        ((WorkerState.SERVING, WorkerState.STARTING), False, 200, "degraded"),
        ((WorkerState.STARTING, WorkerState.STARTING), False, 503, "not serving"),
        ((WorkerState.DEAD, WorkerState.DEAD), False, 503, "not serving"),
        ((WorkerState.DRAINING, WorkerState.DRAINING), True, 503, "draining"),
    ],
)
async def test_ready(fleet, client, states, draining, status, word):
    for slot, state in enumerate(states):
        if state is WorkerState.DEAD:
            fleet.put(slot, 0, state, restarts=4)
        else:
            await fleet.add(slot, state)
    fleet.scoreboard.draining = draining
    response = await client.get("/ready")
    body = await response.json()
    assert (response.status, body["status"]) == (status, word)
    assert [worker["state"] for worker in body["workers"]] == [state.name.lower() for state in states]


async def test_ready_names_the_filter_and_the_worker(fleet, client):
    await fleet.add(0)
    await fleet.add(1)
    fleet.filters[1] = {"guard": {"state": "rebuilding", "reason": "trap"}}
    body = await (await client.get("/ready")).json()
    assert body["status"] == "degraded"
    assert body["filters"] == {"guard": {"state": "rebuilding", "reason": "trap", "degraded_workers": [1]}}


async def test_worker_that_has_long_been_silent_is_unresponsive(fleet, client):
    await fleet.add(0)
    fleet.put(1, 4242, WorkerState.SERVING, started=time.monotonic() - SILENT_SECONDS - 1)
    body = await (await client.get("/ready")).json()
    assert [worker["state"] for worker in body["workers"]] == ["serving", "unresponsive"]


async def test_config(client):
    response = await client.get("/config")
    assert response.content_type == "application/json"
    assert await response.json() == CONFIG
    response = await client.get("/config", headers={"Accept": "application/yaml"})
    assert response.content_type == "application/yaml"
    assert yaml.safe_load(await response.text()) == CONFIG


async def test_index_names_the_pages(client):
    response = await client.get("/")
    pages = await response.json()
    assert pages["/filters/{name}/resume"] == {"POST": "Let a filter in again, in all workers"}
    assert response.headers["Vary"] == "Accept"
    response = await client.get("/", headers={"Accept": "text/html,*/*"})
    assert (response.content_type, (await response.text())[:15]) == ("text/html", "<!doctype html>")


async def test_unknown_page(client):
    response = await client.get("/nothing")
    assert response.status == 404
    assert (await response.json())["error"] == "not found"


@pytest.mark.parametrize("path", ["/", "/ready", "/metrics", "/config"])
async def test_wrong_method(client, path):
    response = await client.post(path)
    assert response.status == 405
    assert response.headers["Allow"] == "GET, HEAD"
    assert (await response.json())["error"] == "method not allowed"


async def test_headers(client):
    response = await client.get("/config")
    assert response.headers["Server"] == "penstock"
    assert response.headers["Cache-Control"] == "no-store"
    assert json.loads(await response.read())


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9901", 200),
        ("localhost", 200),
        ("127.0.0.1:9901", 200),
        ("[::1]:9901", 200),
        ("[::1]", 200),
        ("10.1.2.3:9901", 200),
        ("evil.example:9901", 421),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
    ],
)
async def test_names_other_than_localhost_are_misdirected(client, host, status):
    assert (await client.get("/config", headers={"Host": host})).status == status


async def test_names_that_the_config_lists_are_ours(fleet, aiohttp_client):
    client = await aiohttp_client(make_app(fleet.workers, CONFIG, Guard(hosts=["Penstock.example"]), fleet.stop))
    assert (await client.get("/config", headers={"Host": "penstock.example:9901"})).status == 200
    assert (await client.get("/config", headers={"Host": "other.example:9901"})).status == 421


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("", 401),
        ("Bearer wrong", 401),
        ("Basic open-sesame-open-sesame", 401),
        ("Bearer open-sesame-open-sesam", 401),
        ("Bearer \udcff", 401),
        ("Bearer open-sesame-open-sesame", 200),
        ("bearer  open-sesame-open-sesame", 200),
    ],
)
async def test_token(fleet, aiohttp_client, authorization, status):
    client = await aiohttp_client(make_app(fleet.workers, CONFIG, Guard("open-sesame-open-sesame"), fleet.stop))
    headers = {"Authorization": authorization} if authorization else {}
    for path in ("/config", "/metrics", "/filters", "/streams", "/overview"):
        response = await client.get(path, headers=headers)
        assert response.status == status, path
    assert (await client.post("/drain", headers=headers)).status == status
    assert fleet.scoreboard.unready == (status == 200)


async def test_without_the_token_nothing_is_told(fleet, aiohttp_client):
    await fleet.add(0)
    await fleet.add(1)
    client = await aiohttp_client(make_app(fleet.workers, CONFIG, Guard("open-sesame-open-sesame"), fleet.stop))
    assert (await (await client.get("/live")).json()) == {"status": "live"}
    body = await (await client.get("/ready")).json()
    assert body == {"status": "ready", "serving": 2, "generation": 0, "reload": None, "workers": [], "filters": {}}
    Draft202012Validator(obj(**SCHEMAS["Ready"]["properties"]) | {"components": {"schemas": SCHEMAS}}).validate(body)
    assert (await client.get("/static/app.js")).status == 200
    assert (await client.get("/config")).headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1:{port}"}, 200),
        ({"Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "https://127.0.0.1:{port}"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
async def test_writes_from_other_sites_are_refused(fleet, client, headers, status):
    sent = {name: value.format(port=client.port) for name, value in headers.items()}
    for method, path in (("POST", "/drain"), ("DELETE", "/drain"), ("PUT", "/tap"), ("POST", "/filters/guard/resume")):
        assert (await client.request(method, path, headers=sent)).status == status, path
    assert fleet.scoreboard.unready is False


async def test_drain(fleet, client):
    await fleet.add(0)
    await fleet.add(1)
    assert (await (await client.post("/drain")).json()) == {"draining": True, "stopping": False}
    assert ((await client.get("/ready")).status, fleet.stopped) == (503, 0)
    assert (await (await client.delete("/drain")).json()) == {"draining": False, "stopping": False}
    assert (await client.get("/ready")).status == 200
    assert (await client.post("/drain", json={"stop": "yes"})).status == 400
    response = await client.post("/drain", json={"stopp": True})
    assert (response.status, (await response.json())["error"]) == (400, 'unknown key "stopp"; the keys here are stop')
    assert (await (await client.post("/drain", json={"stop": True})).json())["stopping"] is True
    assert fleet.stopped == 1


@pytest.mark.parametrize("body", [b"x", b"[]", b'{"level": "loud"}', b'{"level": ["debug"]}', b"{}", b'{"level": null}'])
async def test_wrong_bodies(client, body):
    response = await client.put("/log", data=body, headers={"Content-Type": "application/json"})
    assert response.status == 400
    assert (await response.json())["error"]


async def test_body_of_another_type(client):
    """A form is what a page of another site can send without asking; it is no way in either."""
    response = await client.put("/tap", data=b"seconds=5", headers={"Content-Type": "text/plain"})
    assert response.status == 400


async def test_policy_of_the_page(client):
    headers = (await client.get("/", headers={"Accept": "text/html"})).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Frame-Options"] == "DENY"


async def test_endpoints_as_several_workers_see_them(fleet, client):
    def endpoint(state, idle, failures):
        return {
            "address": "a:1", "state": state, "since": 1.0, "error": "refused" if failures else "",
            "idle_connections": idle, "failures": failures,
        }  # fmt: skip

    for slot, seen in enumerate([endpoint("up", 2, 0), endpoint("down", 1, 3)]):
        await fleet.add(slot)
        cluster = {"name": "c", "tls": False, "connections": 4, "max_connections": 9, "pending": slot, "endpoints": [seen]}
        fleet.controls[slot].detail.update(clusters=[cluster])
    (found,) = await (await client.get("/clusters")).json()
    assert (found["connections"], found["pending"]) == (8, 1)
    assert found["endpoints"] == [{**endpoint("down", 3, 3)}]


async def test_filters_tells_why_one_is_in_quarantine(fleet, client):
    await fleet.add(0)
    await fleet.add(1)
    body = await (await client.get("/filters")).json()
    shown = {key: body["guard"][key] for key in ("state", "degraded_workers", "quarantine", "traps")}
    assert shown == {"state": "ready", "degraded_workers": [], "quarantine": None, "traps": []}
    fleet.quarantine.note(1, "guard", Trap(5.5, "proxy_on_log", "trap", "unreachable"))
    fleet.quarantine.take_out(1, "guard", "10 faults within 300 s")
    fleet.filters[1]["guard"] = {"state": "quarantined", "reason": "10 faults within 300 s"}
    found = (await (await client.get("/filters")).json())["guard"]
    assert (found["state"], found["degraded_workers"]) == ("quarantined", [1])
    assert (found["quarantine"]["worker"], found["quarantine"]["reason"]) == (1, "10 faults within 300 s")
    assert found["traps"] == [
        {"worker": 1, "time": 5.5, "callback": "proxy_on_log", "reason": "trap", "message": "unreachable"}
    ]
    ready = await client.get("/ready")
    assert ready.status == 200
    assert (await ready.json())["status"] == "degraded"
    assert 'penstock_filter_quarantined{filter="guard"} 1.0' in await (await client.get("/metrics")).text()


async def test_resume(fleet, client):
    await fleet.add(0)
    fleet.quarantine.take_out(0, "guard", "10 faults")
    assert (await client.get("/filters/guard/resume")).status == 405
    assert (await client.post("/filters/guard/resume", headers={"Origin": "http://evil.example"})).status == 403
    assert (await client.post("/filters/guard/resume", headers={"Host": "evil.example"})).status == 421
    assert fleet.quarantine.is_out("guard")
    response = await client.post("/filters/guard/resume")
    assert (response.status, await response.json()) == (200, {"filter": "guard", "was_quarantined": True})
    assert not fleet.quarantine.is_out("guard")
    assert (await (await client.post("/filters/guard/resume")).json())["was_quarantined"] is False
    response = await client.post("/filters/nobody/resume")
    assert (response.status, (await response.json())["error"]) == (404, "not found")
    assert 'penstock_filter_quarantined{filter="guard"} 0.0' in await (await client.get("/metrics")).text()


@pytest.mark.parametrize(
    ("address", "expected"), [("127.0.0.1", True), ("127.8.9.1", True), ("0.0.0.0", False), ("::1", True), ("::", False)]
)
def test_a_port_that_others_can_reach_is_known(address: str, expected: bool) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as listening:
        listening.bind((address, 0))
        assert on_loopback(listening) is expected
