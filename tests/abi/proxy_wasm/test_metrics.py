"""Metrics: ids and statuses are Envoy's (counters 4, 8 ..., gauges 5, 9 ..., histograms 6, 10 ...)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.abi.proxy_wasm.metrics import IS, LABEL, MOST_LABELS, NEXT, RESERVED, parse
from proxy.telemetry.metrics import render
from tests.abi.guest import OUT, Script

HEADERS = "proxy_on_request_headers"
COUNTER, GAUGE, HISTOGRAM = range(3)
MIN, MAX = -(1 << 63), (1 << 63) - 1


def define(kind, name=b"m"):
    return ("proxy_define_metric", kind, name, OUT)


def test_ids(run):
    found = run(HEADERS, *[define(kind, b"n%d" % i) for i in range(2) for kind in range(3)], define(3), define(-1))
    assert [(one.status, one.u32()) for one in found[:6]] == [(0, n) for n in (4, 5, 6, 8, 9, 10)]
    assert [one.status for one in found[6:]] == [2, 2]


def test_defining_a_name_again_gives_a_new_id_of_the_same_metric(run):
    found = run(
        HEADERS, define(COUNTER), ("proxy_increment_metric", 4, 2), define(COUNTER), ("proxy_increment_metric", 8, 3),
        ("proxy_get_metric", 4, OUT),
    )  # fmt: skip
    assert (found[2].u32(), found[-1].u64()) == (8, 5)


@pytest.mark.parametrize(
    ("kind", "calls", "statuses", "value"),
    [
        (COUNTER, [("increment", 1), ("increment", 0), ("increment", -1), ("record", 5)], [0, 2, 2, 0], 6),  # edge case 21
        (COUNTER, [("increment", MAX), ("increment", MAX)], [0, 0], (1 << 64) - 2),
        (GAUGE, [("increment", 3), ("increment", 0), ("increment", -1)], [0, 0, 0], 2),
        (GAUGE, [("record", 7), ("record", 5)], [0, 0], 5),
        (GAUGE, [("record", 2), ("increment", -5)], [0, 0], 0),
        (HISTOGRAM, [("increment", 1), ("record", 7)], [2, 0], None),
    ],
)
def test_values(run, kind, calls, statuses, value):
    id_ = 4 + kind
    rows = [(f"proxy_{verb}_metric", id_, amount) for verb, amount in calls]
    first, *found, last = run(HEADERS, define(kind), *rows, ("proxy_get_metric", id_, OUT))
    assert first.status == 0
    assert [one.status for one in found] == statuses
    assert (last.status, last.u64() if value is not None else None) == ((0, value) if value is not None else (2, None))


@pytest.mark.parametrize("id_", [0, 1, 2, 3, 5, 6, 7, 8, 4000, 0xFFFF_FFFF, 0x8000_0004])
def test_unknown_ids(run, id_):
    found = run(
        HEADERS,
        define(COUNTER),
        ("proxy_increment_metric", id_, 1),
        ("proxy_record_metric", id_, 1),
        ("proxy_get_metric", id_, OUT),
    )
    assert [one.status for one in found[1:]] == [1, 1, 1]


def test_they_are_shown(start_filters):
    rows = [define(COUNTER, b"a.b"), ("proxy_increment_metric", 4, 7), define(GAUGE, b"g"), ("proxy_record_metric", 5, 9)]
    rows += [define(HISTOGRAM, b"h"), ("proxy_record_metric", 6, 12)]
    worker = start_filters(Script({HEADERS: rows}))
    worker.open().call(HEADERS)
    worker.plugins[0].metrics.refresh()
    assert sorted(shown.value for shown in worker.plugins[0].metrics.shown.values()) == [7, 9]


def test_limits(run):
    """10 (InternalFailure) for one more than limits.metrics, 2 for a name of more than 512 bytes."""
    found = run(
        HEADERS,
        define(COUNTER, b"a"),
        define(GAUGE, b"b"),
        define(COUNTER, b"c"),
        define(COUNTER, b"a"),
        settings={"limits": {"metrics": 2}},
    )
    assert [one.status for one in found] == [0, 0, 10, 0]
    assert run(HEADERS, define(COUNTER, b"n" * 513), define(COUNTER, b"n" * 512))[0].status == 2


def test_defining_without_end(run):
    found = run(HEADERS, *[define(COUNTER)] * 40, settings={"limits": {"metrics": 5}, "fuel": 10**8})
    statuses = [one.status for one in found]
    assert statuses == sorted(statuses)
    assert set(statuses) == {0, 10}


def test_names_of_two_kinds_that_are_shown_alike(run, lines):
    """What /metrics cannot tell apart is refused, and does not fail in any other way."""
    rows = [
        define(COUNTER, b"x"),
        define(GAUGE, b"x_total"),
        define(GAUGE, b"y"),
        define(HISTOGRAM, b"y"),
        define(COUNTER, b"y"),
    ]
    found = run(HEADERS, *rows, define(COUNTER, b"\xff \0"), define(GAUGE, b""))
    assert {one.status for one in found} <= {0, 2, 10}
    assert found[0].status == 0


def test_filters_do_not_share_ids(start_filters):
    one = Script({HEADERS: [define(COUNTER), ("proxy_increment_metric", 4, 1)]})
    two = Script({HEADERS: [("proxy_get_metric", 4, OUT)]})
    worker = start_filters(one, two)
    worker.open(0).call(HEADERS)
    assert worker.open(1).runs(HEADERS)[0].status == 1


# ---- Labels ----


def shown(worker):
    """Name and labels -> value, as on /metrics."""
    worker.plugins[0].metrics.refresh()
    text, _ = render(worker.instruments.registry.snapshot())
    return {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.decode().splitlines() if "guest" in line[:15]
    }


def test_labels(start_filters):
    rows = [
        define(COUNTER, b"source=.=web;.;code=.=200;.;requests"),
        ("proxy_increment_metric", 4, 2),
        define(COUNTER, b"requests;.;source=.=api;.;code=.=500"),
        ("proxy_increment_metric", 8, 3),
        define(COUNTER, b"requests"),  # other labels: under its own full name
        ("proxy_increment_metric", 12, 4),
        define(COUNTER, b"user=.=a;.;requests"),
        ("proxy_increment_metric", 16, 5),
        define(GAUGE, b'a=.="\n\\;.;open'),
        ("proxy_record_metric", 5, 6),
    ]
    worker = start_filters(Script({HEADERS: rows}))
    worker.open().call(HEADERS)
    found = shown(worker)
    assert found == {
        'penstock_guest_requests_total{code="200",filter="f0",source="web"}': 2,
        'penstock_guest_requests_total{code="500",filter="f0",source="api"}': 3,
        'penstock_guest_requests_2_total{filter="f0"}': 4,
        'penstock_guest_user_a_requests_total{filter="f0"}': 5,
        'penstock_guest_open{a="\\"\\n\\\\",filter="f0"}': 6,
    }


@given(
    name=st.text(min_size=1).filter(lambda text: IS not in text and NEXT not in text and ";" not in text and "=" not in text),
    labels=st.dictionaries(
        st.from_regex(LABEL, fullmatch=True), st.text(alphabet="ab=.;é \n", max_size=20), max_size=MOST_LABELS
    ),
    last=st.booleans(),
)
def test_labels_are_read_as_they_are_written(name, labels, last):
    labels = {
        key: value.strip(";.=")
        for key, value in labels.items()
        if key not in RESERVED and NEXT not in value and IS not in value
    }  # a value that holds or could make a separator cannot be written
    written = [f"{key}{IS}{value}" for key, value in labels.items()]
    assert parse(NEXT.join([*written, name] if last else [name, *written])) == (name, labels)
    assert list(parse(NEXT.join([*written, name]))[1]) == sorted(labels)


PARTS = st.lists(
    st.sampled_from([IS, NEXT, "a", "filter", "le", "__x", "9", "", ".", ";", "=", "é", "a" * 70, "v" * 200]), max_size=40
)


@given(parts=PARTS)
def test_any_name_is_read(parts):
    name = "".join(parts)
    found, labels = parse(name)
    assert found == name or labels
    assert not RESERVED & labels.keys()
    assert len(labels) <= MOST_LABELS
    assert all(LABEL.fullmatch(key) and len(value) <= 128 for key, value in labels.items())


def test_labels_are_metrics_of_their_own_to_the_limit(run):
    """Cardinality is bounded by limits.metrics: each set of labels is one."""
    rows = [define(COUNTER, b"user=.=%d;.;n" % number) for number in range(6)]
    found = run(HEADERS, *rows, define(COUNTER, b"user=.=0;.;n"), settings={"limits": {"metrics": 4}})
    assert [one.status for one in found] == [0, 0, 0, 0, 10, 10, 0]
