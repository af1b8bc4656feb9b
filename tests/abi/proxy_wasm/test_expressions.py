"""CEL expressions, and the same in the real Envoy 1.40."""

import struct
import time
from urllib.parse import quote

import pytest
from cel_expr_python import cel
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.abi.proxy_wasm import expressions
from proxy.abi.proxy_wasm.cel_cost import Tree
from proxy.abi.proxy_wasm.expressions import LONGEST, MOST
from tests.abi.guest import OUT, Script
from tests.conformance import verdict
from tests.conformance.case import Case
from tests.conformance.cases.requests import get as request

HEADERS = "proxy_on_request_headers"
TICK = "proxy_on_tick"
SOURCES = """
request.path | request.headers['x-a'] | request.headers.nope | request.headers['nope'] | nope | nope.x | 1 | -1 | 1u | 1.5
true | 'a' | b'a' | null | [1,'a'] | {'a':1} | {'a':'b'} | [] | {} | [[1],[2u]] | timestamp('2020-01-01T00:00:00Z')
duration('1s') | type(1) | request | 1+ | size(request.headers)>0 | request.duration | request.size | request.size + 1
connection.mtls | !connection.mtls | plugin_name | plugin_name == 'A' | request.nope | has(request.nope) | has(request.path)
has(request.headers.nope) | response.code | 1/0 | 'a'.matches('a+') | 'a'+1 | foo(1) | [1,2].map(x,x+1) | filter_state
filter_state['wasm.a'] | metadata | xds.cluster_name | upstream.address | request.headers.exists(k,k=='x-a')
request.headers.all(k,k=='x-a') | '' | x | a | a == b'v' | a == 'v' | request.duration | string(request.size) | wasm
cluster_name | 1 == 1.0 | 'é'.size() | request.path.startsWith('/') | request.path.contains('b=1')
request.method in ['GET','POST'] | connection.tls_version | listener_direction | request.headers == request.headers
upstream.port | request.path + 1 == 'a' | true | dyn(1) | request['path'] | request['pa' + 'th'] | request.query + '!'
'x' in request.headers | 'x-a' in request.headers | size(request.path) | request.host | request.protocol == 'HTTP/1.1'
request.path > 'a' | [1,2,3].filter(x, x > 1) | [1].exists_one(x, x == 1) | size(request.headers.filter(k, k.startsWith('x-')))
{'a':1}.a | [1,2][5] | 9223372036854775807 + 1 | int('12') | double('x') | request.size == 0
request.headers['x-a'].matches('^1,') | response.flags | response.flags == 0 | source.port > 0
destination.address.contains(':') | 'a\\nb'
""".replace("\n", "|").split("|")
SOURCES = [source.strip() for source in SOURCES if source.strip()]
SOURCES += ["request.path + 1 == 'a' || true", "1/0 > 0 || true", "false && 1/0 > 0"]


def text(data):
    return quote(data, safe="") or "~"


def cases():
    ask = request(fields=[("x-a", "1"), ("x-a", "2")])
    evaluate = "foreign expr_evaluate %00%00%00%00"
    found = [Case(source, (f"rqh: setprop a v; foreign expr_create {text(source)}; {evaluate}",), ask) for source in SOURCES]
    create, delete = "foreign expr_create {}".format, "foreign expr_delete %0{}%00%00%00".format
    calls = [create(1), create(2), delete(0), create(3), evaluate, evaluate.replace("%00", "%01", 1), delete(9)]
    bad = "foreign expr_evaluate abc; foreign expr_delete abc; foreign expr_delete ~; foreign expr_create ~"
    found.append(Case("tokens", (f"rqh: {'; '.join(calls)}; {bad}",), ask))
    script = f"configure: {create('request.path')}; {evaluate}\nrqh: {evaluate}\nrsh: {evaluate}\nlog: {evaluate}"
    found.append(Case("roots", (script,), ask))
    tick = f"eff stream; prop request%00path; {evaluate}; cont 0; period 0"
    found.append(Case("effective", (f"rqh: period 60; {create('request.path')}; ret 1\ntick#1: {tick}",), ask))
    return found


