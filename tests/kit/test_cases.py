"""Case files are read as their description says, and what is wrong with one is said in a line."""

from pathlib import Path

import pytest

from proxy.kit.case_file import find, read
from proxy.kit.cases import CLOCK, CaseError

HERE = Path(__file__).parent


def case_file(folder: Path, text: str) -> Path:
    (folder / "f.wasm").touch()
    path = folder / "cases.yaml"
    path.write_text(text)
    return path


def test_forms(tmp_path: Path) -> None:
    """Chunks, times, values, clocks, and the two ways to script a call."""
    text = """
filter: { fuel: 7 }
cases:
  - name: a
    clock: 2030-01-01T00:00:00Z
    request: { body: { text: ab, times: 2 }, chunks: [1], headers: { x: [1, b], y: c } }
    expect: { response: { headers: { A: [b, c], d: null, e: 1 } }, memory: 2KiB }
  - name: b
    text: "raw"
    services: { auth: [{ status: 401, delay: 0.5 }, null] }
    expect: { calls: { auth: [{ path: /x }, {}, {}] } }
"""
    cases = read(case_file(tmp_path, text))
    first, second = cases.cases
    assert cases.wasm == tmp_path / "f.wasm"
    assert (first.request.chunks, first.clock, first.own_vm) == ([b"a", b"bab"], 1893456000.0, True)
    assert first.request.headers == [("x", "1"), ("x", "b"), ("y", "c")]
    assert first.downstream is not None
    assert first.downstream.headers == {"a": [b"b", b"c"], "d": [], "e": [b"1"]}
    assert first.exchanges[0].expected.memory == 2048
    assert (second.configuration, second.clock, second.own_vm) == (b"raw", CLOCK, False)
    assert [None if one is None else (one.status, one.delay) for one in second.services["auth"]] == [(401, 0.5), None, None]
    assert [one.path for one in second.calls["auth"]] == ["/x", None, None]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cases: [{name: a, expect: {}, requests: {}}]", "case 'a': unknown keys ['requests']"),
        ("cases: [{name: a, expect: {}}, {name: a, expect: {}}]", "names repeat: a"),
        ("cases: [{name: a, config: b, expect: {}}]", "no config is named b"),
        ("cases: [{name: a}]", "case 'a': expect: is missing"),
        ("cases: [{name: a, expect: {}, calls: [{cluster: c, answer: never}]}]", "no answer is called never"),
        ("cases: [{name: a, expect: {log: [{level: loud, text: x}]}}]", "no level is called loud"),
        ("cases: [{name: a, expect: {memory: 2 pages}}]", "has an unknown unit"),
        ("cases: [{name: a, request: {body: ab, chunks: 0}, expect: {}}]", "chunks: 0 is not a plan"),
        ("cases: [{name: a, request: {headers: [a]}, expect: {}}]", "headers: ['a'] are no fields"),
        ("cases: [{name: a, request: {body: 5}, expect: {}}]", "body: 5 is no text"),
        ("cases: [{name: a, clock: yesterday, expect: {}}]", "clock: 'yesterday' is not a time"),
        ("cases: [{name: a, wait: long, expect: {}}]", "is not of the form of a case file"),
        ("cases: {a: {expect: {}}}", "cases: is not a list"),
        ("", "is empty"),
        ("cases: [{expect: {}}]", "name: is missing"),
        ("cases: {", "can not be read"),
        ("[]", "is not a mapping"),
        ("wasm: other.wasm", "there is no such file"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, said: str) -> None:
    """The file, the case and what is wrong with it."""
    path = case_file(tmp_path, text)
    with pytest.raises(CaseError) as raised:
        read(path)
    assert str(path.parent) in str(raised.value)
    assert said in str(raised.value)


def test_what_a_path_means(tmp_path: Path) -> None:
    """A folder, a module, and a file."""
    path = case_file(tmp_path, "cases: []")
    wasm = tmp_path / "f.wasm"
    assert find(tmp_path) == find(path) == (path, None)
    assert find(wasm) == (path, wasm)
    own = tmp_path / "f.cases.yaml"
    own.write_text("cases: []")
    assert find(wasm) == (own, wasm)
    with pytest.raises(CaseError, match="no such file"):
        find(tmp_path / "nowhere")
