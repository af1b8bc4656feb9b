"""The canaries on the admin address: what holds for each and its figures; set, promote, roll back.

Each change is logged with who made it and from where, and lies in the state directory before the answer is sent.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from proxy.admin.answers import json_body, json_page
from proxy.config.fields import read_percent
from proxy.config.problem import WrongValueError
from proxy.sharing.canaries import CanaryFiles, Decision, now
from proxy.telemetry.logging import get_logger

log = get_logger("admin")

States = Callable[[], list[Mapping[str, Any]]]
"""What each worker says of its filters: name -> state."""

LONGEST_NAME = 200


def add_canaries(app: web.Application, states: States, refresh: Callable[[], Any]) -> None:
    """`states` after `refresh`, an awaitable, is what the workers say now."""

    async def get_all(request: web.Request) -> web.Response:
        await refresh()
        return json_page({name: shown(name, state) for name, state in canaries(states()).items()})

    async def get_one(request: web.Request) -> web.Response:
        name, state = await find(request)
        return json_page(shown(name, state))

    async def put_weight(request: web.Request) -> web.Response:
        name, state = await find(request)
        body = await json_body(request, "weight", "by")
        weight = weight_of(body.get("weight"))
        return await decide(request, name, state, Decision("running", weight, now(), who(request, body)))

    async def post_promote(request: web.Request) -> web.Response:
        name, state = await find(request)
        body = await json_body(request, "by")
        return await decide(request, name, state, Decision("promoted", 1.0, now(), who(request, body)))

    async def post_rollback(request: web.Request) -> web.Response:
        name, state = await find(request)
        body = await json_body(request, "by", "reason")
        reason = str(body.get("reason") or "")[:LONGEST_NAME]
        decision = Decision("rolled_back", 0.0, now(), who(request, body), [reason] if reason else [])
        return await decide(request, name, state, decision)

    async def find(request: web.Request) -> tuple[str, dict[str, Any]]:
        await refresh()
        name = request.match_info["name"]
        found = canaries(states())
        if name not in found:
            raise web.HTTPNotFound(
                text=json.dumps({"error": f"no worker has a canary of {name}"}), content_type="application/json"
            )
        return name, found[name]

    app.router.add_get("/canaries", get_all)
    app.router.add_get("/canaries/{name}", get_one)
    app.router.add_put("/canaries/{name}", put_weight)
    app.router.add_post("/canaries/{name}/promote", post_promote)
    app.router.add_post("/canaries/{name}/rollback", post_rollback)


async def decide(request: web.Request, name: str, state: dict[str, Any], decision: Decision) -> web.Response:
    """Write it down, and into the log."""

    def write() -> None:
        files = CanaryFiles(Path(state["directory"]), name, state["key"])
        try:
            files.decide(decision)
        finally:
            files.close()

    try:
        await asyncio.to_thread(write)
    except OSError as error:
        return json_page({"error": f"the state directory can not be written: {error}"}, 500)
    log.warning(
        "canary_decided", filter=name, state=decision.state, weight=decision.weight, by=decision.by, remote=request.remote,
        before={"state": state["state"], "weight": state["weight"]}, sha256=state["sha256"], evidence=decision.evidence,
    )  # fmt: skip
    fields = {key: getattr(decision, key) for key in Decision.__slots__}
    return json_page(shown(name, {**state, **fields}))


def canaries(states: list[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By filter; of several workers' words the one with the latest decision."""
    found: dict[str, dict[str, Any]] = {}
    for filters in states:
        for name, state in filters.items():
            canary = state.get("canary")
            if canary is not None and "directory" in canary and (name not in found or canary["since"] >= found[name]["since"]):
                found[name] = canary
    return found


def shown(name: str, state: dict[str, Any]) -> dict[str, Any]:
    """With what the operator should write into the config."""
    return {**state, "filter": name, "next": advice(name, state)}


def advice(name: str, state: Mapping[str, Any]) -> str:
    match state["state"]:
        case "promoted":
            own = ", and the config of its canary" if state["config_differs"] else ""
            return (
                f"the canary serves everybody until the config says so itself: in filter {name} write wasm: {state['wasm']}, "
                f"sha256: {state['sha256']}{own}, and remove canary"
            )
        case "rolled_back":
            return f"nobody meets the canary: remove canary from filter {name}, or name another version in it"
        case _ if state["weight"] != state["config_weight"]:
            return f"to keep this weight in the config, write weight: {round(state['weight'] * 100, 4):g}% in its canary"
        case _:
            return ""


def weight_of(value: object) -> float:
    """0 to 1, from a share such as "10%" or a number."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    try:
        if isinstance(value, str):
            return read_percent(value, None)
    except WrongValueError as error:
        raise web.HTTPBadRequest(text=f"weight: {error.problem}; {error.mend}") from None
    raise web.HTTPBadRequest(text='weight: write a share such as "10%", or a number from 0 to 1')


def who(request: web.Request, body: Mapping[str, Any]) -> str:
    """As the caller calls itself, and its address."""
    return f"{str(body.get('by') or 'unnamed')[:LONGEST_NAME]} ({request.remote})"
