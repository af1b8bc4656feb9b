"""The support table and the waivers in the docs say what the cases say."""

from __future__ import annotations

import re

import pytest

from proxy.abi.proxy_wasm.signatures import CALLBACKS, ENVIRONMENT_FUNCTIONS, HOST_FUNCTIONS, WASI_FUNCTIONS
from tests import requires
from tests.conformance import support
from tests.conformance.cases.table import CASES

AGAIN = "python -m tests.conformance --table"


def test_the_page_is_made_of_the_cases() -> None:
    requires.module("grpc", "pip install penstock[grpc]")
    assert support.PAGE.read_text(encoding="utf-8") == support.page(CASES, support.grpc_scripts()), AGAIN


def test_the_table_of_waivers_is_made_of_the_waivers() -> None:
    text = support.WAIVER_PAGE.read_text(encoding="utf-8")
    assert support.waivers() in text, AGAIN
    assert support.with_waivers(text) == text


def test_every_function_has_a_row_and_says_what_is_not_asked() -> None:
    text = support.PAGE.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE))
    assert set(rows) >= {*HOST_FUNCTIONS, *CALLBACKS, *WASI_FUNCTIONS, *ENVIRONMENT_FUNCTIONS}
    newest = {name: rows[name].split(" | ")[2] for name in (*HOST_FUNCTIONS, *CALLBACKS)}
    without = {name for name, cell in newest.items() if cell in ("no case", "not asked")}
    assert without <= set(support.NOT_HERE)


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("rqh#2: get 0 x; ret 1", {"proxy_on_request_headers", "proxy_get_header_map_value"}),
        ("tick: metric 2 a 1; cont 0", {"proxy_on_tick", "proxy_define_metric", "proxy_record_metric", "proxy_get_metric"}),
        ("rqh: add 0 a b:c", {"proxy_on_request_headers", "proxy_add_header_map_value"}),
    ],
)
def test_what_a_script_asks(script: str, found: set[str]) -> None:
    case = support.Case("x", (script,), ())
    assert found <= support.asked(case)


def test_what_a_grpc_script_asks() -> None:
    asked = support.asked_of_grpc("rqh:stream auth t.S Echo ~;send s x 0!recv:cancel s")
    assert asked == {"proxy_grpc_stream", "proxy_grpc_send", "proxy_grpc_cancel", "proxy_on_grpc_receive"}