@pytest.mark.envoy
@pytest.mark.timeout(180)
async def test_the_same_in_envoy():
    """Edge case 44: expr_evaluate acts on the calling context, not on the effective one."""
    verdicts = await verdict.judge(cases())
    assert {one.case.name: one.difference for one in verdicts if one.difference} == {}
    (effective,) = [one.envoy.log for one in verdicts if one.case.name == "effective"]
    assert any("expr_evaluate" in line and "= 10" in line for line in effective)


def call(name, argument, out=OUT):
    return ("proxy_call_foreign_function", name, argument, out, out)


def evaluate(run, source, **options):
    made, found = run(HEADERS, call(b"expr_create", source), call(b"expr_evaluate", bytes(4)), **options)
    return made.status, found.status, found.value


def test_whose_attributes_are_read(start_filters):
    """Edge case 44: those of the calling context, though another is effective."""
    rows = [call(b"expr_evaluate", bytes(4)), ("proxy_set_effective_context", 2), call(b"expr_evaluate", bytes(4))]
    script = Script({"proxy_on_configure": [call(b"expr_create", b"request.headers['x-a']")], HEADERS: rows})
    worker = start_filters(script)
    first = worker.open(fields=((b"host", b"h"), (b"x-a", b"one")))
    first.call(HEADERS)
    second = worker.open(fields=((b"host", b"h"), (b"x-a", b"two")))
    found = second.runs(HEADERS)
    assert [(one.status, one.value if one.slots else None) for one in found] == [(0, b"two"), (0, None), (0, b"two")]
    assert worker.memory.live is second.stream.region


def test_expressions_are_the_root_s_and_go_with_the_vm(start_filters):
    script = Script({"proxy_on_configure": [call(b"expr_create", b"1 + 1")], HEADERS: [call(b"expr_evaluate", bytes(4))]})
    worker = start_filters(script)
    assert worker.open().runs(HEADERS)[0].value == struct.pack("<q", 2)
    worker.slots[0].bury()
    worker.slots[0].start()
    assert worker.open().runs(HEADERS)[0].value == struct.pack("<q", 2)
    assert worker.runs("proxy_on_configure")[0].status == 0


def test_limits(run):
    found = run(HEADERS, *[call(b"expr_create", b"1", 0)] * (MOST + 1), settings={"fuel": 10**8, "deadline": "2s"})
    assert [one.status for one in found] == [0] * MOST + [10]
    longest = b"'" + b"a" * (LONGEST - 2) + b"'"
    (one, two) = run(
        HEADERS, call(b"expr_create", longest), call(b"expr_create", longest + b" "), settings={"fuel": 10**8, "deadline": "2s"}
    )
    assert (one.status, two.status) == (0, 2)


GREEDY = {
    "doubling": b"['aaaaaaaa']" + b".map(x,x+x)" * 30,
    "nested loops": b"[1,2,3,4,5,6,7,8].all(a,[1,2,3,4,5,6,7,8].all(b,[1,2,3,4,5,6,7,8].all(c,[1,2,3,4,5,6,7,8].all(d,"
    b"[1,2,3,4,5,6,7,8].all(e,[1,2,3,4,5,6,7,8].all(f,true))))))",
    "a large regex": b"'a'.matches('" + b"(a{1,30}b{1,30})" * 260 + b"')",
    "lists of lists": b"[1]" + b".map(x,[x,x,x,x])" * 25,
}


@pytest.mark.parametrize("source", GREEDY.values(), ids=GREEDY)
def test_what_could_take_too_long_is_not_begun(run, source, record_property):
    started = time.process_time()
    made, status, _ = evaluate(run, source, settings={"fuel": 10**9, "limits": {"start_fuel": 10**9}})
    record_property("seconds", time.process_time() - started)
    assert (made, status) in {(0, 10), (2, 1)}


