"""The admin API: what is asked and told, over the workers together. openapi.py describes it, path by path."""

import json
from collections.abc import Callable
from typing import Any

import yaml
from aiohttp import hdrs, web

from proxy.admin.answers import json_body, json_page, number_of, program_version
from proxy.admin.figures import Figures
from proxy.admin.guard import HAS_TOKEN
from proxy.admin.openapi import description
from proxy.admin.workers import Workers
from proxy.server.scoreboard import LOG_LEVELS
from proxy.telemetry import logging as logs
from proxy.telemetry.metrics import render

log = logs.get_logger("admin")

LONGEST_TAP = 3600.0
DEFAULT_TAP = 300.0
"""Seconds."""
MOST_STREAMS = 200


class Api:
    """The handlers."""

    def __init__(self, workers: Workers, config: dict[str, Any], stop: Callable[[], object]) -> None:
        self.workers = workers
        self.config = config
        self.stop = stop
        self.openapi = description()

    def add_to(self, app: web.Application) -> None:
        router = app.router
        router.add_get("/openapi.json", self.get_openapi)
        router.add_get("/live", self.get_live)
        router.add_get("/ready", self.get_ready)
        router.add_get("/metrics", self.get_metrics)
        router.add_get("/overview", self.get_overview)
        router.add_get("/config", self.get_config)
        router.add_get("/routes", self.get_routes)
        router.add_get("/clusters", self.get_clusters)
        router.add_get("/filters", self.get_filters)
        router.add_get("/filters/{name}", self.get_filter)
        router.add_get("/filters/{name}/logs", self.get_logs)
        router.add_post("/filters/{name}/quarantine", self.post_quarantine)
        router.add_post("/filters/{name}/resume", self.post_resume)
        router.add_get("/log", self.get_log)
        router.add_put("/log", self.put_log)
        router.add_post("/drain", self.post_drain)
        router.add_delete("/drain", self.delete_drain)
        router.add_get("/tap", self.get_tap)
        router.add_put("/tap", self.put_tap)
        router.add_delete("/tap", self.delete_tap)
        router.add_get("/streams", self.get_streams)
        router.add_get("/streams/{id}", self.get_stream)

    # ---- The gateway ----

    async def get_openapi(self, request: web.Request) -> web.Response:
        return json_page(self.openapi)

    async def get_live(self, request: web.Request) -> web.Response:
        return json_page({"status": "live"})

    async def get_ready(self, request: web.Request) -> web.Response:
        await self.workers.refresh()
        ready, body = self.workers.readiness()
        if not request[HAS_TOKEN]:
            told = {"status": body["status"], "serving": body["serving"]}
            body = {**told, "generation": 0, "reload": None, "workers": [], "filters": {}}
        return json_page(body, 200 if ready else 503)

    async def get_metrics(self, request: web.Request) -> web.Response:
        await self.workers.refresh()
        text, content_type = render(self.workers.snapshot(), request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=text, headers={hdrs.CONTENT_TYPE: content_type})

    async def get_overview(self, request: web.Request) -> web.Response:
        await self.workers.refresh()
        _, ready = self.workers.readiness()
        return json_page(
            {
                "version": program_version(),
                "status": ready["status"],
                "workers": {"configured": len(ready["workers"]), "serving": ready["serving"]},
                "uptime_seconds": max((one["uptime_seconds"] for one in ready["workers"]), default=0.0),
                "figures": Figures(self.workers.snapshot()).overview(),
            }
        )

    async def get_config(self, request: web.Request) -> web.Response:
        if "yaml" in request.headers.get(hdrs.ACCEPT, "").lower():
            text = yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True)
            return web.Response(body=text.encode(), content_type="application/yaml", charset="utf-8")
        return web.Response(body=json.dumps(self.config, indent=2).encode() + b"\n", content_type="application/json")

    async def get_routes(self, request: web.Request) -> web.Response:
        await self.workers.refresh(detailed=True)
        return json_page(self.workers.routes())

    async def get_clusters(self, request: web.Request) -> web.Response:
        await self.workers.refresh(detailed=True)
        return json_page(self.workers.clusters())

    async def get_log(self, request: web.Request) -> web.Response:
        return json_page({"level": logs.level_name()})

    async def put_log(self, request: web.Request) -> web.Response:
        level = (await json_body(request, "level")).get("level")
        if level not in LOG_LEVELS[1:]:
            raise web.HTTPBadRequest(text=f"level has to be one of {', '.join(LOG_LEVELS[1:])}")
        before = logs.level_name()
        self.workers.scoreboard.log_level = level  # for the supervisor, and what it starts from now on
        logs.set_level(level)
        await self.workers.call_all("PUT", "/log", {"level": level})
        log.warning("log level set", level=level, before=before)
        return json_page({"level": level})

    async def post_drain(self, request: web.Request) -> web.Response:
        stop = (await json_body(request, "stop")).get("stop", False)
        if not isinstance(stop, bool):
            raise web.HTTPBadRequest(text="stop has to be true or false")
        self.workers.scoreboard.unready = True
        log.warning("drain asked for", stop=stop)
        if stop:
            self.stop()
        return json_page({"draining": True, "stopping": stop})

    async def delete_drain(self, request: web.Request) -> web.Response:
        self.workers.scoreboard.unready = False
        log.warning("drain taken back")
        return json_page({"draining": self.workers.scoreboard.draining, "stopping": self.workers.scoreboard.draining})

    # ---- Filters ----

    async def get_filters(self, request: web.Request) -> web.Response:
        await self.workers.refresh(detailed=True)
        return json_page(self.workers.filters())

    async def get_filter(self, request: web.Request) -> web.Response:
        name = self.known(request)
        await self.workers.refresh(detailed=True)
        return json_page(self.workers.filters()[name])

    async def get_logs(self, request: web.Request) -> web.Response:
        name = self.known(request)
        answers = await self.workers.call_all("GET", f"/logs?filter={name}")
        lines = [{**line, "worker": slot} for slot, found in answers.items() for line in found]
        lines += [{**line, "worker": None} for line in logs.output.recent.of(name)]
        return json_page(sorted(lines, key=lambda line: line["time"]))

    async def post_quarantine(self, request: web.Request) -> web.Response:
        name = self.known(request)
        reason = (await json_body(request, "reason")).get("reason", "taken out by the operator")
        if not isinstance(reason, str) or not 0 < len(reason) <= 200:
            raise web.HTTPBadRequest(text="reason has to be a text of 1 to 200 characters")
        if not await self.workers.take_out(name, reason):
            return json_page({"error": "no worker answers"}, 503)
        return json_page({"filter": name, "quarantined": True})

    async def post_resume(self, request: web.Request) -> web.Response:
        name = self.known(request)
        return json_page({"filter": name, "was_quarantined": self.workers.resume(name)})

    def known(self, request: web.Request) -> str:
        """The filter that the path names. Raises HTTPNotFound."""
        name = request.match_info["name"]
        if name not in self.workers.quarantine.names:
            raise web.HTTPNotFound
        return name

    # ---- Streams ----

    async def get_tap(self, request: web.Request) -> web.Response:
        return json_page(self.tap())

    def tap(self) -> dict[str, Any]:
        tap = self.workers.tap
        on = tap is not None and tap.left() > 0
        if tap is None or not on:
            return {"on": False, "seconds_left": 0.0, "sample": 1.0, "bodies": False}
        return {"on": True, "seconds_left": round(tap.left(), 1), "sample": tap.sample, "bodies": tap.bodies}

    async def put_tap(self, request: web.Request) -> web.Response:
        body = await json_body(request, "seconds", "sample", "bodies")
        seconds = number_of(body, "seconds", DEFAULT_TAP, 1, LONGEST_TAP)
        sample = number_of(body, "sample", 1.0, 0.0001, 1.0)
        bodies = body.get("bodies", False)
        if not isinstance(bodies, bool):
            raise web.HTTPBadRequest(text="bodies has to be true or false")
        if not self.tap()["on"]:
            log.warning("tap on", seconds=seconds, sample=sample, bodies=bodies)
        await self.workers.set_tap(seconds, sample, bodies)
        return json_page(self.tap())

    async def delete_tap(self, request: web.Request) -> web.Response:
        await self.workers.set_tap(0, 1.0, False)
        log.warning("tap off")
        return json_page(self.tap())

    async def get_streams(self, request: web.Request) -> web.Response:
        answers = await self.workers.call_all("GET", "/streams")
        streams = [with_id(slot, one) for slot, found in answers.items() for one in found]
        newest = sorted(streams, key=lambda one: -one["time"])[:MOST_STREAMS]
        return json_page({"tap": self.tap(), "streams": newest})

    async def get_stream(self, request: web.Request) -> web.Response:
        slot, _, number = request.match_info["id"].partition("-")
        if not (slot.isdecimal() and number.isdecimal() and len(slot) < 6 and len(number) < 20):
            raise web.HTTPNotFound
        found = await self.workers.call(int(slot), "GET", f"/streams/{number}")
        if found is None:
            raise web.HTTPNotFound
        return json_page(with_id(int(slot), found))


def with_id(slot: int, stream: dict[str, Any]) -> dict[str, Any]:
    return {"id": f"{slot}-{stream['number']}", "worker": slot, **stream}
