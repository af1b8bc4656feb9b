"""The page in a real Chromium: what it shows, what it does, by mouse and by keyboard, in both themes and widths."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright import sync_api as playwright

from tests.admin.conftest import HOSTILE, Running

CHROMIUM = os.environ.get("PENSTOCK_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
SECRET = "Basic YWRhOmxvdmVsYWNl"

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, running: Running) -> Iterator[Any]:
    """A tab on the admin address; the console has to stay silent, and nothing may be asked of anybody else."""
    context = browser.new_context(viewport=WIDE)
    tab = context.new_page()
    complaints: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    own = f"http://127.0.0.1:{running.admin}/"
    tab.on("request", lambda request: None if request.url.startswith(own) else complaints.append(request.url))
    tab.allowed = set()
    tab.goto(own)
    tab.wait_for_selector("#status.good")
    yield tab
    assert [text for text in complaints if text not in tab.allowed] == []
    context.close()


@pytest.fixture
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: PENSTOCK_SHOTS, or a temporary folder."""
    folder = os.environ.get("PENSTOCK_SHOTS")
    return Path(folder) if folder else tmp_path_factory.mktemp("shots")


def test_chain(page: Any, running: Running) -> None:
    sending = running.traffic(3)
    names = ["basic-auth", "fragile", "header-rewrite", "body-rewrite"]
    assert page.locator(".pipe .filter-name").all_text_contents() == names
    running.until(lambda: float(page.locator(".filter-rate b").first.text_content()) > 1)
    sending.join()
    page.locator(".pipe").get_by_role("link", name="header-rewrite").click()
    page.wait_for_selector("h1:text('header-rewrite')")
    digest = running.json("/filters/header-rewrite")["digest"]
    assert page.locator(".facts", has_text=digest).count() == 1
    assert page.title() == "header-rewrite · Penstock"


def test_quarantine_and_resume(page: Any, running: Running) -> None:
    page.goto(page.url.split("#")[0] + "#/filters/fragile")
    page.get_by_role("button", name="Take out").click()
    page.get_by_label("Reason").fill("<b>by hand</b>")
    page.get_by_role("button", name="Take it out").click()
    page.wait_for_selector(".note.bad:has-text('<b>by hand</b>')")
    page.wait_for_selector("#status.warn:text('degraded')")
    assert running.json("/filters/fragile")["quarantine"]["reason"] == "<b>by hand</b>"
    page.get_by_role("button", name="Resume").click()
    page.wait_for_selector("#status.good")
    running.until(lambda: running.json("/filters/fragile")["state"] == "ready")


def test_streams_by_keyboard(page: Any, running: Running) -> None:
    """Only keys: to the streams, watch, open one, see what filters did, close, stop."""
    page.keyboard.press("g")
    page.keyboard.press("s")
    page.wait_for_selector("h1:text('Streams')")
    page.keyboard.press("w")
    page.wait_for_selector("button:text('Stop')")
    running.until(lambda: running.json("/tap")["on"])
    running.get("/<script>alert(2)</script>", authorization=SECRET, x_note=HOSTILE)
    running.get("/status/418", x_trap="1")
    page.wait_for_selector(".streams tbody tr >> nth=1")
    page.keyboard.press("/")
    page.keyboard.type("<script>alert(2)")
    running.until(lambda: page.locator(".streams tbody tr").count() == 1)
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector(".detail h2:text('GET /<script>alert(2)</script>')")
    detail = page.locator(".detail")
    took_part = [name.partition("@")[0] for name in detail.locator("summary b").all_text_contents()]  # a canary, perhaps
    assert took_part == ["basic-auth", "fragile", "header-rewrite", "body-rewrite"]
    assert "request + x-auth-user: ada" in detail.locator(".diff .plus").first.text_content()
    assert detail.locator("dd", has_text=HOSTILE).count() == 2
    assert "YWRhOmxvdmVsYWNl" not in detail.text_content()
    page.keyboard.press("Escape")
    page.wait_for_selector(".detail", state="hidden")
    page.keyboard.press("w")
    running.until(lambda: not running.json("/tap")["on"])
    assert page.locator("main img, main script").count() == 0


def test_logs(page: Any, running: Running) -> None:
    running.get("/status/200")
    page.keyboard.press("g")
    page.keyboard.press("l")
    page.get_by_role("combobox", name="Filter").select_option("fragile")
    page.wait_for_selector(".log .text")
    assert page.locator(".log .text", has_text=HOSTILE).first.text_content() == HOSTILE
    page.keyboard.press("/")
    page.keyboard.type("no such line")
    page.wait_for_selector(".empty:has-text('No line')")
    assert page.locator(".log li").count() == 0