def test_the_bound_is_charged(start_filters):
    source = b"[1,2,3,4,5,6,7,8].all(a,[1,2,3,4,5,6,7,8].all(b,true))"
    script = Script({"proxy_on_configure": [call(b"expr_create", source)], HEADERS: [call(b"expr_evaluate", bytes(4))]})
    costs = []
    for fuel in (50_000_000, 200_000):
        worker = start_filters((script, {"fuel": fuel}))
        worker.open().call(HEADERS)
        costs.append((worker.failures(), worker.plugins[0].fuel_used.value))
    assert costs[0][0] == {}
    assert costs[0][1] > 400_000
    assert costs[1][0] == {"fuel": 1}


def test_a_large_result(run):
    source = b"[s, s].map(x, x + x)".replace(b"s", b"'" + b"a" * 1500 + b"'")
    made, status, value = evaluate(run, source, settings={"fuel": 10**8})
    assert (made, status, len(value)) == (0, 0, 4 + 2 * (8 + 3000 + 2))
    several = source + b".map(x, x+x+x+x+x+x+x+x)" * 3
    assert evaluate(run, several, settings={"fuel": 10**8})[:2] == (0, 10)


def test_times_are_read_alone(run):
    """The library takes no times from outside: within a larger expression they are missing."""
    assert evaluate(run, b"request.time")[1] == 0
    assert evaluate(run, b"request.time > timestamp('2020-01-01T00:00:00Z')")[:2] == (0, 10)
    assert evaluate(run, b"has(request.time)") == (0, 0, b"\0")


LEAVES = st.sampled_from(["1", "'ab'", "x", "s", "[1, 2]", "['a', s]", "{'k': s}", "true"])
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds("({} + {})".format, inner, inner), st.builds("[{}, {}]".format, inner, inner),
        st.builds("{}.map(x, {})".format, inner, inner), st.builds("{}.map(x, x + x)".format, inner),
        st.builds("{}.filter(x, {} == x)".format, inner, inner), st.builds("string({})".format, inner),
        st.builds("(size({}) > 1 ? {} : {})".format, inner, inner, inner),
    ),
    max_leaves=12,
)  # fmt: skip


def size_of(value):
    if isinstance(value, dict):
        return sum(size_of(one) + size_of(key) for key, one in value.items())
    if isinstance(value, list):
        return sum(map(size_of, value))
    return len(value) if isinstance(value, str | bytes) else 8


@settings(max_examples=150, deadline=None)
@given(source=TREES)
def test_no_value_is_larger_than_its_bound(source):
    program = cel.NewEnv().compile(source, disable_check=True)
    tree = Tree(program.serialize())
    data = {"s": "text" * 20, "x": ["y" * 10] * 3}
    if tree.bound(200) > 5_000_000:
        return
    try:
        value = program.eval(data=data)
    except RuntimeError:
        return
    if value.type().name() != "ERROR":
        assert size_of(value.plain_value()) <= tree.bound(200)


def test_without_the_extra(run, monkeypatch):
    monkeypatch.setattr(expressions, "installed", lambda: False)
    assert evaluate(run, b"1")[:2] == (1, 1)


def test_all_expressions_together_are_limited(run, monkeypatch):
    monkeypatch.setattr(expressions, "MOST_SOURCE", 10)
    found = run(HEADERS, call(b"expr_create", b"1 + 1"), call(b"expr_create", b"22222"), call(b"expr_create", b"3"))
    assert [one.status for one in found] == [0, 0, 10]
    (*_, again) = run(
        HEADERS, call(b"expr_create", b"1 + 11111"), call(b"expr_delete", bytes(4), 0), call(b"expr_create", b"2 + 22222")
    )
    assert again.status == 0