def test_gateway(page: Any, running: Running) -> None:
    page.goto(page.url.split("#")[0] + "#/gateway")
    page.wait_for_selector("td:has-text('worker 1')")
    page.wait_for_selector("tr:has-text('gone') td:has-text('127.0.0.1:1')")
    page.get_by_role("button", name="Reload").click()
    page.wait_for_selector(".reload:has-text('The last reload (admin')")
    page.get_by_label("Log level").select_option("warning")
    running.until(lambda: running.json("/log")["level"] == "warning")
    running.json("/log", "PUT", {"level": "info"})
    page.allowed = {"Failed to load resource: the server responded with a status of 503 (Service Unavailable)"}  # /ready
    page.get_by_role("button", name="Drain").click()
    page.wait_for_selector("#status.warn:text('draining')")
    page.get_by_role("button", name="Take traffic again").click()
    page.wait_for_selector("#status.good")


def test_canary(page: Any, running: Running) -> None:
    """Set by the keyboard, rolled back and promoted by buttons; the gateway knows it each time."""
    page.goto(page.url.split("#")[0] + "#/canaries")
    slider = page.get_by_role("slider", name="Weight of the canary of header-rewrite, percent")
    slider.focus()
    page.keyboard.press("End")
    page.wait_for_selector("output:text-is('100 %')")
    running.until(lambda: running.json("/canaries/header-rewrite")["weight"] == 1.0)
    page.get_by_role("button", name="Roll back").click()
    page.wait_for_selector(".badge.rolled_back")
    page.get_by_role("button", name="Promote").click()
    page.wait_for_selector(".badge.promoted")
    running.json("/canaries/header-rewrite", "PUT", {"weight": "20%"})
    page.wait_for_selector(".badge.running")


def test_keyboard_help_skip_link_and_theme(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("?")
    page.wait_for_selector("dialog#shortcuts[open] kbd")
    page.keyboard.press("Escape")
    themes = []
    for _ in range(3):
        page.keyboard.press("t")
        themes.append(page.evaluate("document.documentElement.dataset.theme || 'auto'"))
    assert themes == ["light", "dark", "auto"]


UNNAMED = """() => [...document.querySelectorAll('a, button, input, select, [role=img], [tabindex="0"]')]
  .filter(node => node.checkVisibility())
  .filter(node => !(node.getAttribute('aria-label') || node.textContent.trim() || node.labels?.[0]?.textContent.trim()))
  .map(node => node.outerHTML)"""
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


def test_every_view_in_both_themes_and_widths(page: Any, running: Running, shots: Path) -> None:
    """Screenshots to look at; what can be checked without eyes: names for all controls, nothing wider than the window."""
    running.traffic(1.5).join()
    running.json("/tap", "PUT", {"seconds": 60})
    running.traffic(0.2).join()
    stream = next(one for one in running.json("/streams")["streams"] if one["status"] == 200 and one["path"] == "/?page=2")
    views = {
        "chain": "#/chain", "streams": "#/streams", "stream": f"#/streams/{stream['id']}", "filter": "#/filters/basic-auth",
        "logs": "#/logs", "canaries": "#/canaries", "gateway": "#/gateway",
    }  # fmt: skip
    looks = [("light", "wide", WIDE), ("dark", "narrow", NARROW)]
    if os.environ.get("PENSTOCK_SHOTS"):
        looks += [("dark", "wide", WIDE), ("light", "narrow", NARROW)]
    for theme, width, size in looks:
        page.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
        page.set_viewport_size(size)
        for name, place in views.items():
            page.evaluate("place => location.hash = place", place)
            page.wait_for_timeout(150)
            page.screenshot(path=shots / f"{name}-{width}-{theme}.png", full_page=width == "narrow" and name != "streams")
            assert page.evaluate(OVERFLOW) <= 0, (name, width)
            assert page.evaluate(UNNAMED) == [], name
    running.json("/tap", "DELETE")


def test_page_asks_for_the_token(browser: Any, tmp_path: Path) -> None:
    """With admin.token the page's files come without it, and its figures after the operator has typed it."""
    asked: list[dict[str, str]] = []
    context = browser.new_context()
    page = context.new_page()
    static = Path(__file__).parents[2] / "proxy" / "admin" / "static"

    def answer(route: Any) -> None:
        path = route.request.url.removeprefix("http://penstock.test")
        if path == "/" or path.startswith("/static/"):
            file = static / (path.removeprefix("/static/") if path != "/" else "index.html")
            kind = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}[file.suffix[1:]]
            route.fulfill(path=file, content_type=kind)
            return
        asked.append(route.request.headers)
        ok = route.request.headers.get("authorization") == "Bearer sesame"
        route.fulfill(status=200 if ok else 401, content_type="application/json", body=json.dumps({}))

    page.route("**/*", answer)
    page.goto("http://penstock.test/")
    page.get_by_role("textbox", name="Token").fill("sesame")
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)
    assert asked[-1].get("authorization") == "Bearer sesame"
    context.close()
